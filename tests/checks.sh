# SPDX-License-Identifier: Apache-2.0
# What the command tests have in common; sourced with PROGRAM SOURCE_DIR as arguments. A folder $work of
# their own, and checks that say what they found: `exit $failed` ends the test.
set -u
program=$1
source_dir=$2
source "$source_dir/scripts/mpi_environment.sh"
# mpirun waits up to two seconds after a rank that ends with an error, and a program without it starts a daemon.
export OMPI_MCA_odls_base_sigkill_timeout=0 OMPI_MCA_ess_singleton_isolated=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model=$source_dir/data/demo-model
failed=0

check() { # description, command...
  local what=$1
  shift
  if "$@"; then
    echo "ok: $what"
  else
    echo "FAILED: $what (last exit code ${code-none}; the log's end:)"
    tail -n 6 "$work/log" 2>/dev/null | sed 's/^/    /'
    failed=1
  fi
}
# Seconds after which a command counts as hung, however busy the machine is. No check is about time.
hung=1800
on() { # ranks, arguments... ; leaves code, $work/out and $work/log
  local ranks=$1
  shift
  timeout $hung mpirun --oversubscribe -n "$ranks" "$program" "$@" >"$work/out" 2>"$work/log"
  code=$?
}
says() { grep -q -- "$1" "$work/log"; }
shows() { grep -Eq -- "$1" "$work/out"; }
# What must not depend on ranks: everything but the seconds, and the line's digest, which covers them.
stable() { sed -E 's/"seconds":\{[^}]*\},"ms_per_token":[-+.e0-9]*,?//; s/,?"digest":"[0-9a-f]*"\}$/}/' "$1"; }
same() { [ -s "$1" ] && [ "$(stable "$1")" = "$(stable "$2")" ]; }
