#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# starattn merge: the outputs of a job array become the one that a single run writes.
# usage: merge_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

in=$work/in.jsonl
for i in 1 2 3 4 5; do
  echo "{\"id\": \"d$i\", \"context\": \"The code of room $i is 739$i.\", \"queries\": [\"Which?\", \"What is it?\"]}"
done >"$in"
sed -i '3i {"broken": true}' "$in"
run=(run --model "$model" --input "$in" --max-new-tokens 3)
for i in 0 1; do on 1 "${run[@]}" --shard $i/2 --output "$work/part.$i.jsonl"; done
on 1 "${run[@]}" --output "$work/whole.jsonl"
parts=("$work/part.0.jsonl" "$work/part.1.jsonl")

on 1 merge --input "$in" --output "$work/all.jsonl" "${parts[@]}"
check "parts are joined" [ $code -eq 0 ]
check "their number is said" says '10 answer(s) and 1 error(s) of 2 part(s)'
check "as one run would have written them" same "$work/all.jsonl" "$work/whole.jsonl"
on 1 "${run[@]}" --output "$work/all.jsonl"
check "the whole is an output that a run continues" says '0 new answer(s), 10 already there'

on 1 merge --input "$in" --output "$work/all.jsonl" "${parts[@]}"
check "an output that is there is kept" [ $code -eq 73 ]
on 1 merge --input "$in" --output "$work/all.jsonl" --overwrite "${parts[1]}" "${parts[0]}"
check "unless --overwrite; parts come in any order" [ $code -eq 0 ]

# An output is more than its lines: what a replaced one left would be taken up by the next run.
cp "${parts[0]}" "$work/all.jsonl.journal"
on 1 merge --input "$in" --output "$work/all.jsonl" --overwrite "${parts[@]}"
check "the journal of an output that is replaced goes with it" [ $code -eq 0 -a ! -e "$work/all.jsonl.journal" ]
cp "${parts[0]}.settings.json" "$work/kept"
on 1 merge --input "$in" --output "${parts[0]}.settings.json" --overwrite "${parts[@]}"
check "the settings of a part are no output" [ $code -eq 2 ]
check "and stay" cmp -s "${parts[0]}.settings.json" "$work/kept"
ln -s part.0.jsonl "$work/link.jsonl"
ln -s there.jsonl "$work/new.jsonl"
on 1 merge --input "$in" --output "$work/new.jsonl" "$work/link.jsonl" "${parts[1]}"
check "parts and output may be links" [ $code -eq 0 ]
on 1 "${run[@]}" --output "$work/new.jsonl"
check "and a run continues what is behind them" says '0 new answer(s), 10 already there'
while_written() { # file, arguments...: merge while somebody holds the file's lock
  local file=$1
  shift
  flock --exclusive "$file" "$program" merge --input "$in" "$@" >"$work/out" 2>"$work/log"
  code=$?
}
while_written "$work/all.jsonl" --output "$work/all.jsonl" --overwrite "${parts[@]}"
check "an output that a run writes is not replaced" [ $code -eq 73 ]
check "and it is said why" says 'all.jsonl is being written by a run: wait for it'
while_written "${parts[1]}" --output "$work/not.jsonl" "${parts[@]}"
check "a part that a run writes is not complete" [ $code -eq 65 ]
check "which is said, too" says 'part.1.jsonl is being written by a run, so it is not complete'

refused() { [ $code -eq 65 ] && [ ! -e "$work/not.jsonl" ]; }
on 1 merge --input "$in" --output "$work/not.jsonl" "${parts[0]}"
check "a part that is missing is noticed" refused
check "by what it should have answered" says "in.jsonl:2: 'd2', query '0'"
head -n 3 "$in" >"$work/short.jsonl"
on 1 merge --input "$work/short.jsonl" --output "$work/not.jsonl" "${parts[@]}"
check "an answer to another input's document, too" refused
check "by name" says "document 'd[34]', query '0' is not the next of the input"

touch "${parts[1]}.journal"
on 1 merge --input "$in" --output "$work/not.jsonl" "${parts[@]}"
check "a part that was not finished is refused" refused
rm "${parts[1]}.journal"
sed -i.kept 's/"seed": 0/"seed": 1/' "${parts[1]}.settings.json"
on 1 merge --input "$in" --output "$work/not.jsonl" "${parts[@]}"
check "so are parts of other settings" refused
check "and the setting is named" says 'seed is 1 and 0'
mv "${parts[1]}.settings.json.kept" "${parts[1]}.settings.json"
sed -i '1s/"tokens":\[/"tokens":[1,/' "${parts[1]}"
on 1 merge --input "$in" --output "$work/not.jsonl" "${parts[@]}"
check "a line that was changed is refused" refused
check "with its place" says 'part.1.jsonl:1: the line was changed'

# An OpenAI batch file: shards are of contexts, lines come in the order of requests.
n=0
for i in 1 2 3 1 2; do
  echo "{\"custom_id\": \"r$((++n))\", \"method\": \"POST\", \"url\": \"/v1/completions\", \"body\": {\"model\": \"m\", \"prompt\": \"The code of room $i is 739$i. What is it? $n\", \"max_tokens\": 2}}"
done >"$work/batch.jsonl"
for i in 0 1; do
  on 1 run --model "$model" --input "$work/batch.jsonl" --question-marker 'What' --shard $i/2 --output "$work/batch.$i.jsonl"
done
on 1 merge --input "$work/batch.jsonl" --question-marker 'What' --output "$work/batch.all.jsonl" "$work"/batch.[01].jsonl
check "answers of a batch file are joined" [ $code -eq 0 ]
check "in the order of its requests" [ "$(grep -o '"custom_id":"r."' "$work/batch.all.jsonl" | grep -o '[0-9]' | tr -d '\n')" = 12345 ]
exit $failed
