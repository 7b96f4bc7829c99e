#!/usr/bin/env bash
# Makes libtorch available to cargo as .libtorch/torch: downloads it once into the user's cache and links it from here.
# CUDA=0|1 selects the CPU or CUDA libraries (default: 1 where nvidia-smi works). A LIBTORCH in the environment is used
# as is. Returns immediately if there is nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/tools.sh

fail() {
    echo "error: $*" >&2
    exit 1
}

problems="$(missing_tools)"
if [[ -n $problems ]]; then
    sed 's/^/error: /' <<<"$problems" >&2
    exit 1
fi

if [[ -n ${LIBTORCH:-} ]]; then
    [[ -e $LIBTORCH/lib/libtorch_cpu.so && -d $LIBTORCH/include ]] ||
        fail "LIBTORCH=$LIBTORCH lacks lib/libtorch_cpu.so or include/; correct it, or unset it and run \`make setup\`"
    echo "libtorch: using LIBTORCH=$LIBTORCH" >&2
    exit
fi

variant="$(libtorch_variant)"
directory="$(python3 scripts/libtorch_wheels.py "$variant")"

if [[ -e .libtorch && ! -L .libtorch ]]; then
    fail ".libtorch is not a link created by \`make setup\`; move it away, or set LIBTORCH to the libtorch inside it"
fi
previous="$(readlink .libtorch || true)"
if [[ $previous != "$directory" ]]; then
    # torch-sys rebuilds only if the path to libtorch changes. Here the path stays the same, so it would keep its build
    # for the other libraries.
    if [[ -n $previous ]]; then
        for profile in dev release dist; do
            cargo clean --quiet --profile "$profile" -p torch-sys -p oss-torch -p oss-kernels -p oss-train -p oss-run
        done
    fi
    ln -s "$directory" ".libtorch.$$"
    mv -T ".libtorch.$$" .libtorch
fi
echo "libtorch: $variant libraries at .libtorch -> $directory" >&2
