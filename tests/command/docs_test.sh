#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The blocks of shell in docs/ and README.md behind a line <!-- run --> are run, page by page, as a reader would
# from the folder of the clone; and what the pages point to is there.
# usage: docs_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

mkdir "$work/bin"
ln -s "$(realpath "$program")" "$work/bin/starattn"
export PATH=$work/bin:$PATH
n_pages=0
for page in "$source_dir"/README.md "$source_dir"/docs/*.md; do
  name=$(basename "$page" .md)
  awk '/^<!-- run -->$/ { marked = 1; next }
       /^```/ { if (inside) { inside = 0 } else { inside = marked && $0 == "```sh" }; marked = 0; next }
       inside' "$page" >"$work/$name.sh"
  n_marked=$(grep -c '^<!-- run -->$' "$page")
  n_shell=$(grep -A 1 '^<!-- run -->$' "$page" | grep -c '^```sh$')
  check "$name.md: every mark stands before a block of sh" [ "$n_marked" -eq "$n_shell" ]
  while read -r target; do
    check "$name.md: $target is there" [ -e "$source_dir/docs/$target" -o -e "$source_dir/$target" ]
  done < <(grep -o '](\([A-Za-z0-9_./-]*\)[)#]' "$page" | tr -d '](#)' | sort -u)
  [ -s "$work/$name.sh" ] || continue
  n_pages=$((n_pages + 1))
  mkdir "$work/$name"
  ln -s "$(realpath "$source_dir")"/{data,scripts,slurm} "$work/$name"
  (cd "$work/$name" && timeout $hung bash -euo pipefail "$work/$name.sh") >"$work/out" 2>"$work/log"
  code=$?
  check "$name.md: its commands run" [ $code -eq 0 ]
done
check "pages with commands were found" [ $n_pages -ge 3 ]
exit $failed
