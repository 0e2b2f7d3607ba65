#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Does the fault suite find bugs? Builds the program once with each of the seeded bugs (seeded/*.patch: a
# missing fsync, a swapped rename, an unchecked error ...) in a copy of the tree, and runs the suite until
# it fails. Exit code 1 when fewer than all but one are caught.
# usage: seeded.sh FOLDER [PATCH...]     the folder is for the copy, its build and the logs; with
# FAULTS_FOLDER the runs work there (memory is fastest)
set -euo pipefail
source_dir=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mkdir -p "$1" && cd "$1" && pwd)
patches=("${@:2}")
[ ${#patches[@]} -gt 0 ] || patches=("$source_dir"/tests/faults/seeded/*.patch)
rm -rf "$folder/tree"
mkdir "$folder/tree"
(cd "$source_dir" && git ls-files -z | xargs -0 cp --parents -t "$folder/tree")
build=$folder/tree/build/ci
(cd "$folder/tree" && cmake --preset ci -DCMAKE_CXX_COMPILER_LAUNCHER="$(command -v ccache || true)" >/dev/null)
cmake --build "$build" --target starattn faulty_disk -j 2 >"$folder/build.log"

suite() { # log
  python3 "$folder/tree/tests/faults/faults.py" "$build/starattn" "$build/tests/faults/libfaulty_disk.so" \
    "$folder/tree" --kills 300 --errors 1500 --losses 800 --stop-at-first ${FAULTS_FOLDER:+--folder "$FAULTS_FOLDER"} >"$1" 2>&1
}
n_caught=0
for patch in "${patches[@]}"; do
  name=$(basename "$patch" .patch)
  patch -s -p1 -d "$folder/tree" <"$patch"
  cmake --build "$build" --target starattn -j 2 >"$folder/$name.build"
  if suite "$folder/$name.log"; then
    echo "$name: NOT CAUGHT"
  else
    n_caught=$((n_caught + 1))
    echo "$name: $(grep -m 1 -E '^FAILED|without any fault' "$folder/$name.log" || tail -n 1 "$folder/$name.log")"
  fi
  patch -s -R -p1 -d "$folder/tree" <"$patch"
done
echo "$n_caught of ${#patches[@]} are caught"
[ "$n_caught" -ge $((${#patches[@]} - 1)) ]
