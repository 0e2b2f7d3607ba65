#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` leaves, after its folder was moved: the program, its pages, and what finds them.
# usage: install_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"
build=$(dirname "$program")

cmake --install "$build" --prefix "$work/first" >"$work/log" 2>&1
code=$?
check "it installs" [ $code -eq 0 ]
mv "$work/first" "$work/moved"
share=$work/moved/share
program=$work/moved/bin/starattn
echo '{"context": "The key is under the stone.", "queries": ["Where is it?"]}' >"$work/in.jsonl"
on 2 run --model "$share/starattn/demo-model" --input "$work/in.jsonl" --output "$work/out.jsonl" --max-new-tokens 2
check "the program answers with the demo model from there" [ $code -eq 0 -a -s "$work/out.jsonl" ]

"$program" run --help >"$work/help"
for option in $(grep -o -- '^ *\(-[a-z],\)\?--[a-z-]*' "$work/help" | grep -o -- '--.*'); do
  escaped=${option//-/\\\\-}
  check "starattn-run.1 has $option" grep -q -- "$escaped\\\\fR" "$share/man/man1/starattn-run.1"
done
check "a page for every command" [ "$(ls "$share/man/man1" | wc -l)" -eq $((1 + $("$program" --help | sed '1,/^Subcommands/d' | grep -c '^  [a-z]'))) ]

completions_of() { # words... ; the last one is to be completed
  (
    source "$share/bash-completion/completions/starattn"
    COMP_WORDS=("$@")
    COMP_CWORD=$(($# - 1))
    _starattn
    echo "${COMPREPLY[*]}"
  )
}
check "completion of a command" [ "$(completions_of starattn che)" = checkpoints ]
check "completion of an option" [ "$(completions_of starattn run --attent)" = --attention ]
check "completion of its words" [ "$(completions_of starattn run --attention '')" = "star ring dense" ]
check "completion of a command's command" [ "$(completions_of starattn checkpoints pr)" = prune ]
check "a file is left to bash" [ "$(completions_of starattn run --model '')" = "" ]

mkdir "$work/other"
cat >"$work/other/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.25)
project(other LANGUAGES NONE)
find_package(starattn 0.1 REQUIRED)
get_target_property(program starattn::starattn LOCATION)
file(WRITE found.txt ${program})
END
(cd "$work/other" && cmake -S . -B build -DCMAKE_PREFIX_PATH="$work/moved") >"$work/log" 2>&1
check "another project finds the program" [ "$(cat "$work/other/found.txt")" -ef "$program" ]
exit $failed
