#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a stop signal does to a run, whoever starts it and however early it comes.
# usage: signals_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

base=(run --model "$model" --input "$work/in.jsonl" --block-size 512 --threads 1)
for i in 1 2; do sed "s/\"id\": *\"/&$i-/" "$source_dir/data/demo.jsonl"; done >"$work/in.jsonl"
early() { # SIGNAL ARGUMENTS...: the signal waits when the program begins
  local signal=$1
  shift
  timeout 300 env --block-signal="$signal" sh -c 'kill -'"$signal"' $$; exec "$@"' sh "$program" "$@" >"$work/out" 2>"$work/log"
  code=$?
}
for signal in USR1 TERM INT; do
  early $signal "${base[@]}" --output "$work/early.jsonl"
  check "$signal before the first line ends with 75" [ $code -eq 75 ]
  check "and is said" says "stopped early"
done
early TERM plan --model "$model" --tokens 8k
check "a command without ranks ends by it" [ $code -eq 143 ]

timeout 900 mpirun --oversubscribe -n 2 "$program" "${base[@]}" --output "$work/whole.jsonl" >"$work/out" 2>"$work/log"
check "an undisturbed run ends with 0" [ $? -eq 0 ]

# Starts it with the launcher's words, sends the signal to the launcher once there is an answer, and finishes it.
stopped_by() { # SIGNAL NAME LAUNCHER...
  local signal=$1 name=$2
  shift 2
  "$@" --oversubscribe -n 2 "$program" "${base[@]}" --output "$work/$name.jsonl" --checkpoint-dir "$work/$name.kept" >"$work/out" 2>"$work/log" &
  local job=$!
  until [ -s "$work/$name.jsonl" ]; do sleep 0.05; kill -0 $job 2>/dev/null || break; done
  kill -$signal $job
  wait $job
  code=$?
  check "$signal to the launcher ends with 75 ($name)" [ $code -eq 75 ]
  check "before all is answered" [ "$(wc -l <"$work/$name.jsonl")" -lt "$(wc -l <"$work/whole.jsonl")" ]
  timeout 900 mpirun --oversubscribe -n 2 "$program" "${base[@]}" --output "$work/$name.jsonl" --checkpoint-dir "$work/$name.kept" >"$work/out" 2>"$work/log"
  check "and a rerun finishes" same "$work/$name.jsonl" "$work/whole.jsonl"
}
stopped_by USR1 mpirun mpirun
for signal in INT TERM USR1; do # INT is ignored in what a script starts beside itself
  stopped_by $signal until-$signal env --default-signal=INT "$source_dir/scripts/mpirun_until_asked.sh"
done
exit $failed
