#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzz target for a while, from the seeds in the tree. A crash leaves its input in build/fuzz, and its stack
# in the log. With a corpus folder, what was found new is kept there, and the next run begins with it.
# usage: run.sh [SECONDS each = 10] [CORPUS folder] [TARGET...]      (build first: cmake --preset fuzz)
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-10}
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
corpus=${2:-$temporary}
targets=("${@:3}")
[ ${#targets[@]} -gt 0 ] || for program in build/fuzz/tests/fuzz/*_fuzz; do
  targets+=("$(basename "$program" _fuzz)")
done

golden=tests/golden
seeds() { # target: the tree's own seeds, and the goldens that other tests use
  case $1 in
    config) cat_each "$golden"/models/*/config.json ;;
    tokenizer_json) cat_each "$golden"/tokenizer/*/tokenizer.json ;;
    tokenizer_model) cat_each "$golden"/tokenizer/sentencepiece/tokenizer.model ;;
  esac
  cp tests/fuzz/seeds/"$1"/* "$temporary/seeds/$1/"
}
cat_each() { # files, which have the same name in different folders
  for file in "$@"; do cp "$file" "$temporary/seeds/$target/$(basename "$(dirname "$file")")"; done
}

fuzz() { # target: one line of what came of it; what a crash said goes before it
  local target=$1 log=$temporary/$1.log
  if ASAN_OPTIONS=detect_leaks=0 build/fuzz/tests/fuzz/"${target}_fuzz" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=4096 \
    -max_len=65536 -print_final_stats=1 -print_funcs=0 -artifact_prefix="build/fuzz/$target-" -verbosity=0 \
    "$corpus/$target" "$temporary/seeds/$target" >"$log" 2>&1; then
    echo "$target: $(grep -o 'number_of_executed_units: [0-9]*' "$log" | grep -o '[0-9]*$') executions"
  else
    cat "$log"
    echo "$target: FAILED"
    return 1
  fi
}

for target in "${targets[@]}"; do
  mkdir -p "$temporary/seeds/$target" "$corpus/$target"
  seeds "$target"
done
# One target a core at a time.
export -f fuzz
export temporary seconds corpus
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I {} bash -c 'fuzz "$1"' _ {} || exit 1
