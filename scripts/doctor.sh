#!/usr/bin/env bash
# Reports what oss-run needs to build and run, and what this machine has. Works before the first build; after it, adds the
# program's own report.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/tools.sh

row() { printf '%-10s %s\n' "$1" "$2"; }
first_line() { "$@" 2>/dev/null | sed -n 1p || true; }
or_missing() { echo "${1:-missing}"; }

row platform "$(uname -s) $(uname -m), $(getconf GNU_LIBC_VERSION 2>/dev/null || echo 'no glibc')"
row cargo "$(or_missing "$(first_line cargo --version)")"
row c++ "$(or_missing "$(first_line "${CXX:-c++}" --version)")"
row python3 "$(or_missing "$(first_line python3 --version)")"
row pip "$(or_missing "$(first_line python3 -m pip --version)")"
row cpu "$(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | sed -n 1p)"
row memory "$(awk '/^MemTotal/ { total = $2 } /^MemAvailable/ { free = $2 }
    END { printf "%.1f GB, %.1f GB available", total / 1e6, free / 1e6 }' /proc/meminfo 2>/dev/null || echo unknown)"
gpu="$(nvidia-smi --query-gpu=name,memory.total --format=csv,noheader 2>/dev/null | paste -sd ';' || true)"
row gpu "${gpu:-none found by nvidia-smi}"

cache="${XDG_CACHE_HOME:-$HOME/.cache}"
while [[ ! -d $cache ]]; do cache="$(dirname "$cache")"; done
free() { df --output=avail -BG "$1" | tail -n 1 | tr -d ' G'; }
row disk "$(free .) GB free here, $(free "$cache") GB free in $cache (setup needs 1.2 GB for the CPU libraries, 8 GB for CUDA)"

problems="$(missing_tools)"
if [[ -n ${LIBTORCH:-} ]]; then
    row libtorch "LIBTORCH=$LIBTORCH"
    [[ -e $LIBTORCH/lib/libtorch_cpu.so ]] ||
        problems+="${problems:+$'\n'}LIBTORCH=$LIBTORCH has no lib/libtorch_cpu.so; correct it or unset it"
elif [[ -e .libtorch/torch/lib/libtorch_cpu.so ]]; then
    row libtorch "$(cat .libtorch/torch/build-version 2>/dev/null || echo 'unknown version') at $(realpath .libtorch)"
else
    row libtorch "not set up yet; \`make setup\` downloads the $(libtorch_variant) libraries"
fi

if [[ -n $problems ]]; then
    sed 's/^/error: /' <<<"$problems" >&2
    exit 1
fi
if [[ -x target/release/oss-run ]]; then
    echo
    target/release/oss-run doctor
else
    row program "not built yet; \`make quickstart\` builds and runs it"
fi
