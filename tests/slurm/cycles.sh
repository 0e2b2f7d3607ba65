#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# cycles.sh PROGRAM SOURCE_DIR WORK [CYCLES]: disturbs one batch on a Slurm cluster over and over, until it is done: SIGUSR1
# (the script requeues), preemption by a job in partition `urgent`, `scontrol requeue`, a rank killed, a step killed. Then
# its answers must be those of a run that nobody disturbed. Not in CI: it needs two nodes, partitions `main` and `urgent`.
# WORK: a folder that all nodes see. JOB_SCRIPT: slurm/run.sbatch (as it is left out) or slurm/mpirun.sbatch.
set -u
program=$(realpath "$1") source_dir=$(realpath "$2") work=$(realpath "$3") n_cycles=${4:-20}
script=${JOB_SCRIPT:-$source_dir/slurm/run.sbatch}
source "$source_dir/scripts/mpi_environment.sh"
export PATH=$(dirname "$program"):$PATH
export MODEL=$source_dir/data/demo-model INPUT=$work/in.jsonl OUTPUT=$work/out.jsonl MAX_RESTARTS=100
python3 - "$source_dir/data/demo.jsonl" "$INPUT" <<'PY'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
with open(sys.argv[2], "w") as file:
    for i in range(12):
        for line in lines:
            file.write(json.dumps({**line, "id": f"{line['id']}-{i}", "context": f"Copy {i}.\n" + line["context"]}) + "\n")
PY
n_queries=$(python3 -c 'import json, sys; print(sum(len(json.loads(line)["queries"]) for line in open(sys.argv[1])))' "$INPUT")
submit() {
  sbatch --parsable --partition=main --nodes=2 --ntasks-per-node=2 --cpus-per-task=1 --output="$work/job.log" \
    "$script" --block-size 512 --checkpoint-dir "$work/kept"
}
state() { scontrol show job -o "$1" 2>/dev/null | grep -o 'JobState=[A-Z_]*' | cut -d= -f2; }
is_over() { case $(state "$1") in "" | PENDING | RUNNING | COMPLETING | CONFIGURING | SUSPENDED | REQUEUED) false ;; esac; }
n_answers() { cat "$OUTPUT" "$OUTPUT.journal" 2>/dev/null | wc -l; }
ranks() { pgrep -f "starattn run .*$OUTPUT" | while read -r pid; do [ "$(readlink "/proc/$pid/exe")" = "$program" ] && echo "$pid"; done; }

rm -rf "$OUTPUT"* "$work/kept" "$work/job.log"
job=$(submit)
declare -A done_of
cycle=0
while [ $cycle -lt "$n_cycles" ]; do
  before=$(n_answers)
  until [ "$(state "$job")" = RUNNING ] && [ "$(n_answers)" -gt "$before" ]; do # it has answered something
    if is_over "$job"; then # killed, or at its end
      [ "$(n_answers)" -ge "$n_queries" ] && break
      job=$(submit)
    fi
    sleep 0.1
  done
  [ "$(n_answers)" -ge "$n_queries" ] && { echo "the batch was done after $cycle cycle(s)"; break; }
  kinds=(USR1 preempt requeue kill-rank kill-step)
  kind=${kinds[$((cycle % ${#kinds[@]}))]}
  case $kind in
    USR1) [ "$(basename "$script")" = mpirun.sbatch ] && scancel --batch --signal=USR1 "$job" || scancel --signal=USR1 "$job" ;;
    preempt) srun --quiet --partition=urgent --nodes=2 --ntasks-per-node=1 --exclusive --mpi=none sleep 1 ;;
    requeue) scontrol requeue "$job" ;;
    kill-rank) ranks | shuf -n 1 --random-source=<(yes $cycle) | xargs -r kill -KILL ;;
    kill-step) scancel --signal=KILL "$job" ;;
  esac
  done_of[$kind]=$((${done_of[$kind]:-0} + 1))
  cycle=$((cycle + 1))
  echo "cycle $cycle: $kind after $(n_answers) answer(s)"
  # Until this run has ended; a requeued one waits for Slurm's AuthInfo=cred_expire, two minutes by default.
  until is_over "$job" || [ "$(state "$job")" = PENDING ]; do sleep 0.1; done
done
until is_over "$job"; do sleep 0.5; done
echo "disturbed $cycle time(s): $(for kind in "${!done_of[@]}"; do echo -n "$kind ${done_of[$kind]}, "; done)now to its end"
starattn=(mpirun --oversubscribe -n 2 "$program" run --model "$MODEL" --input "$INPUT" --block-size 512)
"${starattn[@]}" --output "$OUTPUT" --checkpoint-dir "$work/kept" 2>>"$work/job.log" || { echo "FAIL  the batch cannot be finished"; exit 1; }
"${starattn[@]}" --output "$work/undisturbed.jsonl" --overwrite 2>"$work/undisturbed.log" || exit 1
# Without the seconds, and the line's digest, which covers them.
stable() { sed -E 's/"seconds":\{[^}]*\},"ms_per_token":[-+.e0-9]*,?//; s/,?"digest":"[0-9a-f]*"\}$/}/' "$1"; }
if cmp <(stable "$OUTPUT") <(stable "$work/undisturbed.jsonl"); then
  echo "ok    $(wc -l <"$OUTPUT") answers, those of an undisturbed run, in its order"
else
  echo "FAIL  the answers differ"
  exit 1
fi
