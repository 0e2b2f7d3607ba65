#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The program as a user meets it: answers on any number of ranks, reruns, bad input, exit codes.
# usage: cli_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

no_files() { [ -z "$(ls "$work"/"$1"* 2>/dev/null)" ]; }

head -n 3 "$source_dir/data/demo.jsonl" >"$work/in.jsonl"
base=(--model "$model" --input "$work/in.jsonl" --block-size 512 --logprobs 3)

on 1 run "${base[@]}" --output "$work/one.jsonl"
check "one rank answers" [ $code -eq 0 ]
check "seven answers" [ "$(wc -l <"$work/one.jsonl")" -eq 7 ]
check "they are right" grep -q '"score":1.0' "$work/one.jsonl"
check "no journal is left" [ ! -e "$work/one.jsonl.journal" ]
for ranks in 2 3 5; do
  on $ranks run "${base[@]}" --output "$work/n$ranks.jsonl"
  check "$ranks ranks give the same bits" same "$work/one.jsonl" "$work/n$ranks.jsonl"
done
on 4 run "${base[@]}" --ranks-per-document 1 --output "$work/groups.jsonl"
check "4 groups of one rank, input order" same "$work/one.jsonl" "$work/groups.jsonl"
on 3 run "${base[@]}" --ranks-per-document 2 --query-ranks all --merge tree --placement zigzag --output "$work/all.jsonl"
check "queries spread, tree merge, zigzag" same "$work/one.jsonl" "$work/all.jsonl"
on 3 run "${base[@]}" --shard-weights on --output "$work/shared.jsonl"
check "shared weights" same "$work/one.jsonl" "$work/shared.jsonl"
check "which is said" says "weights shared out over 3 ranks, exchanges through the host"
on 2 run "${base[@]}" --lookup 6 --output "$work/lookup.jsonl"
check "lookup changes no answer" same "$work/one.jsonl" "$work/lookup.jsonl"
check "and says what it gave" says "[1-9][.][0-9]* tokens a step with --lookup"
on 2 run "${base[@]}" --lookup auto --output "$work/auto.jsonl"
check "nor does it where it adapts" same "$work/one.jsonl" "$work/auto.jsonl"
on 2 run "${base[@]}" --shard-weights on --merge tree --output "$work/both.jsonl"
check "shared weights and a tree are refused" [ $code -eq 2 ]

head -n 4 "$work/one.jsonl" >"$work/part.jsonl"
printf '{"id": "torn' >>"$work/part.jsonl"
cp "$work/one.jsonl.settings.json" "$work/part.jsonl.settings.json"
on 2 run "${base[@]}" --output "$work/part.jsonl"
check "a rerun finishes a torn output" same "$work/one.jsonl" "$work/part.jsonl"
check "and skips what was there" says "3 new answer(s), 4 already there"
on 2 run "${base[@]}" --max-new-tokens 5 --output "$work/part.jsonl"
check "other settings are refused" [ $code -eq 2 ]
check "naming them" says "max_new_tokens = 128, now it is 5"

for attempt in 1 2 3 4 5; do # again where the kill came too late
  rm -f "$work"/kill.jsonl*
  on 2 run "${base[@]}" --output "$work/kill.jsonl" &
  job=$!
  until [ -s "$work/kill.jsonl" ]; do sleep 0.01; kill -0 $job 2>/dev/null || break; done
  pkill -KILL -f "$work/kill.jsonl" 2>/dev/null
  wait $job 2>/dev/null
  n=$(wc -l <"$work/kill.jsonl")
  [ "$n" -lt 7 ] && break
done
check "a kill leaves some of the answers: $n of 7" [ "$n" -gt 0 -a "$n" -lt 7 ]
on 2 run "${base[@]}" --output "$work/kill.jsonl"
check "a killed run is continued" same "$work/one.jsonl" "$work/kill.jsonl"
check "from the answers that it left" says "$((7 - n)) new answer(s), $n already there"

