#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to answers: installs what is missing, builds, and asks data/demo-model about the
# documents of data/demo.jsonl on 4 MPI ranks.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install_dependencies.sh
cmake --preset release -DSTARATTN_TESTS=OFF >/dev/null
cmake --build --preset release

source scripts/mpi_environment.sh
output=$(mktemp -d)/answers.jsonl
mpirun --oversubscribe -n 4 build/release/starattn run \
  --model data/demo-model --input data/demo.jsonl --output "$output"
echo
build/release/starattn inspect "$output" --input data/demo.jsonl
