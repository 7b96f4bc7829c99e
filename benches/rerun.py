"""Reruns a finished experiment with 1 GB of prepared tokens: how long until everything is known to be fresh."""

import resource
import statistics
import time

import program
import text

MEGABYTES = 253  # One 4-byte token per byte of text: 1 GB.
ROUNDS = 11
EXPERIMENT = """
[dataset]
files = ["text.txt"]
tokenizer = "bytes"
[model]
preset = "tiny"
[schedule]
kind = "constant"
warmup_steps = 0
[train]
steps = 1
global_batch_size = 1
sequence_length = 64
device = "cpu"
[evaluate]
max_tokens = 64
[sample]
max_new_tokens = 4
"""


def measure(scratch):
    text.write(scratch / "text.txt", MEGABYTES * 1_000_000)
    experiment, runs = scratch / "rerun.toml", scratch / "runs"
    experiment.write_text(EXPERIMENT)
    run = [program.PROGRAM, "run", experiment, "--runs-dir", runs, "--quiet"]
    program.call(run)
    prepared_bytes = sum(file.stat().st_size for file in runs.glob(".prepared/**/*.bin"))
    commands = {"everything fresh": run, "start-up (--version)": [program.PROGRAM, "--version"]}
    # Alternate, so that all see the same machine. CPU time is robust to other load.
    rounds = [{what: once(command) for what, command in commands.items()} for _ in range(ROUNDS)]
    print(f"\nrerun of a finished run, {prepared_bytes / 1e9:.2f} GB of prepared tokens, median of {ROUNDS}")
    print(f"{'':28} {'seconds':>8} {'best':>6} {'CPU s':>10}")
    for what in commands:
        elapsed, busy = zip(*(result[what] for result in rounds))
        print(f"{what:28} {statistics.median(elapsed):8.3f} {min(elapsed):6.3f} {statistics.median(busy):10.3f}")


def once(command):
    """Wall-clock seconds and CPU seconds of a command."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    program.call(command)
    elapsed, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
