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
