#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# scaling_study.sh FOLDER OPTIONS...: a scaling study over numbers of nodes. Submits `starattn bench` with these options
# once for each number in NODES, and behind them all a job that gathers what they measured. They are no job array,
# because the jobs of an array all get the same number of nodes.
#   SBATCH_OPTIONS="--partition=gpu --ntasks-per-node=4 --gpus-per-node=4 --gpu-bind=none" NODES="1 2 4 8" \
#     slurm/scaling_study.sh study --shape 8b --tokens 128k --setting star:b=n/P
# FOLDER is one that all nodes see. It gets nodes-N.jsonl and nodes-N.log of each job, and scaling.html. A number of
# nodes that failed may be submitted again (slurm/scaling.sbatch); to gather once more:
#   starattn report FOLDER/nodes-*.jsonl --html FOLDER/scaling.html
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: scaling_study.sh FOLDER OPTIONS...}
mkdir -p "$folder"
FOLDER=$(cd "$folder" && pwd)
export FOLDER
read -ra options <<<"${SBATCH_OPTIONS:-}"
jobs=
for nodes in ${NODES:-1 2 4 8}; do
  job=$(sbatch --parsable "${options[@]}" --nodes="$nodes" --output="$FOLDER/nodes-$nodes.log" \
    "$here/scaling.sbatch" "${@:2}")
  echo "nodes $nodes: job ${job%%;*}"
  jobs+=:${job%%;*}
done
job=$(sbatch --parsable "${options[@]}" --nodes=1 --job-name=starattn-gather --dependency="afterany$jobs" \
  --output="$FOLDER/gather.log" --wrap 'starattn report "$FOLDER"/nodes-*.jsonl --html "$FOLDER/scaling.html"')
echo "gather: job ${job%%;*}, $FOLDER/scaling.html"
