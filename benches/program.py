"""oss-run as the benchmarks call it: a command, an experiment file with some other values, its speed and memory."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAM = REPOSITORY / "target/release/oss-run"


def train(experiment, runs, settings, within=()):
    """Tokens a second of each step, and what `call` returns; `within` is a command that calls the command after it."""
    before = set(runs.glob("*/*/metrics.jsonl"))
    settings = {"evaluate.every_steps": 0} | settings
    command = [PROGRAM, "run", REPOSITORY / experiment, "--new", "--until", "train", "--runs-dir", runs]
    output, peak_bytes = call([*within, *command, *changes(settings)])
    (metrics,) = set(runs.glob("*/*/metrics.jsonl")) - before
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [line["tokens_per_second"] for line in lines if "loss" in line], output, peak_bytes


def plan(experiment, settings):
    """What `oss-run plan --json` says."""
    output, _ = call([PROGRAM, "plan", REPOSITORY / experiment, "--json", *changes(settings)])
    return json.loads(output)


def changes(settings):
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


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
