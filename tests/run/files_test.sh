#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The files of a run: one purpose each, outputs that are none, lines that were changed, inputs of other
# formats, standard input and output.
# usage: files_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

call() { # arguments... ; leaves code, $work/out and $work/log
  timeout 300 "$program" "$@" >"$work/out" 2>"$work/log"
  code=$?
}
head -n 2 "$source_dir/data/demo.jsonl" >"$work/in.jsonl"
base=(--model "$model" --block-size 512 --max-new-tokens 3)
run=(run "${base[@]}" --input "$work/in.jsonl")

# One file, one purpose, whatever it is called.
cp "$work/in.jsonl" "$work/kept"
ln -s in.jsonl "$work/soft"
ln "$work/in.jsonl" "$work/hard"
printf 'chat = none\n' >"$work/job.toml"
cp "$work/job.toml" "$work/job.kept"
one_purpose() { # description, arguments...
  local what=$1
  shift
  call "$@"
  check "$what is refused" [ $code -eq 2 ]
  check "$what is named" says "are one file, and a file can serve one purpose only"
  check "$what leaves the input" cmp -s "$work/in.jsonl" "$work/kept"
  check "$what leaves the config" cmp -s "$work/job.toml" "$work/job.kept"
  check "$what makes no file" [ -z "$(ls "$work" | grep -E '^new|^out\.|tmp|journal|settings')" ]
}
one_purpose "the input as output" "${run[@]}" --overwrite --output "$work/in.jsonl"
one_purpose "by a symbolic link" "${run[@]}" --overwrite --output "$work/soft"
one_purpose "by a hard link" "${run[@]}" --overwrite --output "$work/hard"
one_purpose "the input as trace" "${run[@]}" --output "$work/new" --trace "$work/./hard"
one_purpose "the output as trace" "${run[@]}" --output "$work/new" --trace "$work/../$(basename "$work")/new"
one_purpose "the journal as trace" "${run[@]}" --output "$work/new" --trace "$work/new.journal"
one_purpose "the settings as trace" "${run[@]}" --output "$work/new" --trace "$work/new.settings.json"
one_purpose "the config file as output" "${run[@]}" --overwrite --config "$work/job.toml" --output "$work/job.toml"
one_purpose "the config file as trace" encode --model "$model" --input "$work/in.jsonl" --checkpoint-dir "$work/new-kept" \
  --config "$work/job.toml" --trace "$work/job.toml"
mkdir "$work/store" "$work/store/document"
echo '{}' >"$work/store/document/manifest.json"
for trace in store/document/manifest.json store/document/new; do
  call "${run[@]}" --output "$work/new" --checkpoint-dir "$work/store" --trace "$work/$trace"
  check "a trace among checkpoints is refused" [ $code -eq 2 ]
  check "and named" says 'lies in a folder of --checkpoint-dir'
done
check "and leaves them" [ "$(cat "$work/store/document/"*)" = '{}' ]
echo '{"context_file": "in.jsonl", "queries": ["What?"]}' >"$work/of_file.jsonl"
one_purpose "a context file as trace" run "${base[@]}" --input "$work/of_file.jsonl" --output "$work/new" --trace "$work/hard"
check "with its line" says 'the context_file of line 1'
echo '{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"context_file": "in.jsonl",
  "messages": [{"role": "user", "content": "What?"}]}}' | tr -d '\n' >"$work/of_request.jsonl"
for option in trace progress-file metrics-file; do
  one_purpose "a request's context file as --$option" run "${base[@]}" --input "$work/of_request.jsonl" --output "$work/new" \
    --$option "$work/hard"
done
one_purpose "a context file as output" run "${base[@]}" --input "$work/of_file.jsonl" --overwrite --output "$work/soft"
cp -r "$model" "$work/model"
one_purpose "the model as trace" run --model "$work/model" --input "$work/in.jsonl" --output "$work/new" \
  --trace "$work/model/config.json"
one_purpose "the page as cells" eval --model "$model" --task vt --length 1k --setting dense --output "$work/new" \
  --html "$work/new.cells.jsonl"
one_purpose "the baseline as output" eval --model "$model" --task vt --length 1k --setting dense --output "$work/new" \
  --baseline "$work/in.jsonl" --html "$work/soft"
one_purpose "scores over answers" eval --input "$work/job.toml" --answers "$work/in.jsonl" --output "$work/soft"
one_purpose "a page over trials" report "$work/in.jsonl" --html "$work/hard"
one_purpose "documents over their data" generate --model "$model" --task qa_1 --length 1k --data "$work/in.jsonl" \
  --overwrite --output "$work/in.jsonl"
on 2 "${run[@]}" --output "$work/new" --trace "$work/new"
check "under mpirun, too, and said once" [ $code -eq 2 -a "$(grep -c 'are one file' "$work/log")" -eq 1 ]

