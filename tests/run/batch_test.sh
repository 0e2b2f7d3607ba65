#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A batch that meets trouble: a group that fails, signals to idle ranks, outputs and records that would
# destroy or replace something.
# usage: batch_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

head -n 3 "$source_dir/data/demo.jsonl" >"$work/in.jsonl"
base=(--model "$model" --input "$work/in.jsonl" --block-size 512)
on 1 run "${base[@]}" --checkpoint-dir "$work/kept" --output "$work/one.jsonl"
check "a batch is answered" [ $code -eq 0 -a "$(wc -l <"$work/one.jsonl")" -eq 7 ]
check "the table ends with tokens a second" says "context tokens, [0-9,]* a second; peak memory"
digest() { grep -o 'digest of the new [0-9a-f]*' "$work/log"; }
first_digest=$(digest)

# A node with hardly any shared memory: containers often have 64 MiB.
little_shared_memory='mount -t tmpfs -o size=20m tmpfs /dev/shm && exec "$@"'
if unshare -rm sh -c "$little_shared_memory" sh true 2>/dev/null; then
  unshare -rm sh -c "$little_shared_memory" sh timeout $hung mpirun --oversubscribe -n 3 "$program" run "${base[@]}" \
    --output "$work/little.jsonl" >"$work/out" 2>"$work/log"
  check "20 MiB of /dev/shm are enough" [ $? -eq 0 ]
  check "for the same bits" same "$work/one.jsonl" "$work/little.jsonl"
else
  echo "skipped: no mount namespaces here, so no small /dev/shm"
fi

# As between nodes.
recall=(--recall b/2 --anchor-size b/16 --lookup 3)
on 1 run "${base[@]}" "${recall[@]}" --output "$work/alone.jsonl"
on 3 run "${base[@]}" "${recall[@]}" --transport mpi --output "$work/messages.jsonl"
check "ranks of a node can keep to messages" [ $code -eq 0 ]
check "which says why weights are not shared out" says "has all weights: --transport mpi"
check "for the same bits" same "$work/alone.jsonl" "$work/messages.jsonl"
on 3 run "${base[@]}" "${recall[@]}" --transport mpi --shard-weights on --output "$work/none.jsonl"
check "and cannot share them out" [ $code -eq 2 ]

# One document's checkpoint cannot be locked: its group fails, the other one's answers stay.
for folder in "$work"/kept/*; do
  cp -r "$work/kept" "$work/broken"
  rm -f "$work/broken/$(basename "$folder")/lock"
  mkdir "$work/broken/$(basename "$folder")/lock"
  break
done
on 4 run "${base[@]}" --ranks-per-document 2 --checkpoint-dir "$work/broken" --output "$work/broken.jsonl"
check "a group that cannot go on ends the batch with its error" [ $code -eq 73 ]
check "said once" [ "$(grep -c "$(basename "$folder")/lock" "$work/log")" -eq 1 ]
check "with the document's name" says "document '.*': .*/lock"
rmdir "$work/broken/$(basename "$folder")/lock"
on 3 run "${base[@]}" --ranks-per-document 2 --checkpoint-dir "$work/broken" --output "$work/broken.jsonl"
check "and the rerun completes it" [ $code -eq 0 ]
check "to the same bits" same "$work/one.jsonl" "$work/broken.jsonl"

on 2 run "${base[@]}" --output "$work/again.jsonl"
check "equal answers have an equal digest" [ -n "$first_digest" -a "$(digest)" = "$first_digest" ]

# An anchor that is longer than one document's automatic block is that document's problem.
head -c 12000 "$source_dir/data/demo.jsonl" >"$work/long.txt"
echo '{"id": "short", "context": "A few words only.", "queries": ["What?"]}' >"$work/mixed.jsonl"
echo '{"id": "long", "context_file": "long.txt", "queries": ["What?"]}' >>"$work/mixed.jsonl"
on 2 run --model "$model" --input "$work/mixed.jsonl" --anchor-size 600 --max-new-tokens 4 --output "$work/mixed.out"
check "a plan that does not fit one document is its error line" [ $code -eq 65 -a "$(grep -c '"error"' "$work/mixed.out")" -eq 1 ]
check "the others are answered" [ "$(grep -c '"answer"' "$work/mixed.out")" -eq 1 ]

