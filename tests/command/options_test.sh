#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The command line as a user meets it: what is taken, what is refused and how, what is printed.
# usage: options_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

call() { # arguments... ; leaves code, $work/out and $work/log
  "$program" "$@" >"$work/out" 2>"$work/log"
  code=$?
}
shows() { grep -q -- "$1" "$work/out"; }
refused() { # description, exit code, text, arguments...
  local what=$1 wanted=$2 text=$3
  shift 3
  call "$@"
  check "$what is $wanted" [ $code -eq "$wanted" ]
  check "$what is named" says "$text"
}
plan=(plan --model "$model")

for command in plan inspect checkpoints generate run; do
  call $command --help
  check "$command --help names --log-format" shows "--log-format text|json"
done
refused "an error of plan in JSON" 2 '^{"time":.*"message":"--tokens: .*"}$' "${plan[@]}" --tokens many --log-format json
refused "of inspect" 66 '^{"time":.*"message":".*"}$' inspect /nowhere --log-format json
refused "of checkpoints" 66 '^{"time":.*"message":".*"}$' checkpoints list /nowhere --log-format json

printf '# a job\nmodel = "%s"\nblock-size = 1k\ntokens = 8k\nlog-format = json\n' "$model" >"$work/plan.toml"
call plan --config "$work/plan.toml"
check "--config gives a command its options" [ $code -eq 0 ]
check "with their values" shows " 8 block(s) of 1,024 tokens"
call plan --config "$work/plan.toml" --block-size 2k
check "the command line wins over the file" shows " 4 block(s) of 2,048 tokens"
refused "log-format in it" 2 '^{"time":' plan --config "$work/plan.toml" --tokens many
refused "a missing file" 66 "--config: $work/nowhere" plan --config "$work/nowhere"
refused "a folder" 66 "--config: $work was not readable" plan --config "$work"
configured() { # description, exit code, text, the file's text, arguments...
  local what=$1 wanted=$2 text=$3
  printf '%b\n' "$4" >"$work/config.toml"
  shift 4
  refused "$what" "$wanted" "$text" "$@" --config "$work/config.toml"
}
configured "an unknown key" 2 "config.toml:1: blocksize: is no option of 'starattn plan'" 'blocksize = 4' "${plan[@]}"
configured "a section" 2 "config.toml:1: sections such as '.run.' are not known" '[run]\nreach = 1' "${plan[@]}"
configured "a key twice" 2 "config.toml:3: reach: is there twice, first in line 1" 'reach = 1\nranks = 2\nreach = 2' "${plan[@]}"
configured "a bad value" 2 "--ranks: " 'ranks = many' "${plan[@]}"
configured "a key of a command's command" 66 "/nowhere" 'incomplete = true' checkpoints prune /nowhere
configured "one of another's" 2 "is no option of 'starattn checkpoints list'" 'incomplete = true' checkpoints list /nowhere
for command in run encode answer bench doctor eval inspect generate; do
  configured "$command reads a file: an unknown key" 2 "is no option of 'starattn $command'" 'no-option = 1' $command
