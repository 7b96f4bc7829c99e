#!/usr/bin/env bash
# Runs the tests of the libtorch bridge, matrix products and kernels under AddressSanitizer. Tensor memory has red zones
# too, since libtorch allocates with the C library. Accesses inside libtorch are not instrumented, except copies through
# the C library. Miri cannot run these tests: all of them call libtorch.
set -euo pipefail
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-gnu
if [[ "$(rustc -vV | sed -n 's/^host: //p')" != "$target" ]]; then
    echo "error: AddressSanitizer is only set up for $target; run this on such a machine" >&2
    exit 1
fi

# Sanitizers are an unstable flag, which RUSTC_BOOTSTRAP enables on the stable compiler. With --target, build scripts and
# macros are compiled without it.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS='-Zsanitizer=address'
export CXXFLAGS_x86_64_unknown_linux_gnu='-fsanitize=address -fno-omit-frame-pointer'
# At level 3, the compiler needs over 16 GB for the instrumented matrix products.
export CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_DEBUG=0
# libtorch never frees its global state.
export ASAN_OPTIONS="detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
# shellcheck disable=SC2046 # flags, none or two words
cargo test --release --lib --target "$target" --target-dir target/sanitize $(scripts/cargo-features.sh) \
    -p oss-torch -p oss-kernels "$@"
