#!/usr/bin/env bash
# Compiles and links the program with the `cuda` feature, so that it cannot rot on machines without a GPU. Only checks
# the link: running the program needs the full CUDA libraries (`CUDA=1 make build`), not this smaller set.
set -euo pipefail
cd "$(dirname "$0")/.."

libtorch="$(python3 scripts/libtorch_wheels.py cuda-link)/torch"
# The result never runs, so it is not optimized. A separate target directory leaves the CPU build alone.
LIBTORCH="$libtorch" cargo build --bins --features cuda --target-dir target/cuda \
    --config 'profile.dev.opt-level=0' --config 'profile.dev.package."*".opt-level=0' \
    --config 'profile.dev.incremental=false'

program=target/cuda/debug/oss-run
if ! LC_ALL=C readelf --dynamic "$program" | grep -q 'NEEDED.*libtorch_cuda\.so'; then
    echo "error: $program is not linked to libtorch_cuda.so; see the link arguments in crates/oss-torch/build.rs" >&2
    exit 1
fi
echo "the cuda feature compiles and links ($program)" >&2
