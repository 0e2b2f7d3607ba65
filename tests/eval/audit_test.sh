#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# eval --audit as a user meets it: zero where star is exact, the same on any ranks, resumed, refused.
# usage: audit_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

audit() { # ranks, output, arguments...
  local ranks=$1 output=$2
  shift 2
  timeout $hung mpirun --oversubscribe -n "$ranks" "$program" eval --audit --model "$source_dir/data/demo-model" \
    --input "$work/in.jsonl" --output "$work/$output" --max-new-tokens 12 "$@" >"$work/out" 2>"$work/log"
  code=$?
}
stable() { sed 's/,"seconds".*//' "$work/$1"; }
same() { [ -s "$work/$1" ] && [ "$(stable "$1")" = "$(stable "$2")" ]; }
greatest_kl() { grep -o '"kl_max":[-+.e0-9]*' "$work/$1" | cut -d: -f2 | sort -g | tail -n 1; }
less() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a < b) }'; }

head -n 3 "$source_dir/data/demo.jsonl" >"$work/in.jsonl"
audit 2 all.jsonl --block-size 512 --reach all
check "reach all is audited" [ $code -eq 0 ]
check "a line for each query" [ "$(wc -l <"$work/all.jsonl")" -eq 7 ]
check "and is exact, to rounding" less "$(greatest_kl all.jsonl)" 1e-6
check "in every answer" [ "$(grep -c '"same_tokens":true' "$work/all.jsonl")" -eq 7 ]
audit 1 one.jsonl --block-size 256 --anchor-size 0
check "small blocks without anchor are not" less 0.1 "$(greatest_kl one.jsonl)"
check "the table has each document" shows '^people +2,012 +3 '
check "and the batch" shows '^3 document\(s\), 7 answer\(s\)'
for ranks in 2 3; do
  audit $ranks "n$ranks.jsonl" --block-size 256 --anchor-size 0
  check "$ranks ranks find the same" same one.jsonl "n$ranks.jsonl"
done
audit 2 groups.jsonl --block-size 256 --anchor-size 0 --ranks-per-document 1
check "two groups too" same one.jsonl groups.jsonl
check "both times on as many ranks" grep -q '"exact_ranks":2,"star_ranks":2' "$work/n2.jsonl"
audit 2 dense.jsonl --block-size 256 --anchor-size 0 --exact dense
check "dense is exact as well" [ $code -eq 0 -a "$(grep -o '"exact":"[^"]*"' "$work/dense.jsonl")" = "$(grep -o '"exact":"[^"]*"' "$work/one.jsonl")" ]
check "but one rank's work, and not compared" shows '^phase 1: exact .*; not compared'

cat "$work/one.jsonl" "$work/one.jsonl" >"$work/doubled.jsonl"
"$program" report "$work/doubled.jsonl" >"$work/out" 2>"$work/log"
check "report counts no answer twice" [ $? -eq 65 ]
check "and says where it was first" says 'doubled.jsonl:8: .* was there before, in line 1'

head -n 5 "$work/one.jsonl" >"$work/part.jsonl" # numbers whole, people in part
printf '{"id": "torn' >>"$work/part.jsonl"
cp "$work/one.jsonl.settings.json" "$work/part.jsonl.settings.json"
audit 2 part.jsonl --block-size 256 --anchor-size 0
check "a rerun finishes" same one.jsonl part.jsonl
check "and shows all" shows '^3 document\(s\), 7 answer\(s\)'
audit 1 part.jsonl --block-size 512 --anchor-size 0
check "other settings are refused" [ $code -eq 2 ]
check "by name" says "block_size"

audit 1 two.jsonl --block-size 512 --sample 2 --seed 7
check "a sample of two" shows '^2 document\(s\)'
{ echo '{"id": "x"'; sed -n 1p "$source_dir/data/demo.jsonl"; } >"$work/in.jsonl"
audit 2 bad.jsonl --block-size 512
check "a bad line is 65" [ $code -eq 65 ]
check "and named" says "in.jsonl:1: "
check "the rest goes on" shows '^1 document\(s\)'
{ sed -n 1p "$source_dir/data/demo.jsonl"; sed -n 2p "$source_dir/data/demo.jsonl"; sed -n 1p "$source_dir/data/demo.jsonl"; } >"$work/in.jsonl"
audit 2 twice.jsonl --block-size 512
check "a repeated document is 65" [ $code -eq 65 ]
check "and named with both lines" says "in.jsonl:3: document '[a-z]*', query '1' was there before, in line 1:"
check "the others are audited" shows '^2 document\(s\)'
: >"$work/in.jsonl"
audit 2 none.jsonl
check "an empty input is 65" [ $code -eq 65 ]
audit 1 none.jsonl --task vt --answers x
check "two kinds of work are 2" [ $code -eq 2 ]
exit $failed
