#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The command line as a user meets it: what is taken, what is refused and how, what is printed.
# usage: options_test.sh PROGRAM SOURCE_DIR
set -u
program=$1
source_dir=$2
source "$source_dir/scripts/mpi_environment.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model=$source_dir/data/demo-model
failed=0

check() { # description, command...
  local what=$1
  shift
  if "$@"; then echo "ok: $what"; else echo "FAILED: $what"; failed=1; fi
}
call() { # arguments... ; leaves code, $work/out and $work/log
  "$program" "$@" >"$work/out" 2>"$work/log"
  code=$?
}
says() { grep -q -- "$1" "$work/log"; }
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

exit $failed