# Outputs that are no files.
mkfifo "$work/fifo"
mkdir "$work/folder"
no_place() { # path, arguments...
  local path=$1
  shift
  call "$@"
  check "$1 to $path is 73" [ $code -eq 73 ]
  check "$1 to $path is named" says "expected a file to create, replace or continue"
  check "$1 to $path leaves nothing beside it" [ -z "$(ls "$path".* 2>/dev/null)" ]
}
for path in "$work/fifo" "$work/folder" /dev/null /dev/full /dev/stdout; do
  no_place $path "${run[@]}" --output "$path"
done
for path in "$work/folder" /dev/stdout; do
  no_place $path "${run[@]}" --output "$work/new" --trace "$path"
  no_place $path generate --model "$model" --task vt --length 1k --count 1 --overwrite --output "$path"
  no_place $path eval --model "$model" --task vt --length 1k --setting dense --output "$work/new" --html "$path"
done
check "no output was begun for any" [ ! -e "$work/new" ]
check "/dev/null is a device still" [ -c /dev/null ]

call "${run[@]}" --output "$work/one.jsonl"
check "a batch is answered" [ $code -eq 0 ]
n=$(wc -l <"$work/one.jsonl")
check "without a lock file" [ ! -e "$work/one.jsonl.lock" ]
python3 - "$work/one.jsonl" <<'PYTHON' 2>"$work/log"
import json, re, sys
for line in open(sys.argv[1], "rb"):
    assert re.search(rb',"digest":"[0-9a-f]{16}"}\n$', line) and json.loads(line)["answer"] is not None
PYTHON
check "each line has its digest" [ $? -eq 0 ]

# Standard output and input.
cat "$work/in.jsonl" | timeout 300 "$program" run "${base[@]}" --input - --output - >"$work/streamed" 2>"$work/log"
check "--input - and --output - are the standard streams" [ $? -eq 0 ]
check "with the same answers" [ "$(stable "$work/streamed" | sort)" = "$(stable "$work/one.jsonl" | sort)" ]
check "which is said once" [ "$(grep -c 'answers go to standard output' "$work/log")" -eq 1 ]
check "and nothing else is made" [ ! -e ./- -a ! -e ./-.journal ]
timeout 300 mpirun --oversubscribe -n 2 "$program" run "${base[@]}" --ranks-per-document 1 --input - --output - \
  <"$work/in.jsonl" >"$work/streamed" 2>"$work/log"
check "under mpirun, too" [ "$(stable "$work/streamed" | sort)" = "$(stable "$work/one.jsonl" | sort)" ]
"$program" run "${base[@]}" --input "$work/in.jsonl" --output - >/dev/full 2>"$work/log"
check "no room on standard output is 74" [ $? -eq 74 ]
printf '{"id": "%s", "context_file": "%s", "queries": ["What?"]}\n' fifo fifo zero /dev/zero folder folder >"$work/no_files.jsonl"
call run "${base[@]}" --input "$work/no_files.jsonl" --output "$work/no_files.out"
check "a context file that is a pipe, a device or a folder is an error line" [ $code -eq 65 ]
check "each" [ "$(grep -c 'expected a file with a text, got a' "$work/no_files.out")" -eq 3 ]
call generate --model "$model" --task vt --length 1k --count 2 --output -
check "generate writes to standard output" [ $code -eq 0 -a "$(wc -l <"$work/out")" -eq 2 ]
call eval --model "$model" --task vt --length 1k --setting dense --output -
check "eval does not, and says why" [ $code -eq 2 ]
"$program" run "${base[@]}" --output "$work/late.jsonl" --input "$work/fifo" >"$work/out" 2>"$work/log" &
job=$!
for i in $(seq 300); do says "^[0-9:]* info: rank 0: " && break; sleep 0.1; done
sleep 1
kill -TERM $job
wait $job
check "SIGTERM is heard while a pipe gives nothing" [ $? -eq 75 ]
"$program" run "${base[@]}" --output "$work/late.jsonl" --input "$work/fifo" >"$work/out" 2>"$work/log" &
job=$!
cat "$work/in.jsonl" >"$work/fifo"
wait $job
check "a pipe is read" [ $? -eq 0 ]
check "to the same answers" same "$work/late.jsonl" "$work/one.jsonl"

# Lines that an earlier run left are checked.
cp "$work/one.jsonl" "$work/two.jsonl"
cp "$work/one.jsonl.settings.json" "$work/two.jsonl.settings.json"
two=("${run[@]}" --output "$work/two.jsonl")
call "${two[@]}"
check "sound lines are known" says "0 new answer(s), $n already there"
sed -i '2s/"answer":"/&x/' "$work/two.jsonl"
sed -i '1p' "$work/two.jsonl"
call "${two[@]}"
check "a changed and a doubled line are found" [ $code -eq 0 ]
check "the double by its line" says "two.jsonl:2: a second answer to document .* the first is in line 1"
check "the change by its line" says "two.jsonl:3: the line was changed since it was written"
check "and answered again" same "$work/two.jsonl" "$work/one.jsonl"
head -n 1 "$work/in.jsonl" >"$work/less.jsonl"
call run "${base[@]}" --input "$work/less.jsonl" --output "$work/two.jsonl"
check "an answer to what is not in the input is named" says "two.jsonl:[0-9]*: document .* is not in the input"
check "and left out" [ $code -eq 0 -a "$(wc -l <"$work/two.jsonl")" -lt "$n" ]
call "${two[@]}"
check "until it is asked again" says "0 new answer(s), $n already there"
check "in its place" same "$work/two.jsonl" "$work/one.jsonl"

