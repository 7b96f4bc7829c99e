#!/usr/bin/env bash
# Compiles and links the program with the feature `cuda`, so that it cannot rot where no GPU runs it. Only the
# link is looked at: the program starts with the whole CUDA set (`CUDA=1 make build`), not with this smaller one.
set -euo pipefail
cd "$(dirname "$0")/.."

libtorch="$(python3 scripts/libtorch_wheels.py cuda-link)/torch"
# Nothing here runs, so nothing is optimised; a target directory of its own keeps the CPU build as it is.
LIBTORCH="$libtorch" cargo build --bins --features cuda --target-dir target/cuda \
    --config 'profile.dev.opt-level=0' --config 'profile.dev.package."*".opt-level=0' \
    --config 'profile.dev.incremental=false'

program=target/cuda/debug/oss-run
if ! LC_ALL=C readelf --dynamic "$program" | grep -q 'NEEDED.*libtorch_cuda\.so'; then
    echo "error: $program is not linked to libtorch_cuda.so; see the link arguments in build.rs" >&2
    exit 1
fi
echo "the feature cuda compiles and links ($program)" >&2
