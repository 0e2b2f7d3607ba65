#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# generate and eval as a user meets them: the same bytes again, what is refused, scores of answers.
# usage: generate_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

generate() { # output, arguments...
  local output=$1
  shift
  "$program" generate --model "$source_dir/data/demo-model" --output "$work/$output" "$@" >"$work/out" 2>"$work/log"
  code=$?
}
evaluate() { "$program" eval "$@" >"$work/out" 2>"$work/log"; code=$?; }
refused() { # description, exit code, text, arguments...
  local what=$1 wanted=$2 text=$3
  shift 3
  generate no.jsonl --count 1 "$@"
  check "$what is $wanted" [ $code -eq "$wanted" ]
  check "$what is named" says "$text"
  check "$what leaves nothing" [ -z "$(ls "$work"/no.jsonl* 2>/dev/null)" ]
}

generate a.jsonl --task vt,qa1 --length 1k,2k --count 3
check "generate writes" [ $code -eq 0 ]
check "a line for each task, length and number" [ "$(wc -l <"$work/a.jsonl")" -eq 12 ]
generate b.jsonl --task qa1,vt --length 2k,1k --count 3
check "the order asked for changes no line" cmp -s <(sort "$work/a.jsonl") <(sort "$work/b.jsonl")
generate a.jsonl --task vt --length 1k --count 1
check "a file that exists is 73" [ $code -eq 73 ]
generate a.jsonl --task vt,qa1 --length 1k,2k --count 3 --seed 43 --overwrite
check "--overwrite replaces it, another seed changes it" [ $code -eq 0 ]
check "every line" [ "$(comm -12 <(sort "$work/a.jsonl") <(sort "$work/b.jsonl") | wc -l)" -eq 0 ]
generate all.jsonl --task all --length 2k --count 1
check "all are those that need no data" [ "$(wc -l <"$work/all.jsonl")" -eq 16 ]

refused "an unknown task" 2 "got 'nope'" --task vt,nope --length 1k
refused "a task twice" 2 "vt is there twice" --task vt,vt --length 1k
refused "a length without number" 2 "got '1q'" --task vt --length 1q
refused "no length" 2 "got 0" --task vt --length 0
refused "a length that is too short" 2 "vt: --length: expected at least" --task qa1,vt --length 256
refused "count 0" 2 "--count" --task vt --length 1k --count 0
refused "a seed below 0" 2 "--seed" --task vt --length 1k --seed -1
refused "a task without its data" 2 "SQuAD" --task qa_1 --length 1k
refused "data without its task" 2 "--data" --task vt --length 1k --data x
refused "a missing haystack" 66 "/nowhere" --task qa1 --length 1k --haystack /nowhere
refused "two tasks as records" 2 "got 2 pairs" --task vt,qa1 --length 1k --output-format star-attention

generate docs.jsonl --task niah_single_1,qa1 --length 512 --count 2
# Right answers, but for the last; then one less.
sed -E 's/^\{"id":("[^"]*").*"answers":\["([^"]*)"\].*/{"id":\1,"query_id":"0","answer":"\U\2"}/; 4s/"answer":.*/"answer":"nowhere"}/' \
  "$work/docs.jsonl" >"$work/answers.jsonl"
evaluate --input "$work/docs.jsonl" --answers "$work/answers.jsonl" --output "$work/scores.json"
check "eval scores" [ $code -eq 0 ]
check "all right" shows "^niah_single_1 +512 +2 +0 +100.0  34.2 .. 100.0"
check "half right" shows "^qa1 +512 +2 +0 +50.0  9.5 .. 90.5"
check "and writes JSON" grep -q '"task":"qa1","length":512,"n":2,"missing":0,"score":0.5' "$work/scores.json"
head -n 3 "$work/answers.jsonl" >"$work/less.jsonl"
echo '{"line": 4, "id": "qa1-512-1", "error": "bad"}' >>"$work/less.jsonl"
evaluate --input "$work/docs.jsonl" --answers "$work/less.jsonl"
check "a missing answer is 65" [ $code -eq 65 ]
check "counted" shows "^qa1 +512 +1 +1 +100.0"
cat "$work/answers.jsonl" "$work/less.jsonl" >"$work/twice.jsonl"
evaluate --input "$work/docs.jsonl" --answers "$work/twice.jsonl"
check "a second answer is 65" [ $code -eq 65 ]
check "at its line" says "twice.jsonl:5"
evaluate --input "$source_dir/data/demo.jsonl" --answers "$work/answers.jsonl"
check "documents of no task are 65" [ $code -eq 65 ]
check "which names the answer that has no question" says "answers.jsonl:1: no document 'niah_single_1-512-0'"
exit $failed
