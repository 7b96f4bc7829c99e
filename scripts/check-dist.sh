#!/usr/bin/env bash
# usage: scripts/check-dist.sh
# Tests the packages of `make dist` as a user would: verifies the digests, unpacks the tarball elsewhere, and installs the
# wheel into a fresh virtual environment. Each then trains a small model without access to this repository.
set -euo pipefail
cd "$(dirname "$0")/../target/packages"
packages="$PWD"
sha256sum --check --quiet SHA256SUMS

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
for n in {1..200}; do printf "On day %d the cat found a small red ball and went home.\n<|endoftext|>\n" "$n"; done >"$scratch/text.txt"
cat >"$scratch/tiny.toml" <<'TOML'
[dataset]
files = ["text.txt"]
tokenizer = "bytes"
validation.fraction = 0.1

[model]
preset = "tiny"

[train]
steps = 4
global_batch_size = 2
micro_batch_size = 2
sequence_length = 16
device = "cpu"

[schedule]
warmup_steps = 1
TOML

# try PROGRAM: checks that it starts, loads the libraries packaged with it and no others, and trains.
try() {
    local program="$1" libraries
    libraries="$(realpath "$(dirname "$program")/../lib/oss-run")"
    if ! env -i ldd "$program" | grep -q "libtorch_cpu.so => .*$libraries\|libtorch_cpu.so => .*bin/../lib/oss-run"; then
        echo "error: $program does not load its own libtorch:" >&2
        env -i ldd "$program" >&2
        exit 1
    fi
    (cd "$scratch" && rm -rf runs && env -i HOME="$scratch" "$program" --version &&
        env -i HOME="$scratch" "$program" tiny.toml >/dev/null 2>"$scratch/messages") ||
        { cat "$scratch/messages" >&2; exit 1; }
    compgen -G "$scratch/runs/tiny/*/export/model.safetensors" >/dev/null ||
        { echo "error: $program did not export a model" >&2; exit 1; }
}

tar --extract --file "$(echo "$packages"/*.tar.xz)" --directory "$scratch"
mv "$scratch"/oss-run-* "$scratch/moved"
try "$scratch/moved/bin/oss-run"
rm -rf "$scratch/moved"

wheel="$(echo "$packages"/*.whl)"
python3 - "$wheel" <<'PYTHON'
import base64, csv, hashlib, sys, zipfile

wheel = zipfile.ZipFile(sys.argv[1])
[record] = [name for name in wheel.namelist() if name.endswith(".dist-info/RECORD")]
rows = {name: (digest, size) for name, digest, size in csv.reader(wheel.read(record).decode().splitlines())}
assert set(rows) == set(wheel.namelist()), "RECORD does not list exactly the files in the wheel"
for name, (digest, size) in rows.items():
    if name != record:
        found = base64.urlsafe_b64encode(hashlib.sha256(wheel.read(name)).digest()).decode().rstrip("=")
        assert (digest, int(size)) == (f"sha256={found}", wheel.getinfo(name).file_size), f"wrong RECORD entry for {name}"
PYTHON
python3 -m venv "$scratch/venv"
pip=("$scratch/venv/bin/pip" --quiet --disable-pip-version-check)
"${pip[@]}" install --no-index "$wheel"
try "$scratch/venv/bin/oss-run"
"${pip[@]}" uninstall --yes oss-run
[[ ! -e $scratch/venv/bin/oss-run && ! -e $scratch/venv/lib/oss-run ]] ||
    { echo "error: pip left oss-run's files behind" >&2; exit 1; }
echo "the tarball and the wheel work" >&2
