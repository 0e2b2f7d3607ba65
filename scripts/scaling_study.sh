#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# scaling_study.sh PROGRAM: both phases on 1, 2, 4, 8 ranks, star (anchor broadcast and encoded again)
# beside the balanced ring, as lines of tab-separated values. One GPU a rank, or --device cpu in OPTIONS.
# RANKS="1 2 4 8"  LENGTHS=32k,64k,128k,256k,512k  QUERIES=1,32  OPTIONS="--shape 8b --device cuda"
# SETTINGS="star:b=n/P star:b=32k ring" (P: the ranks)  LAUNCH="mpirun -n" or "srun --mpi=pmix -n"
# LIMIT=600 (seconds of one setting)
set -uo pipefail
program=${1:?usage: scaling_study.sh PROGRAM}
source "$(dirname "$0")/mpi_environment.sh"
read -ra options <<<"${OPTIONS:---shape 8b --device cuda}"
read -ra launch <<<"${LAUNCH:-mpirun -n}"
queries=${QUERIES:-1,32}

# One line a context of what bench prints; a dash where a figure is missing.
as_table() { # ranks, setting
  awk -v OFS='\t' -v ranks="$1" -v setting="$2" -v queries="$queries" '
    function figure(name) { return name in found ? found[name] : "-" }
    function after(word,   i) { for (i = 1; i < NF; ++i) if ($i == word) return $(i + 1) " " $(i + 2) }
    function before(unit,   i) { for (i = 2; i <= NF; ++i) if ($i == unit) return $(i - 1) " " unit }
    function flush_context(   i, n, count) {
      if (!tokens) return
      printf "%s\t%s\t%s\t%s\t%s\t%s\t%s", ranks, tokens, setting, figure("once"), figure("again"),
        figure("moved"), figure("waited")
      n = split(queries, count, ",")
      for (i = 1; i <= n; ++i) printf "\t%s", figure("step " count[i])
      printf "\t%s\n", figure("peak")
      fflush()
      delete found
      tokens = ""
    }
    /^# context/ { flush_context(); tokens = $3 }
    /^phase 1/ && !/recompute/ {
      found["once"] = before("s"); found["moved"] = after("moved"); sub(/,$/, "", found["moved"])
      match($0, /ranks waited .*/); found["waited"] = substr($0, RSTART + 13)
    }
    /^phase 1, anchor recompute/ { found["again"] = before("s") }
    /^phase 2, one step/ { found["step " $5] = before("ms") }
    /^peak memory of a rank/ { if (!("peak" in found)) found["peak"] = $6 " " $7 }
    /^peak GPU memory of a rank/ { found["peak"] = $7 " " $8 }
    END { flush_context() }'
}

failed=0
printf 'ranks\ttokens\tsetting\tphase 1\tanchor again\tmoved\tranks waited'
printf '\tstep, %s quer.' ${queries//,/ }
printf '\tpeak memory\n'
for ranks in ${RANKS:-1 2 4 8}; do
  for setting in ${SETTINGS:-star:b=n/P star:b=32k ring}; do
    setting=${setting//P/$ranks}
    if ! timeout "${LIMIT:-600}" "${launch[@]}" "$ranks" "$program" bench "${options[@]}" \
      --tokens "${LENGTHS:-32k,64k,128k,256k,512k}" --setting "$setting" --queries "$queries" --new-tokens 16 \
      2> >(tail -n 3 >&2) | as_table "$ranks" "$setting"; then
      echo "scaling_study: $ranks rank(s), $setting: failed" >&2
      failed=1
    fi
  done
done
exit $failed
