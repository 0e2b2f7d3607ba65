#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# eval as a user meets it: the same trials on any ranks, resumed after anything, compared, refused.
# usage: eval_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

length=512
count=4
settings=(--setting dense --setting star:b=n/4)
start() { # ranks, output, arguments...
  local ranks=$1 output=$2
  shift 2
  timeout $hung mpirun --oversubscribe -n "$ranks" "$program" eval --model "$source_dir/data/demo-model" \
    --length "$length" --count "$count" --output "$work/$output" "$@" \
    >"$work/out" 2>"$work/log"
}
evaluate() { start "$@"; code=$?; }
stable() { sed -E 's/"seconds":\{[^}]*\}//; s/,"digest":"[0-9a-f]*"\}$/}/' "$work/$1"; }
same() { [ -s "$work/$1" ] && [ "$(stable "$1")" = "$(stable "$2")" ]; }
refused() { # description, exit code, text, arguments...
  local what=$1 wanted=$2 text=$3
  shift 3
  evaluate 2 no.jsonl "$@"
  check "$what is $wanted" [ $code -eq "$wanted" ]
  check "$what is named" says "$text"
}

evaluate 1 one.jsonl --task qa1,vt "${settings[@]}" --html "$work/one.html" --progress-file "$work/progress" \
  --metrics-file "$work/one.prom" --profile --trace "$work/trace"
check "eval compares" [ $code -eq 0 ]
check "and keeps files of its progress" grep -q '^{"schema":"starattn-progress-1",.*"state":"finished",.*"documents":8,"answers":16,' "$work/progress"
check "for Prometheus, too" grep -qx 'starattn_answers_total 16' "$work/one.prom"
check "and says where its time went" says 'gate and up  *384 to 768'
check "and when" grep -q '"document":"[^"]*, star:b=n/4"' "$work/trace"
check "a line for each trial" [ "$(wc -l <"$work/one.jsonl")" -eq 16 ]
check "a line for each cell" [ "$(wc -l <"$work/one.jsonl.cells.jsonl")" -eq 4 ]
check "a table with losses" shows '^ star:b=n/4 +4 .*\(.*\)'
check "a page" grep -q "</html>" "$work/one.html"
check "the model finds people in its own prose" shows '^ dense +4 +(75|100).0'
cp "$work/out" "$work/table"
"$program" report "$work/one.jsonl" --html "$work/again.html" >"$work/out" 2>"$work/log"
check "report makes the table again" cmp "$work/table" "$work/out"
check "and the page, but for its head" diff <(sed '/<title>/d; /<h1>/d; /Made by/d' "$work/one.html") <(sed '/<title>/d; /<h1>/d; /Made by/d' "$work/again.html")
paired=$(sed -nE '/"task":"vt".*"setting":"star/s/.*"difference":\{"n":4,"mean":([^,]*),"low":([^,]*),"high":([^}]*)\}.*/\1 \2 \3/p' "$work/one.jsonl.cells.jsonl" |
  awk '{ text = sprintf("%+.1f (%.0f to %.0f)", 100 * $1, 100 * $2, 100 * $3); sub(/\.0 /, " ", text); gsub(/[()+]/, ".", text); print text }')
"$source_dir/scripts/accuracy_tables.py" "$work/one.jsonl" >"$work/out" 2>"$work/log"
check "the tables of docs/accuracy.md are the same figures" shows "^\| vt \| .*${paired:-nothing}"
"$source_dir/scripts/accuracy_tables.py" "$work/table" >"$work/out" 2>"$work/log"
check "and refuse what is no trial" says 'table:1: not a trial of eval'
sed '2s/"score":[0-9.]*/"score":0.125/' "$work/one.jsonl" >"$work/changed.jsonl"
"$program" report "$work/changed.jsonl" >"$work/out" 2>"$work/log"
check "a trial that was changed is noticed" [ $? -eq 65 ]
check "with its line" says 'changed.jsonl:2: the line was changed'
"$program" report "$work/nowhere.jsonl" >"$work/out" 2>"$work/log"
check "of no trials it is 66" [ $? -eq 66 ]
evaluate 3 three.jsonl --task qa1,vt "${settings[@]}"
check "3 ranks find the same" same one.jsonl three.jsonl
evaluate 3 groups.jsonl --task qa1,vt "${settings[@]}" --ranks-per-document 1
check "3 groups too, in the same order" same one.jsonl groups.jsonl
evaluate 4 pairs.jsonl --task qa1,vt "${settings[@]}" --ranks-per-document 2 --query-ranks all
check "and 2 groups of 2" same one.jsonl pairs.jsonl