done
head -n 1 "$source_dir/data/demo.jsonl" >"$work/in.jsonl"
printf 'model = "%s"\ninput = "%s"\nstop = ["q", "a, b", "[INST]", "x # y"]\noverwrite = true\n' "$model" "$work/in.jsonl" >"$work/run.toml"
timeout $hung mpirun --oversubscribe -n 2 "$program" run --config "$work/run.toml" --output "$work/run.jsonl" 2>"$work/log"
check "run takes what it requires from a file" [ $? -eq 0 ]
check "and lists" [ "$(tr -d ' \n' <"$work/run.jsonl.settings.json" | grep -c '"stop":\["q","a,b","\[INST\]","x#y"\]')" -eq 1 ]
configured "a line without =" 2 "config.toml:2: expected key = value, such as block-size = 4096, got 'allow-long'" 'reach = 1\nallow-long' "${plan[@]}"
configured "an open quote" 2 "config.toml:1: the quote \" is not closed" 'tokens = "8k' "${plan[@]}"
configured "an empty path" 2 "--model: expected a path" 'model = ""\ntokens = 8k' plan
configured "words with commas" 2 "config.toml:1: block-size: text with commas goes in double quotes" 'block-size = 1k,2k' "${plan[@]}"
printf '\xef\xbb\xbfmodel = "%s"\ntokens = 010k\nranks = 010\n' "$model" >"$work/marked.toml"
call plan --config "$work/marked.toml"
check "a byte order mark is skipped, and 010 is 10" [ $code -eq 0 ]
check "in a number, too" shows "10,240 tokens in .* on 10 rank(s)"
call plan --model "$model" --tokens 8k --ranks 010
check "010 is 10 on the command line" shows "on 10 rank(s)"
refused "0x10" 2 "^--ranks: .*expected a whole number, got '0x10'" "${plan[@]}" --tokens 8k --ranks 0x10
printf 'model = "\xe9"\n' >"$work/latin.toml"
refused "a file that is not UTF-8" 65 "not UTF-8 at byte 9" plan --config "$work/latin.toml"
printf '\xff\xfem\0' >"$work/wide.toml"
refused "a file in UTF-16" 65 "UTF-16 text" plan --config "$work/wide.toml"
refused "an option that is not UTF-8" 2 "^--stop: expected text in UTF-8, byte 1 is none" run --model "$model" \
  --input "$work/in.jsonl" --output "$work/no.jsonl" --stop "$(printf 'a\377')"
refused "an empty output" 2 "^--output: expected a path" run --model "$model" --input "$work/in.jsonl" --output ""
refused "an empty --config" 2 "^--config: expected a path" plan --config ""
for option in schema progress-file metrics-file profile-file trace; do
  refused "an empty --$option" 2 "^--$option: expected a path" run --model "$model" --input "$work/in.jsonl" --output "$work/o" --$option ""
done
for option in json csv check calibrate; do
  refused "an empty --$option of bench" 2 "^--$option: expected a path" bench --shape 10m --$option ""
done
refused "an empty --machine" 2 "^--machine: expected a path" plan --model "$model" --tokens 8k --machine ""
refused "an empty --regex" 2 "^--regex: expected a text" run --model "$model" --input "$work/in.jsonl" --output "$work/o" --regex ""

files=(--model "$model" --input "$work/in.jsonl" --output "$work/no.jsonl")
for option in --timeout --temperature --top-p; do
  refused "$option nan" 2 "^$option: .*got 'nan'" run "${files[@]}" $option nan
done
for option in --timeout --until --find-limit; do
  refused "eval $option nan" 2 "^$option: .*got 'nan'" eval "${files[@]}" $option nan
done
refused "--gflops -nan" 2 "^--gflops: expected 0.001 to .*got '-nan'" "${plan[@]}" --tokens 8k --gflops -nan
refused "--top-p 1.1" 2 "^--top-p: expected 0 to 1, got '1.1'" run "${files[@]}" --top-p 1.1
refused "--temperature warm" 2 "^--temperature: .*got 'warm'" run "${files[@]}" --temperature warm

refused "a reach below 0" 2 "--reach: expected a number of blocks .*, or all, got '-1'" "${plan[@]}" --tokens 8k --reach -1
refused "a reach in tokens" 2 "--reach: expected a number of blocks .*, or all, got '4k'" "${plan[@]}" --tokens 8k --reach 4k

echo '{"id": "marked", "context": "one <|end|> two", "queries": ["What?"]}' >"$work/marked.jsonl"
marked=(--model "$model" --input "$work/marked.jsonl" --checkpoint-dir "$work/kept" --special-tokens parse --chat none)
call encode "${marked[@]}"
check "encode takes what changes the tokens" [ $code -eq 0 ]
call answer "${marked[@]}" --output "$work/marked.out"
check "and answer finds them" [ $code -eq 0 ]
call answer "${marked[@]/parse/text}" --output "$work/other.out"
check "but not as other tokens" [ $code -ne 0 ]
for command in run encode answer eval; do
  call $command --help
  check "$command has --chat and --special-tokens" [ "$(grep -cE '^ *--(chat|special-tokens) ' "$work/out")" -eq 2 ]
done

without() { # command, options it must not take, for they would do nothing
  local command=$1
  shift
  call "$command" --help
  for option in "$@"; do check "$command has no $option" [ "$(grep -c -- "^ *$option " "$work/out")" -eq 0 ]; done
}
without encode --query-ranks --merge --shard-weights --transport --lookup
without answer --anchor
without bench --anchor --allow-long --profile-file
without doctor --kv-memory --weight-memory --query-ranks --merge --shard-weights --transport --lookup --ranks-per-document --trace
refused "a placement of eval's settings" 2 "^--placement: goes with --audit" eval --model "$model" --output "$work/no.jsonl" \
  --task vt --length 1k --setting dense --placement zigzag

has_escapes() { LC_ALL=C grep -q "$(printf '[\001-\010\013-\037\177]')" "$1"; }
printf '{"id": "\\u001b[2J", "query_id": "\\u0007", "answer": "a\\u001b]0;x", "tokens": []}\n{"id": "b", "error": "\\u001b[1m"}\n' >"$work/answers"
call inspect "$work/answers"
check "inspect shows answers" [ $code -eq 0 ]
check "but no control characters of theirs" [ "$(has_escapes "$work/out"; echo $?)" -eq 1 ]
check "which are written out" shows '^\\x1b\[2J / \\x07$'
call inspect "$work/answers" --json
check "or only counts" shows '^{"schema":"starattn-answers-1","answers":1,"error_lines":1,"scored":0,"mean_score":null}$'
refused "a file name with an escape" 66 'nowhere\\x1b\[2J' inspect "$(printf 'nowhere\033[2J')"
check "reaches no terminal" [ "$(has_escapes "$work/log"; echo $?)" -eq 1 ]
printf '{"id": "\\u001b[2J", "context": "One. Two.", "queries": ["What?"]}\n' >"$work/escape.jsonl"
call run --model "$model" --input "$work/escape.jsonl" --output "$work/escape.out"
check "an id is in the log" says "document '.x1b\[2J'"
check "written out" [ $code -eq 0 -a "$(has_escapes "$work/log"; echo $?)" -eq 1 ]

full() { # description, arguments... ; standard output goes where nothing fits
  local what=$1
  shift
  "$program" "$@" >/dev/full 2>"$work/log"
  code=$?
  check "$what without room for its result is 74" [ $code -eq 74 ]
  check "and says so" says "standard output: the result could not be written: No space left on device"
}
full plan "${plan[@]}" --tokens 8k
full "a long plan" "${plan[@]}" --tokens 64k --block-size 512 --ranks 64
full inspect inspect "$model"
call inspect "$model" --json
check "inspect shows a model as JSON" shows '^{"schema":"starattn-model-1".*"weight_bytes":[1-9]'
on 2 doctor --device cpu --json
check "and doctor what it found" shows '^{"schema":"starattn-doctor-1".*"ranks":.{.*},{.*"verdict":"fit"}$'
full checkpoints checkpoints list "$work/kept"
full help --help
full doctor doctor
"$program" "${plan[@]}" --tokens 8k >&- 2>"$work/log"
check "a closed standard output is 74 too" [ $? -eq 74 ]
"$program" generate --model "$model" --task vt --length 1k --count 1 --output "$work/made.jsonl" >/dev/full 2>"$work/log"
check "a result that is a file needs none" [ $? -eq 0 ]

bench=(bench --shape 10m --layers 1 --device cpu --new-tokens 1 --repeat 1 --warm-up 0)
call "${bench[@]}" --tokens 256,512 --setting star:b=n/2 --setting ring --json "$work/one.jsonl" --csv "$work/one.csv"
rows() { grep -v '^#' "$work/out" | awk '{ print $2, $3, $4, $5, $NF }' | tr '\n' ';'; }
check "bench takes several contexts and settings" [ $code -eq 0 -a "$(rows)" = \
  "256 star:b=n/2 once phase-1 0;256 star:b=n/2 once step 0;256 star:b=n/2 again phase-1 0;512 star:b=n/2 once phase-1 0;512 star:b=n/2 once step 0;512 star:b=n/2 again phase-1 0;256 ring - phase-1 0;256 ring - step 0;512 ring - phase-1 0;512 ring - step 0;" ]
check "and sums up" shows '^# SUMMARY points 6$'
check "its JSON has a head and a line a repeat" [ "$(wc -l <"$work/one.jsonl")" -eq 11 -a "$(head -c 29 "$work/one.jsonl")" = '{"schema":"starattn-bench-1",' ]
check "its CSV a line a repeat, too" [ "$(grep -c '^starattn-bench-1,1,' "$work/one.csv")" -eq 10 ]
on 2 "${bench[@]}" --tokens 512 --attention star --block-size 256 --no-recompute --queries 1,2 --check "$work/one.jsonl"
check "results on two ranks have the bits of one" [ $code -eq 0 -a "$(rows)" = \
  "512 star:b=256 once phase-1 0;512 star:b=256 once step 0;512 star:b=256 once step -;" ]
on 2 "${bench[@]}" --tokens 512 --setting star:b=n/4,a=32,c=64 --setting star:b=n/4,a=b/2,r=1 --setting ring --check-alone
check "or of one that computes alone" [ $code -eq 0 -a "$(grep -v '^#' "$work/out" | awk '{ print $NF }' | tr -d '\n')" = 000000 ]
check "which is said" shows 'bits differ from those of one rank alone'
refused "one rank beside a file" 2 "excludes" "${bench[@]}" --tokens 512 --check-alone --check "$work/one.jsonl"
call "${bench[@]}" --tokens 512 --setting ring --check "$work/one.jsonl" --profile --trace "$work/trace" --json "$work/profiled.jsonl"
check "a profile of bench changes no bit" [ $code -eq 0 -a "$(rows)" = "512 ring - phase-1 0;512 ring - step 0;" ]
check "and stands behind the rows" shows '^# gate and up  *384 to 1024 '
check "and in the JSON" [ "$(grep -c '"profile":{"schema":"starattn-profile-1","ranks":1,' "$work/profiled.jsonl")" -eq 2 ]
check "and a trace is there" grep -q '"name":"step"' "$work/trace"
on 2 "${bench[@]}" --tokens 512 --setting star:b=n/2 --no-recompute --json "$work/two.jsonl"
call report "$work/one.jsonl" "$work/two.jsonl"
check "report compares the bits of several numbers of ranks" shows '^2 repeat(s) were compared with those of other numbers of ranks$'
sed 's/"digest":"[0-9a-f]*"/"digest":"0"/' "$work/two.jsonl" >"$work/bent.jsonl"
call report "$work/one.jsonl" "$work/bent.jsonl"
check "and says where they differ" says 'star:b=n/2, 512 tokens, phase-1: the result of 2 rank(s) has other bits than that of 1'
sed 's/"digest":"[0-9a-f]*"/"digest":"0"/' "$work/one.jsonl" >"$work/wrong.jsonl"
refused "other bits" 65 "2 result(s) have other bits" "${bench[@]}" --tokens 512 --block-size 256 --no-recompute --check "$work/wrong.jsonl"
refused "bits of another model" 2 "--check .*its key 'model' is" bench --shape 10m --layers 2 --device cpu --tokens 512 --check "$work/one.jsonl"
call report "$work/one.jsonl" --svg "$work/one.svg" --html "$work/one.html"
check "report draws a study" grep -q "^<svg .*</svg>$" <(tr '\n' ' ' <"$work/one.svg" | sed 's/ $//')
check "and makes a page of it" grep -q "<h2>Where the time goes</h2>" "$work/one.html"
printf '{"schema":"starattn-plan-1"}\n' >"$work/other.jsonl"
refused "another schema" 65 "expected a study of schema 'starattn-bench-1'" report "$work/other.jsonl"
sed 's/"model":"[^"]*"/"model":"another"/' "$work/one.jsonl" >"$work/two.jsonl"
refused "studies of two models" 65 "report them apart" report "$work/one.jsonl" "$work/two.jsonl"
refused "one study twice" 2 "are one file" report "$work/one.jsonl" "$work/one.jsonl"
refused "a study on standard output" 2 "expected a file" "${bench[@]}" --tokens 256 --json -
refused "report's own input for its page" 2 "are one file" report "$work/one.jsonl" --html "$work/one.jsonl"
refused "one file for two purposes" 2 "are one file" "${bench[@]}" --tokens 512 --json "$work/one.jsonl" --check "$work/one.jsonl"
call bench --model "$model" --device cpu --new-tokens 1 --repeat 1 --warm-up 0 --tokens-a-rank 256
check "bench takes a model folder, and tokens a rank" [ $code -eq 0 -a "$(rows)" = \
  "256 star - phase-1 0;256 star - step 0;" ]
refused "a setting beside a plan option" 2 "--setting excludes --reach" "${bench[@]}" --setting ring --reach 1
refused "a setting that is none" 2 "--setting 'rings'" "${bench[@]}" --setting rings

call "${plan[@]}" --tokens 8k --read-rate 10
check "plan says what a step of phase 2 reads" shows "^phase 2  a step reads .* of weights on the query rank, .* of keys and values"
check "and how long that takes at least" shows "^ *at least [0-9.]* ms at 10 GB/s a rank"
call "${plan[@]}" --tokens 8k --ranks 2 --gflops 10 --json
check "plan answers in one line of JSON" [ $code -eq 0 -a "$(grep -c '^{"schema":"starattn-plan-1","tokens":8192,"ranks":2,.*"phase_1_least_seconds":.*}$' "$work/out")" -eq 1 ]
call "${plan[@]}" --tokens 8k --device cuda
check "plan says where KV goes" shows "with --kv-memory host, or auto where the GPU has less: .* in host memory"

call "${plan[@]}" --tokens 8k --device cuda --weights fp8 --kv-dtype fp8 --json
check "plan counts FP8 keys and values" shows '"kv_dtype":"f8"'
check "with their scales: 144 bytes for 2 heads of 64" shows "\"own_kv\":$((8192 * 8 * 2 * 144))"
printf '{"id": "a", "context": "The code of the door is 7391.", "queries": [{"id": "q", "text": "What is it?"}]}\n' >"$work/door.jsonl"
for how in "" "--kv-dtype fp8" "--weights fp8" "--weights fp8 --kv-dtype fp8" "--weights fp8 --activations fp8"; do
  for again in encode answer; do
    output=$([ $again = answer ] && echo "--output $work/door.answers --overwrite")
    call $again --model "$model" --input "$work/door.jsonl" --checkpoint-dir "$work/documents" --block-size 8 --device cpu $how $output
    check "$again $how" [ $code -eq 0 ]
  done
done
check "each way has documents of its own" [ "$(ls -d "$work"/documents/*/ | wc -l)" -eq 5 ]
check "the banner says what is FP8" says "parameters in FP8 (and activations of phase 1)"
refused "FP8 activations of wider weights" 2 "add --weights fp8" encode --model "$model" --input "$work/door.jsonl" --checkpoint-dir "$work/documents" --activations fp8
refused "the same planned" 2 "add --weights fp8" "${plan[@]}" --tokens 8k --activations fp8
call inspect "$(grep -l '"kv_dtype": "f8"' "$work"/documents/*/manifest.json | head -n 1 | xargs dirname)" --verify
check "inspect verifies FP8" [ $code -eq 0 ]
check "and says what it is" shows "KV .* f8, 8 layers, 2 heads of 64"
exit $failed
