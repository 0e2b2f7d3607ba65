#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bundle.sh BUILD FOLDER: the program, its tests and those shared libraries that a machine with
# CUDA, Open MPI, HDF5 and OpenBLAS may lack, to be carried there; ALSO='hdf5|openblas|gfortran' takes
# these as well. Start it all with scripts/gpu_check.sh FOLDER.
set -euo pipefail
build=$1 to=$2
rm -rf "$to"
mkdir -p "$to/lib"
cp "$build/starattn" "$build"/kernels/libstarattn_kernels_c.so "$to"
for test in backend/cuda_backend_test star/{equalities,sharded,memory}_test exchange/{anchor_broadcast,query_exchange,segment_exchange}_test; do cp "$build/tests/$test" "$to"; done
# The rest of what the program needs comes with CUDA, Open MPI, HDF5 and OpenBLAS.
ldd "$build/starattn" | awk '$3 ~ /^\// {print $3}' |
  grep -E 'pcre2|utf8proc|sentencepiece|xxhash|spdlog|fmt'"${ALSO:+|$ALSO}" | xargs -I{} cp -L {} "$to/lib"
strip -g "$to"/*test "$to/starattn"
