#!/usr/bin/env bash
# usage: scripts/dist.sh
# Creates target/packages: oss-run-VERSION-linux-x86_64[-cuda].tar.xz (program and libraries, relocatable), a Python wheel
# of the same files, and SHA256SUMS. Needs what `make build` needs, plus binutils and xz.
set -euo pipefail
cd "$(dirname "$0")/.."

features="$(scripts/cargo-features.sh)"
# Leaves the build machine's libtorch out of the rpath: the packages contain their own.
# shellcheck disable=SC2086 # zero or two flags
OSS_RUN_DIST=1 cargo build --profile dist $features

version="$(cargo pkgid)"
version="${version##*[#@]}"
name="oss-run-$version-linux-x86_64${features:+-cuda}"
# Archives built from the same sources are byte-identical.
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH

packages=target/packages
rm -rf "$packages"
tree="$packages/$name"
mkdir -p "$tree"
scripts/install.sh "$tree" target/dist/oss-run
cp LICENSE README.md "$tree/"
# Symbol tables are a fifth of libtorch, and only debuggers need them.
find "$tree/lib/oss-run" \( -name 'libtorch*.so' -o -name 'libc10*.so' \) -exec strip --strip-unneeded {} +

tar --create --directory "$packages" --sort=name --owner=0 --group=0 --numeric-owner \
    --mtime="@$SOURCE_DATE_EPOCH" "$name" | xz --threads=0 "${XZ_LEVEL:--6}" >"$packages/$name.tar.xz"
python3 scripts/wheel.py "$tree" "$version${features:++cuda}" "$packages"
(cd "$packages" && sha256sum -- *.tar.xz *.whl >SHA256SUMS)

echo "unpacked: $(du -sh --apparent-size "$tree" | cut -f1)" >&2
(cd "$packages" && ls -sh -- *.tar.xz *.whl && cat SHA256SUMS) >&2
