"""A finished experiment again, with GB of prepared tokens: how long until it is known that everything is fresh."""

import resource
import statistics
import time

import program
import text

MEGABYTES = 253  # Bytes are tokens of 4 bytes: 1 GB of them.
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
    commands = {"everything fresh": run, "the program's start": [program.PROGRAM, "--version"]}
    # In turn, so that all see the same machine; the processor's time stays what it is beside other work.
    rounds = [{what: once(command) for what, command in commands.items()} for _ in range(ROUNDS)]
    print(f"\na finished run again, {prepared_bytes / 1e9:.2f} GB of prepared tokens, median of {ROUNDS}")
    print(f"{'':28} {'seconds':>8} {'best':>6} {'of a core':>10}")
    for what in commands:
        elapsed, busy = zip(*(result[what] for result in rounds))
        print(f"{what:28} {statistics.median(elapsed):8.3f} {min(elapsed):6.3f} {statistics.median(busy):10.3f}")


def once(command):
    """Seconds that a command takes, and those that a processor works for it."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    program.call(command)
    elapsed, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