kept=("${base[@]}" --checkpoint-dir "$work/kept")
on 3 encode --model "$model" --input "$work/in.jsonl" --block-size 512 --checkpoint-dir "$work/kept"
check "encode saves blocks" [ $code -eq 0 -a "$(find "$work/kept" -name 'block-*.h5' | wc -l)" -ge 12 ]
on 2 answer "${kept[@]}" --output "$work/answer.jsonl"
check "answer gives the same bits on other ranks" same "$work/one.jsonl" "$work/answer.jsonl"
block=$(find "$work/kept" -name 'block-00001.h5' | head -n 1)
printf 'X' | dd of="$block" bs=1 seek=9000 conv=notrunc 2>/dev/null
on 2 run "${kept[@]}" --output "$work/damaged.jsonl"
check "a damaged block is named" says "$(basename "$(dirname "$block")")/block-00001.h5: damaged"
check "and encoded again" same "$work/one.jsonl" "$work/damaged.jsonl"
"$program" checkpoints list "$work/kept" >"$work/out"
check "checkpoints list shows three" [ "$(grep -c ' complete$' "$work/out")" -eq 3 ]
id=$(head -n 1 "$work/in.jsonl" | grep -o '"id": *"[^"]*"' | head -n 1 | cut -d '"' -f 4)
check "with the documents' ids" shows "^[0-9a-f]{12}  ${id:0:20} "
"$program" checkpoints list "$work/kept" --json >"$work/out"
check "and as JSON" [ "$(grep -o '"state":"complete"' "$work/out" | wc -l)" -eq 3 -a "$(wc -l <"$work/out")" -eq 1 ]
key=$(basename "$(dirname "$block")")
"$program" checkpoints export "$work/kept" "${key:0:8}" "$work/one.tar" >"$work/out" 2>"$work/log"
check "checkpoints export writes one file" [ $? -eq 0 -a -s "$work/one.tar" ]
"$program" checkpoints import "$work/elsewhere" "$work/one.tar" >"$work/out" 2>"$work/log"
check "which import takes" [ $? -eq 0 -a "$("$program" inspect "$work/elsewhere/$key" --verify | grep -c 'sound$')" -ge 4 ]
"$program" inspect "$work/kept/$key" >"$work/out"
check "inspect shows a checkpoint" shows "plan        block_size=512 anchor_size=512 reach=0"
check "and who made it" shows "command     .*starattn encode --model"
"$program" inspect "$work/kept/${key:0:10}" --verify >"$work/out"
check "inspect --verify finds it sound" [ $? -eq 0 -a "$(grep -c 'sound$' "$work/out")" -ge 4 ]
cp "$block" "$work/block"
printf 'X' | dd of="$block" bs=1 seek=9000 conv=notrunc 2>/dev/null
"$program" inspect "$work/kept/$key" --verify >"$work/out"
check "and a damaged block not" [ $? -eq 65 -a "$(grep -c 'damaged in piece 0' "$work/out")" -eq 1 ]
"$program" inspect "$work/kept/$key" --verify --json >"$work/out"
check "in JSON neither" [ $? -eq 65 -a "$(grep -Eo '"state":"[^"]*damaged in piece 0' "$work/out" | wc -l)" -eq 1 ]
cp "$work/block" "$block"
"$program" inspect "$work/kept/0123456789abcdef0123456789abcdef" 2>"$work/log"
check "an unknown key is 66" [ $? -eq 66 ]
"$program" checkpoints list "$work/nowhere" 2>"$work/log"
check "an unknown store too" [ $? -eq 66 ]
"$program" checkpoints prune "$work/kept" --older-than soon 2>"$work/log"
check "a wrong time is 2" [ $? -eq 2 ]
cp -r "$work/kept" "$work/prune"
rm "$work/prune/$key/block-00001.h5"
"$program" checkpoints prune "$work/prune" --incomplete --older-than 7d --keep-newest 1GiB --dry-run >"$work/out"
check "a dry prune names the incomplete one" shows "^would remove *${key:0:12} .*incomplete"
check "and removes nothing" [ "$(ls "$work/prune" | wc -l)" -eq 3 ]
"$program" checkpoints prune "$work/prune" --incomplete >"$work/out"
check "prune removes it" [ ! -e "$work/prune/$key" -a "$(ls "$work/prune" | wc -l)" -eq 2 ]
cp -r "$work/prune" "$work/stuck"
stuck=$(ls -d "$work"/stuck/* | head -n 1)
rm -f "$stuck/lock"
mkdir "$stuck/lock"
"$program" checkpoints prune "$work/stuck" --keep-newest 0 >"$work/out" 2>"$work/log"
check "a document that cannot be removed is 74" [ $? -eq 74 ]
check "named, with the reason" grep -q "$stuck/lock" "$work/log"
check "and alone left behind" [ "$(ls -d "$work"/stuck/*)" = "$stuck" ]
"$program" checkpoints prune "$work/prune" --keep-newest 0 >"$work/out"
check "and all the others" [ -z "$(ls "$work/prune")" ]

rm "$(dirname "$block")/manifest.json"
on 2 answer "${kept[@]}" --output "$work/missing.jsonl"
check "answer refuses what is not complete" [ $code -eq 65 ]
on 4 run "${kept[@]}" --output "$work/resumed.jsonl"
check "run encodes what is missing" same "$work/one.jsonl" "$work/resumed.jsonl"

# Without mpirun, which may add lines of its own.
"$program" run "${base[@]}" --log-format json --output "$work/json.jsonl" >"$work/out" 2>"$work/log"
check "a JSON log is JSON in every line" [ -s "$work/log" -a -z "$(grep -v '^{"time":[0-9.]*,"level":"[a-z]*","message":".*}$' "$work/log")" ]
on 2 run "${base[@]}" --trace "$work/trace" --profile --profile-file "$work/profile" --output "$work/traced.jsonl"
check "a run that says where its time goes gives the same bits" same "$work/one.jsonl" "$work/traced.jsonl"
check "its operations are in a table" says 'gate and up  *384 to 768'
check "and its messages" says 'anchor broadcast  *[0-9]* '
check "which is a file, too" grep -q '^{"schema":"starattn-profile-1","ranks":2,"device_times":false,' "$work/profile"
check "a trace is one JSON list of both ranks" [ "$(sed -n '1p;$p' "$work/trace" | tr '\n' ' ')" = "[ ] " -a \
  "$(tail -n 2 "$work/trace" | head -c -3 | tail -c 1)" = "}" -a "$(grep -c '"process_name"' "$work/trace")" -eq 2 ]
check "with operations and where they were" grep -q '"name":"gate and up","pid":1,"tid":12,.*"args":{"rank":1,"document":".*","block":[0-9]*,"layer":[0-9]*,"rows":' "$work/trace"
on 1 run "${base[@]}" --profile --output "$work/profiled.jsonl"
check "and on one rank" same "$work/one.jsonl" "$work/profiled.jsonl"
on 3 run "${base[@]}" --recall b/4 --output "$work/recall.jsonl"
on 2 run "${base[@]}" --recall b/4 --profile --trace "$work/trace" --output "$work/recalled.jsonl"
check "with recall, too" same "$work/recall.jsonl" "$work/recalled.jsonl"
check "whose messages are counted" says 'recall  *[1-9][0-9]* '

# Stop signals inside phase 1: 3 ranks, about 300 blocks, a signal once the first is saved.
cp "$source_dir/data/demo.jsonl" "$work/long.txt"
echo '{"id": "long", "context_file": "long.txt", "queries": ["What is hidden?"]}' >"$work/long.jsonl"
long=(run --model "$model" --input "$work/long.jsonl" --block-size 64 --allow-long --max-new-tokens 8)
n_blocks() { find "$work/$1" -name 'block-*.h5' 2>/dev/null | wc -l; }
n_begun() { find "$work/$1" -name 'block-*.h5' -printf '%h\n' 2>/dev/null | sort -u | wc -l; }  # documents
n_wanted=1
stop() { # signal, whom (all: mpirun passes it on; else a rank), name, options... ; leaves code
  local signal=$1 whom=$2 name=$3
  shift 3
  timeout $hung mpirun --oversubscribe -n 3 "$program" "${long[@]}" --checkpoint-dir "$work/$name" \
    --output "$work/$name.jsonl" "$@" >"$work/out" 2>"$work/log" &
  local job=$!
  until [ "$(n_begun "$name")" -ge $n_wanted ]; do sleep 0.02; kill -0 $job 2>/dev/null || break; done
  local mpirun
  mpirun=$(pgrep -P $job)
  if [ "$whom" = all ]; then
    kill "-$signal" $mpirun
  else
    kill "-$signal" "$(pgrep -P $mpirun | sed -n "$((whom + 1))p")"
  fi
  wait $job
  code=$?
}
stopped_well() { # name
  [ $code -eq 75 ] && [ ! -s "$work/$1.jsonl" ] && [ "$(n_blocks "$1")" -lt "$n_all" ] &&
    [ "$(grep -c 'run the same command again' "$work/log")" -eq 1 ] &&
    says "document 'long': $(n_blocks "$1") of $n_all blocks are saved in $work/$1;"
}
on 3 "${long[@]}" --checkpoint-dir "$work/unstopped" --output "$work/unstopped.jsonl"
n_all=$(n_blocks unstopped)
check "a long document is answered" [ $code -eq 0 -a "$n_all" -gt 100 ]
stop USR1 all usr1
check "USR1 stops inside phase 1, blocks saved" stopped_well usr1
saved=$(find "$work/usr1" -name 'block-*.h5' -printf '%p %T@\n' | sort)
on 2 "${long[@]}" --checkpoint-dir "$work/usr1" --output "$work/usr1.jsonl"
check "the same command goes on" [ $code -eq 0 -a "$(n_blocks usr1)" -eq "$n_all" ]
check "to the same bits" same "$work/unstopped.jsonl" "$work/usr1.jsonl"
check "without encoding again" [ -z "$(comm -23 <(echo "$saved") <(find "$work/usr1" -name 'block-*.h5' -printf '%p %T@\n' | sort))" ]
for rank in 0 2; do
  stop TERM $rank term$rank
  check "TERM to rank $rank alone ends all" [ $code -eq 75 -a ! -s "$work/term$rank.jsonl" ]
done
for rank in 0 2; do
  stop STOP $rank hung$rank --timeout 0.1
  check "a stopped rank $rank does not hang the others" [ $code -eq 69 ]
  check "someone says so" says "nothing has moved for 0.1 minute(s) (--timeout)"
done
# A document a group, each of some hundred blocks; which one is open, so answers may wait in the journal
# for their turn.
head -c 20000 "$work/long.txt" >"$work/first.txt"
tac "$work/first.txt" >"$work/other.txt"
rev "$work/first.txt" >"$work/third.txt"
for id in first other third; do
  echo "{\"id\": \"$id\", \"context_file\": \"$id.txt\", \"queries\": [\"What is hidden?\"]}"
done >"$work/three.jsonl"
long=(run --model "$model" --input "$work/three.jsonl" --block-size 64 --allow-long --max-new-tokens 8)
n_wanted=3
for name in group group2 group3; do # again where the signal came too late for its document
  stop USR1 1 $name --ranks-per-document 1
  n_answers=$(cat "$work/$name.jsonl" "$work/$name.jsonl.journal" 2>/dev/null | grep -c '"answer"')
  [ "$n_answers" -eq 3 ] || break
done
check "a stop of one group reaches the batch" [ $code -eq 75 ]
check "the others finish: 2 answers, got $n_answers" [ "$n_answers" -eq 2 ]
check "which says what is saved" says "document '[a-z]*': [0-9]* of [0-9]* blocks are saved"

# A stop signal inside phase 2: 600 queries, more than begin at once.
head -c 6000 "$work/long.txt" >"$work/many.txt"
questions=$(printf '"What is number %d?",' $(seq 600))
echo "{\"id\": \"many\", \"context_file\": \"many.txt\", \"queries\": [${questions%,}]}" >"$work/many.jsonl"
many=(run --model "$model" --input "$work/many.jsonl" --block-size 512 --max-new-tokens 16)
on 2 "${many[@]}" --output "$work/many.out"
check "600 queries are answered" [ $code -eq 0 -a "$(wc -l <"$work/many.out")" -eq 600 ]
many+=(--checkpoint-dir "$work/many" --output "$work/many2.out")
timeout $hung mpirun --oversubscribe -n 2 "$program" "${many[@]}" >"$work/out" 2>"$work/log" &
job=$!
until [ -s "$work/many2.out" ]; do sleep 0.02; kill -0 $job 2>/dev/null || break; done
kill -USR1 "$(pgrep -P $job)"
wait $job
code=$?
n=$(wc -l <"$work/many2.out")
check "USR1 stops inside phase 2" [ $code -eq 75 -a "$n" -gt 0 -a "$n" -lt 600 ]
check "and says what waits" says "every block is saved in $work/many, $((600 - n)) of 600 queries wait"
on 3 "${many[@]}"
check "the same command answers the rest" [ $code -eq 0 ]
check "to the same bits" same "$work/many.out" "$work/many2.out"

{ sed -n 1p "$work/in.jsonl"; echo '{"id": "x", "context": "a"'; echo '{"id": "y", "context": "", "queries": ["q"]}'; sed -n 2p "$work/in.jsonl"; } >"$work/bad.jsonl"
on 2 run --model "$model" --input "$work/bad.jsonl" --output "$work/bad.out"
check "bad lines end with 65" [ $code -eq 65 ]
check "each has an error line at its place" [ "$(grep -n '"error"' "$work/bad.out" | cut -d: -f1 | tr '\n' ' ')" = "4 5 " ]
check "the batch went on" [ "$(wc -l <"$work/bad.out")" -eq 8 ]
check "one message names the line" [ "$(grep -c 'bad.jsonl:2' "$work/log")" -eq 1 ]
on 2 run --model "$model" --input "$work/bad.jsonl" --output "$work/bad.out"
check "a rerun tries them again, in order" [ "$(grep -n '"error"' "$work/bad.out" | cut -d: -f1 | tr '\n' ' ')" = "4 5 " ]
on 2 run --strict --model "$model" --input "$work/bad.jsonl" --output "$work/strict.out"
check "--strict stops" [ $code -eq 65 -a "$(wc -l <"$work/strict.out")" -eq 4 ]

on 3 run --model "$work" --input "$work/in.jsonl" --output "$work/none.jsonl"
check "a missing model is 66" [ $code -eq 66 ]
check "from one rank" [ "$(grep -c 'config.json' "$work/log")" -eq 1 ]
check "and creates nothing" no_files none.jsonl
on 2 run --model "$model" --input "$work/missing" --output "$work/none.jsonl"
check "a missing input is 66" [ $code -eq 66 ]
on 2 run --model "$model" --input "$work/in.jsonl" --output /nowhere/out.jsonl
check "an output that cannot be created is 73" [ $code -eq 73 ]
on 2 run --model "$model" --input "$work/in.jsonl" --output "$work/o" --block-size 0
check "block size 0 is 2" [ $code -eq 2 ]
on 2 run --model "$model" --input "$work/in.jsonl" --output "$work/o" --block-size 64 --anchor-size 65
check "anchor over block is 2" [ $code -eq 2 ]
on 1 run --model "$model" --input "$work/in.jsonl" --output "$work/o" --reach many
check "a wrong number is 2" [ $code -eq 2 ]
on 1 run --model "$model" --input "$work/in.jsonl" --output "$work/o" --seed -1
check "a seed below 0 is 2" [ $code -eq 2 ]
on 2 run --dry-run --model "$model" --input "$work/in.jsonl" --output "$work/dry"
check "a dry run plans" says "memory of the fullest rank"
check "and writes nothing" no_files dry
"$program" --help >/dev/null && "$program" run --help | grep -q -- --block-size
check "help needs no launcher" [ $? -eq 0 ]
"$program" plan --model "$model" --tokens 32k --ranks 8 | grep -q "fullest rank"
check "plan needs no launcher" [ $? -eq 0 ]

# A sliding window that max_position_embeddings does not reach: not even --allow-long may.
windowed=$work/windowed
cp -r "$model" "$windowed"
sed -i 's/LlamaForCausalLM/MistralForCausalLM/; s/"llama"/"mistral"/
  s/"max_position_embeddings": 65536/"max_position_embeddings": 1024, "sliding_window": 1024/' "$windowed/config.json"
on 1 run --model "$windowed" --input "$work/in.jsonl" --block-size 512 --allow-long --output "$work/windowed.jsonl"
check "a document does not reach a sliding window" [ $code -eq 65 ]
check "and is told of it" grep -q "slides over 1,024 positions" "$work/windowed.jsonl"
"$program" plan --model "$windowed" --tokens 1k >/dev/null 2>"$work/log"
check "plan goes up to it" [ $? -eq 0 ]
"$program" plan --model "$windowed" --tokens 2k --allow-long >/dev/null 2>"$work/log"
check "and no further" [ $? -eq 65 ]
# One that they do reach is there in every layer, so blocks change nothing.
sed -i 's/"sliding_window": 1024/"sliding_window": 100/' "$windowed/config.json"
on 1 run --model "$windowed" --input "$work/in.jsonl" --allow-long --attention dense --output "$work/windowed_1.jsonl" --overwrite
check "a model with windows answers" [ $code -eq 0 ]
digest=$(grep -o "digest of the new [0-9a-f]*" "$work/log")
on 3 run --model "$windowed" --input "$work/in.jsonl" --allow-long --block-size 40 --output "$work/windowed_3.jsonl" --overwrite
check "and the same in blocks on three ranks" says "$digest"
on 1 run --model "$windowed" --input "$work/in.jsonl" --block-size 40 --anchor recompute --output "$work/o" --overwrite
check "anchors are not computed again for windows" [ $code -eq 2 ]
"$program" plan --model "$windowed" --tokens 1k | grep -q "in 8 of 8 layers a token sees the last 100 tokens"
check "plan says what a window shows" [ $? -eq 0 ]
olmo3=$(dirname "$0")/../golden/models/olmo3
"$program" plan --model "$olmo3" --tokens 1k --ranks 2 --shard-weights on >/dev/null 2>"$work/log"
check "weights are shared out in spite of norms over whole products" [ $? -eq 0 ]

on 1 doctor
check "doctor finds the machine fit" shows "^verdict *fit"
check "and names HDF5" shows "^HDF5 *[0-9]*\\.[0-9]*\\.[0-9]*$"
on 3 doctor --checkpoint-dir "$work/trial/deep"
check "doctor times what travels in phase 2" shows "^queries .* [0-9]+ us for 1 row, [0-9]+ us for 32"
check "doctor tries a checkpoint directory" shows "^checkpoints .*64.00 MiB saved.*3 rank\(s\) at [0-9]* MB/s"
check "and leaves nothing there" [ ! -e "$work/trial/deep" ]
on 2 doctor --checkpoint-dir /proc/nowhere
check "a directory that cannot be made is 73" [ $code -eq 73 ]
SLURM_STEP_NUM_TASKS=4 "$program" run --model "$model" --input "$work/in.jsonl" --output "$work/o" 2>"$work/log"
check "srun without PMI is refused" [ $? -eq 69 ]
env -u OMPI_COMM_WORLD_SIZE -u PMIX_RANK SLURM_NODELIST=n0 SLURM_JOBID=1 SLURM_STEPID=0 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 \
  "$program" run "${base[@]}" --output "$work/srun1.jsonl" 2>"$work/log"
check "but for a single task, which is a job of its own" same "$work/one.jsonl" "$work/srun1.jsonl"
exit $failed
