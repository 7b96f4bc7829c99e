#!/usr/bin/env bash
# Runs the tests of all that is unsafe under AddressSanitizer: the bridge to libtorch on both sides, products of matrices,
# kernels. Tensors' memory has red zones too, since libtorch allocates by the C library; what libtorch itself does with it
# is not watched, but for copies through the C library. Miri cannot run these: all of them call libtorch.
set -euo pipefail
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-gnu
if [[ "$(rustc -vV | sed -n 's/^host: //p')" != "$target" ]]; then
    echo "error: AddressSanitizer is set up for $target; run this on such a machine" >&2
    exit 1
fi

# Sanitizers are an unstable flag of a stable compiler. With --target, build scripts and macros are compiled without it.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS='-Zsanitizer=address'
export CXXFLAGS_x86_64_unknown_linux_gnu='-fsanitize=address -fno-omit-frame-pointer'
# libtorch keeps what it made once for the life of the process.
export ASAN_OPTIONS="detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
# shellcheck disable=SC2046
cargo test --release --lib --target "$target" --target-dir target/sanitize --config 'profile.release.incremental=false' \
    $(scripts/cargo-features.sh) -- torch:: kernels:: train::optimizer::
