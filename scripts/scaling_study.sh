#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# scaling_study.sh PROGRAM: both phases on 1, 2, 4, 8 ranks, star (anchor broadcast and encoded again)
# beside the balanced ring, as lines of tab-separated values. One GPU a rank, or --device cpu in OPTIONS.
# RANKS="1 2 4 8"  LENGTHS="32 64 128 256 512" (thousands of tokens)  QUERIES="1 32"  OPTIONS="--shape 8b"
# LAUNCH="mpirun -n" or "srun --mpi=pmix -n"  LIMIT=600 (seconds of one bench)
set -uo pipefail
program=${1:?usage: scaling_study.sh PROGRAM}
source "$(dirname "$0")/mpi_environment.sh"
read -ra options <<<"${OPTIONS:---shape 8b --device cuda}"
read -ra launch <<<"${LAUNCH:-mpirun -n}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0

# The number behind a name at the start of a line; empty where bench printed none.
number() { sed -nE "s/^($1) +([0-9.]+ [A-Za-z]+).*/\2/p" "$log" | head -n 1; }

bench() { # ranks, thousands of tokens, queries, what, arguments...
  local ranks=$1 length=$2 queries=$3 what=$4
  shift 4
  if ! timeout "${LIMIT:-600}" "${launch[@]}" "$ranks" "$program" bench "${options[@]}" --tokens "${length}k" \
    --queries "$queries" --new-tokens 16 "$@" >"$log" 2>&1; then
    echo "scaling_study: $ranks rank(s), ${length}k tokens, $what: $(tail -n 1 "$log")" >&2
    failed=1
    return
  fi
  printf '%s\t%sk\t%s\t%s\t%s\t%s\t%s\t%s\n' "$ranks" "$length" "$queries" "$what" \
    "$(number 'phase 1, anchor broadcast')" "$(number 'phase 1, anchor recompute')" "$(number 'phase 2, one step')" \
    "$(number 'peak GPU memory of a rank|peak memory of a rank')"
}

printf 'ranks\ttokens\tqueries\tmethod\tphase 1\tanchor again\tone step\tpeak memory\n'
for ranks in ${RANKS:-1 2 4 8}; do
  for length in ${LENGTHS:-32 64 128 256 512}; do
    for queries in ${QUERIES:-1 32}; do
      part=$((length / ranks))
      ((part > 0)) && bench "$ranks" "$length" "$queries" "star, b = a = n/$ranks" --block-size "${part}k"
      ((part != 32 && length > 32)) && bench "$ranks" "$length" "$queries" "star, b = a = 32k" --block-size 32k
      bench "$ranks" "$length" "$queries" ring --attention ring
    done
  done
done
exit $failed
