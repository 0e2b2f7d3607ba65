#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# gpu_check.sh [FOLDER]: tests the CUDA backend on this machine's GPU and times it beside its peers.
# FOLDER: what scripts/bundle.sh made elsewhere; without it the cuda preset is built here.
# CHECK="tests answers kernels bench peers" picks parts. Ends with 1 if any check failed.
set -uo pipefail
cd "$(dirname "$0")/.."
source scripts/mpi_environment.sh
parts=${CHECK:-tests answers kernels bench peers}
folder=${1:-}
if [ -z "$folder" ]; then
  cmake --preset cuda >/dev/null && cmake --build --preset cuda | tail -n 1 || exit 1
  folder=build/gpu
  scripts/bundle.sh build/cuda "$folder"
fi
export LD_LIBRARY_PATH=$folder/lib:${LD_LIBRARY_PATH:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

check() { # check WHAT COMMAND...
  local what=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    echo "ok    $what"
  else
    echo "FAIL  $what"
    tail -n 40 "$work/log"
    failed=1
  fi
}
run() { "$@" || failed=1; }  # what it prints is the result
wanted() { [[ " $parts " == *" $1 "* ]]; }
wanted_with() { # wanted_with PART MODULE...: the part is asked for, and Python has what it needs
  local part=$1 modules
  shift
  wanted "$part" || return
  modules=$(IFS=,; echo "$*")
  python3 -c "import $modules" 2>/dev/null || { echo "skip  $part: needs Python with ${modules//,/ and }"; return 1; }
}

nvidia-smi --query-gpu=name,driver_version,clocks.max.sm --format=csv,noheader

if wanted tests; then
  check "operations equal the CPU's" timeout 300 "$folder/cuda_backend_test"
  for n in 1 4; do
    STARATTN_TEST_DEVICE=cuda check "equalities on $n rank(s)" timeout 300 mpirun --oversubscribe -n $n "$folder/equalities_test"
  done
  for n in 2 4; do
    STARATTN_TEST_DEVICE=cuda check "shared weights on $n ranks" timeout 300 mpirun --oversubscribe -n $n "$folder/sharded_test"
  done
  STARATTN_TEST_DEVICE=cuda check "memory is what plans say" timeout 300 mpirun --oversubscribe -n 1 "$folder/memory_test"
  for test in anchor_broadcast query_exchange segment_exchange; do
    STARATTN_TEST_DEVICE=cuda check "$test on 4 ranks" timeout 300 mpirun --oversubscribe -n 4 "$folder/${test}_test"
  done
fi

answers() { # answers DEVICE RANKS FILE
  timeout 200 mpirun --oversubscribe -n "$2" "$folder/starattn" run --device "$1" --model data/demo-model \
    --input data/demo.jsonl --output "$3" --block-size 1k >>"$work/log" 2>&1
}
only_answers() { python3 -c 'import json, sys
for line in open(sys.argv[1]):
    a = json.loads(line)
    print(a["id"], a["query_id"], a["answer"])' "$1"; }
same_answers() { test -s "$1" && test -s "$2" && diff <(only_answers "$1") <(only_answers "$2"); }
if wanted answers; then
  answers cpu 4 "$work/cpu.jsonl" && answers cuda 1 "$work/one.jsonl" && answers cuda 3 "$work/three.jsonl"
  check "the shipped model answers as on the CPU" same_answers "$work/cpu.jsonl" "$work/one.jsonl"
  check "and the same on 3 ranks" same_answers "$work/one.jsonl" "$work/three.jsonl"
fi

if wanted_with kernels torch; then
  library=$folder/libstarattn_kernels_c.so
  check "attention equals float64" python3 scripts/gpu_bench.py check "$library"
  run python3 scripts/gpu_bench.py ceilings
  run python3 scripts/gpu_bench.py time "$library" --lengths "${LENGTHS:-8,16,32,64,128}"
  run python3 scripts/gpu_bench.py time "$library" --d 64 --lengths 8,32,64 --star ""
  run python3 scripts/gpu_bench.py partial "$library" --lengths 32,128 --rows 1,8,32,64
  run python3 scripts/gpu_bench.py recall "$library" --lengths 32,128 --rows 64,1024
  run python3 scripts/gpu_bench.py rest "$library"
  run python3 scripts/gpu_bench.py products "$library"
  STARATTN_KERNELS=sm80 run python3 scripts/gpu_bench.py time "$library" --lengths 8,32 --star ""
  STARATTN_KERNELS=sm80 run python3 scripts/gpu_bench.py partial "$library" --lengths 32 --rows 1,8,64
fi

if wanted bench; then
  bench=(timeout 300 "$folder/starattn" bench --device cuda --shape 8b --tokens 128k --repeat 1)
  run "${bench[@]}" --block-size 32k --new-tokens 32 --queries 1,32
  run "${bench[@]}" --attention dense --new-tokens 32
  run "${bench[@]}" --block-size 32k --new-tokens 4 --kv-memory host
fi

if wanted_with peers torch transformers; then
  run timeout 300 python3 scripts/gpu_peers.py
fi
exit $failed
