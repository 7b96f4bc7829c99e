#!/usr/bin/env bash
# Prints the cargo flags that fit the libtorch in use: the feature `cuda` when it has its CUDA half; CUDA=0 turns
# the feature off.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ ${CUDA:-} != 0 && -e ${LIBTORCH:-.libtorch/torch}/lib/libtorch_cuda.so ]]; then
    echo "--features cuda"
fi
