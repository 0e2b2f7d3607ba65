#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what starattn is built from: packages of Debian 12 and Ubuntu 24.04. Does nothing when all is
# there. Without root or sudo it prints what to ask an administrator for.
# usage: install_dependencies.sh [--fuzz | --python]
#   --fuzz: clang with libFuzzer instead, for the preset of that name
#   --python: what scripts/python and its test need instead
set -euo pipefail
packages=(build-essential cmake ninja-build pkg-config libopenmpi-dev openmpi-bin libhdf5-dev libcli11-dev libgtest-dev
  nlohmann-json3-dev libpcre2-dev libutf8proc-dev libsentencepiece-dev libspdlog-dev libfmt-dev libxxhash-dev
  libopenblas-dev zlib1g-dev)
case ${1:-} in
  --fuzz) packages=(clang-14 libclang-rt-14-dev) ;;
  --python) packages=(python3 python3-h5py python3-pandas python3-xxhash) ;;
esac
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "These packages are missing; please have them installed: ${missing[*]}" >&2
    exit 69
  fi
  as_root=(sudo)
fi
echo "Installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
