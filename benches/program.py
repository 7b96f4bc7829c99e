"""Runs oss-run for the benchmarks and measures its speed and memory; also runs the benchmarks written in Rust."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAM = REPOSITORY / "target/release/oss-run"


def train(experiment, runs, settings, within=(), keep=False):
    """Each step's tokens per second, and what `call` returns. `within` is a wrapper command. The run, with its GB of
    checkpoints, is deleted unless `keep`; the prepared text stays."""
    before = set(runs.glob("*/*/metrics.jsonl"))
    settings = {"evaluate.every_steps": 0} | settings
    command = [PROGRAM, "run", REPOSITORY / experiment, "--new", "--until", "train", "--runs-dir", runs]
    output, peak_bytes = call([*within, *command, *changes(settings)])
    (metrics,) = set(runs.glob("*/*/metrics.jsonl")) - before
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    if not keep:
        shutil.rmtree(metrics.parent)
    return [line["tokens_per_second"] for line in lines if "loss" in line], output, peak_bytes


def plan(experiment, settings):
    """The output of `oss-run plan --json`."""
    output, _ = call([PROGRAM, "plan", REPOSITORY / experiment, "--json", *changes(settings)])
    return json.loads(output)


def changes(settings):
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def bench(name, *arguments):
    """The JSON printed by benches/NAME.rs, which is built before anything is measured."""
    features = subprocess.run([REPOSITORY / "scripts/cargo-features.sh"], check=True, capture_output=True, text=True)
    command = ["cargo", "bench", "--quiet", *features.stdout.split(), "--bench", name]
    os.chdir(REPOSITORY)  # Cargo's configuration here says which libtorch to link.
    call([*command, "--no-run"])
    output, _ = call([*command, "--", *arguments])
    return json.loads(output.splitlines()[-1])


def machine():
    """The machine's current rates, measured in six seconds by benches/machine.rs. Measure what is compared with them right
    after, because other VMs on the host can halve the speed at any time."""
    return bench("machine")


def gemm_flops_per_second(machine, precision):
    """The best rate of a matrix product in this precision, over all measured libraries."""
    return max(machine["gemm_flops_per_second"][precision].values())


def call(command):
    """Runs a command; returns its standard output, and the peak resident set size in bytes of the largest process among it
    and its children. A failure ends the benchmark."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([str(part) for part in command], stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"error: {' '.join(map(str, command))} exited with status {process.returncode}; see above")
        output.seek(0)
        return output.read(), usage.ru_maxrss * 1024
