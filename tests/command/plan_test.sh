#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# plan with a machine file: times, goals, an input in place of a length; and the whole input in a dry run.
# usage: plan_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

machine=$source_dir/data/machines/h200.json
base=(plan --model "$model" --device cuda --machine "$machine" --allow-long)
plan() { # arguments... ; as `on`, without a launcher
  "$program" "${base[@]}" "$@" >"$work/out" 2>"$work/log"
  code=$?
}

plan --tokens 128k --ranks 4 --block-size 32k
check "a machine file gives times" shows '^ +phase 1 [0-9.]+ '
check "that are called modelled" shows 'modelled, not measured'
plan --tokens 1m --ranks 1024 --ranks-per-node 8 --block-size 1k --simulate --queries 1,32
check "a simulation has a slow rank" shows '^phase 1, one rank 1.5 x as slow'
check "and both merges" shows '^a step of 32 rows, tree'
plan --tokens 128k --ranks 2 --json --simulate
check "JSON has the seconds" shows '"modelled":\{"phase_1_seconds":[0-9.e-]+.*"simulated_seconds":'

"$program" plan --shape 30b-a3b --device cuda --tokens 64k --ranks 2 >"$work/out" 2>"$work/log"
check "shared weights of a mixture are planned" shows 'with weights shared out'

mxfp8=$source_dir/tests/golden/models/llmcompressor_mxfp8
for device in cpu cuda; do
  "$program" plan --model "$mxfp8" --device $device --tokens 64 --allow-long --json >"$work/$device" 2>"$work/log"
done
bytes_of() { grep -o '"weights":[0-9]*' "$work/$1" | head -1 | cut -d: -f2; }
check "a GPU widens FP8 whose scales change within 128 columns" [ "$(bytes_of cuda)" -gt "$(bytes_of cpu)" ]

call() { "$program" plan --shape 8b --device cuda --tokens 64k "$@" >"$work/out" 2>"$work/log"; }
call
check "weights in host memory are planned" shows 'with --weight-memory host, .* 13\.00 GiB of weights'
call --json
check "and what stays on the GPU: embedding, head, two layers" shows \
  '"memory_bytes_with_host_weights":\{[^}]*"weights":1923121664,'

plan --tokens 128k --recall auto --anchor-size auto
check "recall as it is recommended says what it kept" shows 'with 4 blocks none of 48 scores'
plan --tokens 128k --recall auto --anchor-size auto --block-size 8k
check "with more blocks, too" shows 'with 16 blocks 44 of 48 scores'
plan --tokens 128k --recall auto --anchor-size auto --block-size 4k
check "and where nobody knows" shows 'has not been measured with so many blocks'
plan --tokens 128k --recall auto --anchor-size 1k
check "another setting promises nothing" [ "$(grep -c 'recall as auto' "$work/out")" = 0 ]

plan --tokens 256k --ranks 8 --deadline 1h --setting star:b=n/4 --setting star:b=n/8
check "a goal is met" [ $code -eq 0 ]
check "by the setting that sees most" shows '^choice   star:b=n/4 on 1 rank'
check "which is ready to be submitted" shows '^submit   sbatch --nodes=1 --ntasks-per-node=1 --time=[0-9:]+ slurm/run.sbatch --block-size 65536'
plan --tokens 256k --ranks 8 --deadline 0.001s
check "or is not" [ $code -eq 69 ]
check "which is said" shows '^none meets the goal'
plan --tokens 256k --min-score 0.9
check "a score needs an evaluation" [ $code -eq 2 ]

score() { # setting, sample, score
  echo "{\"id\":\"vt-4096-$2\",\"setting\":\"$1\",\"task\":\"vt\",\"length\":4096,\"seed\":1,\"score\":$3,\"n_right\":5,\"n_context\":4096,\"n_new_tokens\":4,\"seconds\":{\"encode\":1,\"answer\":1,\"ranks\":1},\"answer\":\"x\"}"
}
for i in 1 2 3 4; do score dense $i 1; score star:b=n/4 $i 1; score star:b=n/16 $i 0.$((i > 2)); done >"$work/trials.jsonl"
plan --tokens 256k --ranks 4 --min-score 0.9 --scores "$work/trials.jsonl"
check "the fastest that keeps the score is chosen among what was evaluated" shows '^choice   star:b=n/4'
check "scores are shares of the exact one's" shows '^star:b=n/16 .* 5.0 %'