head -n 5 "$work/one.jsonl" >"$work/part.jsonl"
printf '{"id": "torn' >>"$work/part.jsonl"
cp "$work/one.jsonl.settings.json" "$work/part.jsonl.settings.json"
evaluate 2 part.jsonl --task qa1,vt "${settings[@]}"
check "a rerun finishes a torn file" same one.jsonl part.jsonl
check "with what was missing" says "11 new trial(s)"
start 2 killed.jsonl --task qa1,vt "${settings[@]}" &
job=$!
until [ -s "$work/killed.jsonl" ]; do sleep 0.02; kill -0 $job 2>/dev/null || break; done
pkill -KILL -f "$work/killed.jsonl" 2>/dev/null
wait $job 2>/dev/null
check "a killed run leaves trials" [ "$(wc -l <"$work/killed.jsonl")" -gt 0 -a "$(wc -l <"$work/killed.jsonl")" -lt 16 ]
evaluate 2 killed.jsonl --task qa1,vt "${settings[@]}"
check "that the next one goes on from" same one.jsonl killed.jsonl
timeout $hung mpirun --oversubscribe -n 2 "$program" eval --model "$source_dir/data/demo-model" --task vt --length 512 \
  "${settings[@]}" --count 400 --output "$work/stopped.jsonl" >"$work/out" 2>"$work/log" &
job=$!
until [ -s "$work/stopped.jsonl" ]; do sleep 0.02; kill -0 $job 2>/dev/null || break; done
kill -USR1 "$(pgrep -P $job)"
wait $job
check "USR1 ends with 75" [ $? -eq 75 ]
check "and says that all is saved" says "every trial so far is saved"
check "whole documents only" [ $(($(wc -l <"$work/stopped.jsonl") % 2)) -eq 0 ]

cp "$work/one.jsonl" "$work/stored.jsonl"
evaluate 2 one.jsonl --task qa1,vt "${settings[@]}" --baseline "$work/stored.jsonl"
check "nothing is worse than itself" [ $code -eq 0 ]
check "and that is said" says "not worse than .* in 4 cell"
sed -E '/"setting":"dense"/d; s/"score":[0-9.]+/"score":1.0/; s/,"digest":"[0-9a-f]*"\}$/}/; s/"encode":[0-9.e-]+/"encode":0.5/' "$work/one.jsonl" >"$work/better.jsonl"
sed -E '/"setting":"star/d; s/"score":[0-9.]+/"score":1.0/; s/,"digest":"[0-9a-f]*"\}$/}/; s/"encode":[0-9.e-]+/"encode":500/' "$work/one.jsonl" >>"$work/better.jsonl"
evaluate 2 one.jsonl --task qa1,vt "${settings[@]}" --baseline "$work/better.jsonl"
check "a slower cell than the stored is 3" [ $code -eq 3 ]
check "and named" says "worse than .*: qa1, 512 tokens, star:b=n/4: .* stored 1000.00x"
refused "a baseline of something else" 65 "of the same tasks" --task niah_single_2 --setting dense --baseline "$work/one.jsonl"
rm -f "$work"/no.jsonl*
echo '{"id": 1}' >"$work/broken.jsonl"
refused "a broken baseline" 65 "broken.jsonl:1: " --task qa1 --setting dense --baseline "$work/broken.jsonl" \
  --progress-file "$work/failed"
check "which the progress file says, too" grep -q '"state":"failed","exit":65,' "$work/failed"

evaluate 2 limit.jsonl --task niah_multiquery --setting star:b=n/8 --find-limit 1
check "the length at which a score is too low is found" shows '^niah_multiquery, star:b=n/8: 100 % held at no length, not at 512$'
evaluate 1 one.jsonl --task qa1 "${settings[@]}" --seed 7
check "another seed in the same file is 2" [ $code -eq 2 ]
refused "no setting" 2 "setting: at least one of each" --task qa1
refused "a wrong setting" 2 "--setting 'star:b=m/4'" --task qa1 --setting star:b=m/4
refused "a setting twice" 2 "is there twice" --task qa1 --setting dense --setting dense
refused "in another spelling" 2 "is there twice" --task qa1 --setting star:r=1,b=1k --setting star:b=1024,r=1
refused "a page that cannot be written" 73 "/nowhere/page.html" --task qa1 --setting dense --html /nowhere/page.html
refused "an anchor over the block" 2 "--setting star:b=64,a=128, " --task qa1 --setting star:b=64,a=128
length=128k
refused "too long" 2 "65,536 positions), got 131,072" --task qa1 --setting dense
length=1k,2k
refused "limits of two lengths" 2 "expected one --length" --task qa1 --setting dense --find-limit 0.9
refused "a wrong task" 2 "--task: expected" --task qa9 --setting dense
exit $failed
