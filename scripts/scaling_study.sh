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
read -ra queries <<<"${QUERIES:-1 32}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0

# What bench printed in a line that begins with these words, by a pattern; a dash where it did not.
found() { # words, pattern
  local value
  value=$(sed -nE "s/^($1) .*$2.*/\2/p" "$log" | head -n 1)
  printf '\t%s' "${value:--}"
}

bench() { # ranks, thousands of tokens, what, arguments...
  local ranks=$1 length=$2 what=$3
  shift 3
  if ! timeout "${LIMIT:-600}" "${launch[@]}" "$ranks" "$program" bench "${options[@]}" --tokens "${length}k" \
    --queries "$(IFS=,; echo "${queries[*]}")" --new-tokens 16 "$@" >"$log" 2>&1; then
    echo "scaling_study: $ranks rank(s), ${length}k tokens, $what: $(tail -n 1 "$log")" >&2
    failed=1
    return
  fi
  printf '%s\t%sk\t%s' "$ranks" "$length" "$what"
  found 'phase 1, anchor broadcast' ' ([0-9.]+ s) '
  found 'phase 1, anchor recompute' ' ([0-9.]+ s) '
  found 'phase 1, anchor broadcast' 'moved ([^,]*),'
  found 'phase 1, anchor broadcast' 'ranks waited (.* s)'
  for n in "${queries[@]}"; do found "phase 2, one step, $n quer[a-z]*" ' ([0-9.]+ ms) '; done
  found 'peak GPU memory of a rank|peak memory of a rank' ' ([0-9.]+ [A-Za-z]+)'
  echo
}

printf 'ranks\ttokens\tmethod\tphase 1\tanchor again\tmoved\tranks waited'
printf '\tstep, %s quer.' "${queries[@]}"
printf '\tpeak memory\n'
for ranks in ${RANKS:-1 2 4 8}; do
  for length in ${LENGTHS:-32 64 128 256 512}; do
    part=$((length / ranks))
    ((part > 0)) && bench "$ranks" "$length" "star, b = a = n/$ranks" --block-size "${part}k"
    ((part != 32 && length > 32)) && bench "$ranks" "$length" "star, b = a = 32k" --block-size 32k
    bench "$ranks" "$length" ring --attention ring
  done
done
exit $failed