{
  echo '{"id": "a", "context": "The code is 7391.", "queries": ["What is the code?"]}'
  echo '{"id": "b", "context": "The code is 7392.", "queries": ["What?", "Why?"]}'
  echo '{"id": "c"}'
  echo '{"id": "a", "context": "again", "queries": ["What is the code?"]}'
} >"$work/in.jsonl"
plan --input "$work/in.jsonl"
check "an input is counted" shows '^input .*: 2 document\(s\) with 3 queries; .*; 2 cannot be answered'
check "its bad lines are named" says 'in.jsonl:3'
check "those that were there before, too" says "in.jsonl:4: document 'a', query '0' was there before, in line 1"
check "and make it 65" [ $code -eq 65 ]
plan --input "$work/in.jsonl" --json
check "JSON is all there is of an input" [ "$(wc -l <"$work/out")" -eq 1 ]
check "and counts it" shows '"input":\{"documents":2,"queries":3,.*"bad":2\}'
plan --tokens 128k --json --deadline 20s
check "JSON of a goal there is not" [ $code -eq 2 ]
plan --input "$work/in.jsonl" --tokens 1k
check "a length beside it is 2" [ $code -eq 2 ]
on 2 run --dry-run --model "$model" --input "$work/in.jsonl" --output "$work/dry"
check "a dry run reads the whole input" says '2 document(s) with 3 queries; .*; 2 cannot be answered'
check "and has its exit code" [ $code -eq 65 ]
check "auto blocks are said" says '(auto)'

echo '{"format": "starattn machine"}' >"$work/m.json"
"$program" plan --model "$model" --tokens 1k --machine "$work/m.json" >"$work/out" 2>"$work/log"
check "a bad machine file is 65" [ $? -eq 65 ]
check "by its key" says "m.json.*version"
"$program" plan --model "$model" --device cpu --tokens 64m --block-size 16 --ranks 1024 --allow-long >"$work/out" 2>"$work/log"
check "four million blocks on a thousand ranks are planned" shows '^ +... 4,?19[0-9,]* more|^ *4194303 '
old=$source_dir/data/machines/epyc-1-thread.json  # of version 1
for option in "--kv-dtype fp8" "--weights fp8" "--shape 30b-a3b"; do
  [[ $option == --shape* ]] && of= || of="--model $model"
  "$program" plan $of --machine "$old" --allow-long --tokens 8k $option >"$work/out" 2>"$work/log"
  check "a machine file without rates for $option is 69" [ $? -eq 69 ]
  check "which is said" says "the machine file has no rates"
done
"$program" plan --tokens 8k >"$work/out" 2>"$work/log"
check "a plan is of a model or of a shape" [ $? -eq 2 ]

# What finished runs took.
past() { # arguments... ; with the machine file of a CPU
  "$program" plan --machine "$old" --tokens 1k "$@" >"$work/out" 2>"$work/log"
  code=$?
}
on 1 bench --shape 10m --layers 2 --device cpu --threads 1 --tokens 512,1k --block-size 256 --new-tokens 2 --repeat 1 \
  --warm-up 0 --json "$work/study.jsonl"
past --shape 10m --layers 2 --history "$work/study.jsonl"
check "a study teaches" shows '^ +phase 1: took [0-9.]+ times as long as modelled \(.*, 4 measured\)'
check "both phases" shows '^ +phase 2: took [0-9.]+ times as long as modelled \(.*, 2 measured\)'
check "point by point" shows '^a step, star:b=256, 512 tokens, 1 rank, 1 query '
past --shape 10m --layers 2 --history "$work/study.jsonl" --json
scaled=$(grep -o '"phase_1_seconds":[0-9.e-]*' "$work/out")
ratio=$(grep -o '"history":{"phase_1":{"measured":4,"ratio":[0-9.e-]*' "$work/out")
past --shape 10m --layers 2 --json
check "and scales the times" awk -v scaled="${scaled##*:}" -v ratio="${ratio##*:}" \
  -v plain="$(grep -o '"phase_1_seconds":[0-9.e-]*' "$work/out" | sed 's/.*://')" \
  'BEGIN { exit !(plain > 0 && scaled / plain / ratio > 0.999 && scaled / plain / ratio < 1.001) }'
past --shape 10m --layers 3 --history "$work/study.jsonl"
check "one of another model is refused" [ $code -eq 65 ]
on 1 run --model "$model" --input "$source_dir/data/demo.jsonl" --block-size 512 --max-new-tokens 4 --output "$work/answers.jsonl" \
  --progress-file "$work/progress.json"
past --model "$model" --history "$work/answers.jsonl" --history "$work/progress.json" --block-size 512
check "answers and a progress file teach, too" [ $code -eq 0 ]
check "the former document by document" shows "^phase 1, 'numbers'"
check "the latter in the mean" shows '^phase 1, [0-9]+ documents, in the mean, '
past --model "$model" --history "$source_dir/data/demo.jsonl"
check "other lines are refused" [ $code -eq 65 ]
check "by file and key" says 'demo.jsonl:1'
exit $failed
