#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# scaling_study.sh PROGRAM FOLDER OPTIONS...: `bench` with these options on 1, 2, 4 and 8 ranks. Each number of
# ranks has its file FOLDER/ranks-N.jsonl, whose results must have the bits of the first.
# RANKS="1 2 4 8"  LAUNCH="mpirun -n" or "srun --mpi=pmix -n"
# With --tokens it is a study of strong scaling, with --tokens-a-rank of weak scaling.
set -uo pipefail
program=${1:?usage: scaling_study.sh PROGRAM FOLDER OPTIONS...}
folder=${2:?usage: scaling_study.sh PROGRAM FOLDER OPTIONS...}
source "$(dirname "$0")/mpi_environment.sh"
mkdir -p "$folder" || exit
read -ra launch <<<"${LAUNCH:-mpirun -n}"
check=()
failed=0
for ranks in ${RANKS:-1 2 4 8}; do
  file=$folder/ranks-$ranks.jsonl
  if "${launch[@]}" "$ranks" "$program" bench "${@:3}" --json "$file" "${check[@]}"; then
    [ ${#check[@]} -gt 0 ] || check=(--check "$file")
  else
    echo "scaling_study: $ranks rank(s): failed" >&2
    failed=1
  fi
done
exit $failed
