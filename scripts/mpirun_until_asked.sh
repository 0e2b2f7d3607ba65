#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# mpirun_until_asked.sh ARGUMENTS: mpirun ARGUMENTS, whose ranks are asked to stop early, with all they have saved, by a
# first SIGINT (Ctrl-C), SIGTERM, SIGHUP or SIGUSR1 to this script; a second ends them.
# mpirun itself kills its ranks within two seconds of SIGINT, SIGTERM or SIGHUP. SIGUSR1 it hands on to them.
set -u
asked=0
interrupted=0
ask() {
  interrupted=1
  if [ $asked -eq 0 ]; then
    asked=1
    kill -USR1 $job 2>/dev/null
    [ "$1" = USR1 ] || echo "asked to stop: what is at work is saved first; once more ends it at once" >&2
  elif [ "$1" != USR1 ]; then
    kill -TERM $job 2>/dev/null
  fi
}
setsid mpirun "$@" <&0 & # in a session of its own: a terminal's Ctrl-C reaches this script alone
job=$!
for signal in INT TERM HUP USR1; do trap "ask $signal" $signal; done
while :; do
  interrupted=0
  wait $job
  code=$?
  [ $interrupted -eq 1 ] || exit $code
done