# A signal to a rank that is no first one of the batch, before its group asks for the next document.
printf '{"id": "%d", "context_file": "'"$source_dir"'/data/demo.jsonl", "queries": ["What is hidden?"]}\n' $(seq 60) >"$work/sixty.jsonl"
sixty=(--model "$model" --input "$work/sixty.jsonl" --block-size 512 --allow-long --max-new-tokens 4)
timeout $hung mpirun --oversubscribe -n 3 "$program" run "${sixty[@]}" --output "$work/sixty.out" >"$work/out" 2>"$work/log" &
job=$!
until [ -s "$work/sixty.out" ]; do sleep 0.02; kill -0 $job 2>/dev/null || break; done
kill -TERM "$(pgrep -P "$(pgrep -P $job)" | sed -n 3p)"
wait $job
code=$?
check "a signal to the last rank stops the batch between documents" [ $code -eq 75 ]
check "answers are kept" [ -s "$work/sixty.out" -a "$(wc -l <"$work/sixty.out")" -lt 60 ]

# --overwrite replaces what was made differently, and nothing else.
on 1 run "${base[@]}" --checkpoint-dir "$work/kept" --overwrite --output "$work/one.jsonl"
check "--overwrite keeps answers of the same settings" says "0 new answer(s), 7 already there"
on 1 run "${base[@]}" --overwrite --max-new-tokens 3 --output "$work/one.jsonl"
check "and replaces others" says "7 new answer(s), 0 already there"
on 2 run "${base[@]}" --overwrite --output "$work/in.jsonl"
check "the input is no output" [ $code -eq 2 -a "$(wc -l <"$work/in.jsonl")" -eq 3 ]
ln "$work/in.jsonl" "$work/link.jsonl"
on 1 run "${base[@]}" --overwrite --output "$work/link.jsonl"
check "nor by another name" [ $code -eq 2 -a "$(wc -l <"$work/link.jsonl")" -eq 3 ]

# Another model of the same shape.
cp -r "$model" "$work/other-model"
chmod -R u+w "$work/other-model"
weights=$(ls "$work"/other-model/*.safetensors | head -n 1)
printf 'XXXX' | dd of="$weights" bs=1 seek=$(($(stat -c %s "$weights") - 8)) conv=notrunc 2>/dev/null
on 1 run "${base[@]}" --output "$work/models.jsonl"
on 1 run --model "$work/other-model" --input "$work/in.jsonl" --block-size 512 --output "$work/models.jsonl"
check "answers of other weights are not mixed in" [ $code -eq 2 ]
check "which is said" says "was made with weights = "

on 2 run "${base[@]}" --trace /nowhere/trace --output "$work/traced.jsonl"
check "a trace that cannot be written is 73 before the work" [ $code -eq 73 -a ! -e "$work/traced.jsonl" ]

# The published tool's records: its markup is in them, and so may be keys that are ours.
echo '{"index": 4, "input_context": "The code is 7391.", "input_query": "What is the code?", "outputs": ["7391"], "pred": "old", "query_id": "old", "error": "old", "length": 12}' >"$work/published.jsonl"
on 1 run --model "$model" --input "$work/published.jsonl" --output-format star-attention --output "$work/published.out"
check "a published record is answered" [ $code -eq 0 -a "$(wc -l <"$work/published.out")" -eq 1 ]
check "our fields are ours" [ "$(grep -c '"old"' "$work/published.out")" -eq 0 ]
check "and theirs come back" grep -q '"length":12' "$work/published.out"
on 1 run --model "$model" --input "$work/published.jsonl" --output-format star-attention --output "$work/published.out"
check "its line is known again" says "0 new answer(s), 1 already there"
exit $failed
