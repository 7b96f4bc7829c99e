#!/usr/bin/env bash
# usage: scripts/install.sh PREFIX [PROGRAM]
# Copies the program (default: target/release/oss-run) to PREFIX/bin and its libraries to PREFIX/lib/oss-run, where the
# program looks first. The result needs neither this repository nor the user's cache.
set -euo pipefail
cd "$(dirname "$0")/.."
prefix="$1"
program="${2:-target/release/oss-run}"
libtorch="$(realpath "${LIBTORCH:-.libtorch/torch}")"

libraries="$prefix/lib/oss-run"
mkdir -p "$prefix/bin" "$prefix/lib"
partial="$(mktemp -d "$prefix/lib/.oss-run.XXXXXX")"
trap 'rm -rf "$partial"' EXIT

# libtorch and NVIDIA's libraries search their own directory, so all of them go into one.
find "$libtorch/lib" -maxdepth 1 -name '*.so*' -exec cp --target-directory "$partial" {} +
if [[ -d $libtorch/../nvidia ]]; then
    find "$libtorch/../nvidia" -path '*/lib/*.so*' -exec cp --target-directory "$partial" {} +
fi
mkdir "$partial/licenses"
find "$libtorch/.." -maxdepth 1 \( -name 'torch-*.dist-info' -o -name 'nvidia_*.dist-info' \) \
    -exec cp -r --target-directory "$partial/licenses" {} +
cp LICENSE "$partial/"
chmod 755 "$partial"
rm -rf "$libraries"
mv "$partial" "$libraries"
install -m 755 "$program" "$prefix/bin/.oss-run.new"
mv "$prefix/bin/.oss-run.new" "$prefix/bin/oss-run"

if LC_ALL=C ldd "$prefix/bin/oss-run" | grep 'not found' >&2; then
    echo "error: the installed program cannot find the libraries above; run \`make clean\` and \`make install\` again" >&2
    exit 1
fi
echo "installed $prefix/bin/oss-run with its libraries in $libraries" >&2
