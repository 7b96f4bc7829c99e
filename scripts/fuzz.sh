#!/usr/bin/env bash
# usage: scripts/fuzz.sh SECONDS [TARGET...]
# Builds the fuzz targets (all by default), runs each for SECONDS, and fails on any finding: a panic, an abort, an
# allocation over 1 GiB, over 2 GiB in total, or an input that takes 10 seconds.
# FUZZ_SANITIZER=none builds and runs faster, but only the process's total memory is limited.
# FUZZ_JOBS targets (default: the number of cores) run in parallel. New inputs go to FUZZ_CORPUS (default: fuzz/corpus),
# findings and logs to fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds="$1"
shift
targets=("$@")
((${#targets[@]})) || targets=(fuzz/fuzz_targets/*.rs)
corpus="${FUZZ_CORPUS:-fuzz/corpus}"

if ! cargo fuzz --version >/dev/null 2>&1; then
    cargo install --locked cargo-fuzz
fi
# Start from the program's versions; cargo adds what only fuzzing needs.
cp Cargo.lock fuzz/Cargo.lock
# Coverage and sanitizers are nightly flags; RUSTC_BOOTSTRAP makes the stable compiler accept them.
RUSTC_BOOTSTRAP=1 cargo fuzz build --sanitizer "${FUZZ_SANITIZER:-address}"

libtorch="$(realpath "${LIBTORCH:-.libtorch/torch}")"
export LD_LIBRARY_PATH="$libtorch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
# Readers take paths, so each target keeps its files in memory.
TMPDIR="$(mktemp -d /dev/shm/oss-run-fuzz.XXXXXX)"
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

binaries=fuzz/target/x86_64-unknown-linux-gnu/release
fuzz() {
    local limit_mb=1024
    # A Zstandard window takes up to 2 GiB.
    [[ "$1" != text ]] || limit_mb=2560
    mkdir -p "$corpus/$1" "fuzz/artifacts/$1"
    "$binaries/$1" -max_total_time="$seconds" -timeout=10 -malloc_limit_mb="$limit_mb" -rss_limit_mb="$((limit_mb + 1024))" -detect_leaks=0 \
        -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$1/" "$corpus/$1" "fuzz/seeds/$1" \
        >"fuzz/artifacts/$1/log" 2>&1 || touch "fuzz/artifacts/$1/failed"
}

for target in "${targets[@]}"; do
    while (($(jobs -rp | wc -l) >= ${FUZZ_JOBS:-$(nproc)})); do
        wait -n
    done
    name="$(basename "$target" .rs)"
    rm -f "fuzz/artifacts/$name/failed"
    fuzz "$name" &
done
wait

failed=()
for target in "${targets[@]}"; do
    name="$(basename "$target" .rs)"
    log="fuzz/artifacts/$name/log"
    if [[ -e fuzz/artifacts/$name/failed ]]; then
        failed+=("$name")
        tail -n 40 "$log" >&2
    fi
    runs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    coverage="$(grep -o 'cov: [0-9]* ft: [0-9]*' "$log" | tail -n 1 || true)"
    echo "$name: ${runs:-unknown} runs, ${coverage:-no coverage}"
done
if ((${#failed[@]})); then
    echo "error: findings in ${failed[*]}; the inputs are in fuzz/artifacts, see fuzz/README.md" >&2
    exit 1
fi
