"""Training, evaluation and decoding on a shared machine: speed beside as many busy loops as there are cores, and of two runs at
once, as a fraction of the speed alone.

The scheduler's fair share is half of the cores in both cases. Everything runs in one session, because Linux may divide the cores
evenly among sessions instead of processes.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import program

EXPERIMENT = "experiments/quickstart.toml"
STEPS = 40
# While they start, the runs have other neighbors than afterwards.
SKIPPED_STEPS = 10
SETTINGS = {
    "train.steps": STEPS, "schedule.warmup_steps": 5, "sample.every_steps": 0, "checkpoint.every_steps": 1000,
    "log.every_steps": 1,
}
PROMPT = "Once upon a time"
# Runs directories of the two runs at once.
SIDES = ("one", "two")


def measure(scratch, rounds):
    program.train(EXPERIMENT, scratch, SETTINGS | {"run.name": "model"}, keep=True)
    for side in SIDES:
        experiment = program.REPOSITORY / EXPERIMENT
        program.call([program.PROGRAM, "run", experiment, "--until", "prepare", "--runs-dir", scratch / side])
    tasks = {"training": train, "evaluation": evaluate, "decoding": decode}
    measured = {}
    for round_ in range(rounds):
        for name, task in tasks.items():
            print(f"round {round_ + 1}/{rounds}: {name}", file=sys.stderr)
            alone = task(scratch)
            with busy_loops(os.cpu_count()):
                beside = task(scratch)
            with ThreadPoolExecutor() as pool:
                both = list(pool.map(lambda side: task(scratch / side), SIDES)) if name == "training" else []
            measured.setdefault(name, []).append((alone, beside, *both))

    print(f"\n{'on a shared machine':20} {'alone, tokens/s':>16} {'beside busy loops':>18} {'two at once':>12}")
    for name, results in measured.items():
        alone, beside, *both = (statistics.median(column) for column in zip(*results, strict=True))
        shares = ", ".join(f"{speed / alone:.0%}" for speed in both)
        print(f"{name:20} {alone:16.0f} {beside / alone:18.0%} {shares:>12}", flush=True)


@contextmanager
def busy_loops(number):
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def train(runs):
    speeds, _, _ = program.train(EXPERIMENT, runs, SETTINGS | {"run.name": "train"})
    return statistics.median(speeds[SKIPPED_STEPS:])


def evaluate(runs):
    started = time.perf_counter()
    output, _ = program.call([program.PROGRAM, "evaluate", "model", "--json", "--runs-dir", runs])
    return json.loads(output)["tokens"] / (time.perf_counter() - started)


def decode(runs):
    options = ["--prompt", PROMPT, "--greedy", "--max-new-tokens", 1000, "--json", "--runs-dir", runs]
    output, _ = program.call([program.PROGRAM, "sample", "model", *options])
    result = json.loads(output)
    return sum(len(sample["tokens"]) - 1 for sample in result["samples"]) / result["decoding_seconds"]
