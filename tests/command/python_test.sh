#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The Python package: its own tests, then the code of docs/python.md, as one program from the folder of a clone. It
# counts as skipped where no Python has what the package needs.
# usage: python_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"
for candidate in python3 /usr/bin/python3; do
  "$candidate" -c 'import h5py, pandas, xxhash' 2>"$work/log" && python=$candidate && break
done
if [ -z "${python-}" ]; then
  echo "skipped: no Python with h5py, pandas and xxhash (scripts/install_dependencies.sh --python installs them)"
  exit 77
fi
export STARATTN=$program STARATTN_MODEL=$model PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$source_dir/scripts/python
"$python" -W error::ResourceWarning "$source_dir/scripts/python/tests/test_starattn.py" >"$work/log" 2>&1
code=$?
check "the package passes its tests" [ $code -eq 0 ]

mkdir "$work/bin" "$work/clone"
ln -s "$(realpath "$program")" "$work/bin/starattn"
ln -s "$(realpath "$source_dir")"/data "$work/clone"
awk '/^```/ { inside = $0 == "```python"; next } inside' "$source_dir/docs/python.md" >"$work/page.py"
(cd "$work/clone" && PATH=$work/bin:$PATH "$python" "$work/page.py") >"$work/out" 2>"$work/log"
code=$?
check "the code of docs/python.md runs" [ $code -eq 0 ]
check "and shows the answer to 'stone'" shows "^stone '"
check "the table" shows 'note +stone'
check "and keys" shows '^\([0-9]+, [0-9]+, [0-9]+\) float32'
exit $failed
