"""oss-run as the benchmarks call it: a command, an experiment file with some other values, its speed and memory; and the
benchmarks that are programs of their own."""

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
    """Tokens a second of each step, and what `call` returns; `within` is a command that calls the command after it. The
    run goes with its GB of checkpoints unless it is to be kept; the prepared text stays."""
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
    """What `oss-run plan --json` says."""
    output, _ = call([PROGRAM, "plan", REPOSITORY / experiment, "--json", *changes(settings)])
    return json.loads(output)


def changes(settings):
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def bench(name, *arguments):
    """What the program benches/NAME.rs prints, which is JSON. It is built before anything is measured."""
    features = subprocess.run([REPOSITORY / "scripts/cargo-features.sh"], check=True, capture_output=True, text=True)
    command = ["cargo", "bench", "--quiet", *features.stdout.split(), "--bench", name]
    os.chdir(REPOSITORY)  # Where cargo's configuration says which libtorch is linked.
    call([*command, "--no-run"])
    output, _ = call([*command, "--", *arguments])
    return json.loads(output.splitlines()[-1])


def machine():
    """What the machine gives now, in six seconds: see benches/machine.rs. What is compared with it is measured next, for a
    guest's neighbours can halve its speed in between."""
    return bench("machine")


def gemm_flops_per_second(machine, precision):
    """The best rate of a matrix product in this precision, by any library that was measured."""
    return max(machine["gemm_flops_per_second"][precision].values())


def call(command):
    """Runs a command; its standard output, and the largest resident set of a process among it and those that it waited
    for, in bytes. A failure ends the benchmark."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([str(part) for part in command], stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"error: {' '.join(map(str, command))} ended with status {process.returncode}; see above")
        output.seek(0)
        return output.read(), usage.ru_maxrss * 1024
