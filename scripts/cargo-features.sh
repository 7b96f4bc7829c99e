#!/usr/bin/env bash
# Prints the cargo flags for the libtorch in use: `--features cuda` if it includes CUDA. CUDA=0 disables the feature.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ ${CUDA:-} != 0 && -e ${LIBTORCH:-.libtorch/torch}/lib/libtorch_cuda.so ]]; then
    echo "--features cuda"
fi