# What a killed run left of its settings goes with the next one's.
printf '{"half' >"$work/fresh.jsonl.settings.json.tmp.starattn"
call "${run[@]}" --output "$work/fresh.jsonl"
check "no temporary file stays" [ $code -eq 0 -a -z "$(ls "$work" | grep tmp)" ]

# Other formats.
gzip -c "$work/in.jsonl" >"$work/in.jsonl.gz"
call run "${base[@]}" --input "$work/in.jsonl.gz" --output "$work/unpacked.jsonl"
check "gzip is read" [ $code -eq 0 ]
check "to the same answers" same "$work/unpacked.jsonl" "$work/one.jsonl"
other_format() { # name in the message, bytes
  printf "$2" >"$work/other"
  call run "${base[@]}" --input "$work/other" --output "$work/none.jsonl"
  check "$1 is 65" [ $code -eq 65 -a ! -e "$work/none.jsonl" ]
  check "$1 is named once" [ "$(grep -c "$1" "$work/log")" -eq 1 ]
}
other_format "UTF-16" '\xff\xfe{\0"\0'
other_format "zstd" '\x28\xb5\x2f\xfd....'
other_format "zip" 'PK\x03\x04....'
other_format "PDF" '%%PDF-1.7'
head -c 300 "$work/in.jsonl.gz" >"$work/cut.gz"
call run "${base[@]}" --input "$work/cut.gz" --output "$work/cut.jsonl"
check "gzip that was cut off is 65" [ $code -eq 65 ]
check "and named" says "cut.gz: the gzip data end too early"
printf '\xef\xbb\xbfThe magic number of the house is 42.' >"$work/marked.txt"
printf 'The magic number of the house is 42.' >"$work/plain.txt"
for text in marked plain; do
  printf '{"id": "a", "context_file": "%s.txt", "queries": ["What is the magic number of the house?"]}\n' $text \
    >"$work/$text.jsonl"
  call run "${base[@]}" --input "$work/$text.jsonl" --output "$work/$text.out"
done
check "a byte order mark of a context file is skipped" same "$work/marked.out" "$work/plain.out"
printf '{"id": "a", "context": "x", "queries": ["y"]}\n{"id": "b", "context": "x", "queries": ["y"]}\n{"id": "a", "context": "x", "queries": ["y"]}\n' >"$work/double.jsonl"
call run "${base[@]}" --input "$work/double.jsonl" --output "$work/double.out"
check "a repeated id says where it was first" says "double.jsonl:3: document 'a', query '0' was there before, in line 1"

# Found before the work.
call eval --model "$model" --task vt,niah_single_1 --length 64,1k --setting dense --output "$work/short.jsonl"
check "a length too short for a task is found first" [ $code -eq 2 -a ! -e "$work/short.jsonl" ]
check "and named" says "--length: expected at least .* got 64"
call "${run[@]}" --output "$work/threads.jsonl" --threads 1000
check "--threads above the cores are clamped" [ $code -eq 0 ]
check "which is said" says "^[0-9:]* warning: --threads 1000: a rank may use [0-9]* core(s) here, so it takes [0-9]* thread(s)"
# A run seen while it runs.
watched=(run --model "$model" --input "$work/in.jsonl" --output "$work/watched.jsonl" --threads 1 --block-size 1k)
on 2 "${watched[@]}" --progress-file "$work/progress.json" --metrics-file "$work/run.prom" --log-format json
check "a run keeps a file of its progress" grep -q '^{"schema":"starattn-progress-1",.*"state":"finished","exit":0,"phase":"done","share":1' "$work/progress.json"
check "and one for Prometheus" [ "$(grep -cE '^starattn_(running 0|exit_code 0|phase 3|ranks 2)$' "$work/run.prom")" -eq 4 ]
check "which has a type for every figure" [ "$(grep -c '^# TYPE' "$work/run.prom")" -eq "$(grep -vc '^#' "$work/run.prom")" ]
check "events have fields in JSON" says '"event":"answers","new":[1-9]'
on 1 "${watched[@]}" --progress-file "$work/watched.jsonl"
check "progress in the output's place is refused" [ $code -eq 2 ]
on 1 "${watched[@]}" --overwrite --metrics-file "$work/one.prom" --progress-file "$work/./one.prom"
check "and two in one file" [ $code -eq 2 ]
on 2 run --model "$model" --input "$work/no-such-input.jsonl" --output "$work/never.jsonl" --progress-file "$work/progress.json"
check "a run that fails says so there" grep -q '"state":"failed","exit":66' "$work/progress.json"

exit $failed
