"""Benchmarks oss-run against transformers, tiktoken-rs and the disk on this machine.

    make bench                                                       # everything
    python benches/run.py [--rounds N] [--steps N] [--prepare-mb N] [WHAT]...

WHAT is a module in this directory, whose docstring says what it measures: train, scaling, decode, text, checkpoints, ranks,
neighbors, memory, runs, rerun.
"""

import argparse
import tempfile
from pathlib import Path

import checkpoints
import decode
import memory
import neighbors
import program
import ranks
import rerun
import runs
import scaling
import text
import train

WARMUP_STEPS = 2


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", help="the benchmarks to run (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="measured steps per round, after the warm-up")
    parser.add_argument("--prepare-mb", type=int, default=500)
    arguments = parser.parse_args()
    rounds, steps = arguments.rounds, arguments.steps
    benchmarks = {
        "train": lambda scratch: train.measure(scratch, rounds, steps, WARMUP_STEPS),
        "scaling": lambda scratch: scaling.measure(scratch, rounds, steps),
        "decode": lambda scratch: decode.measure(scratch, rounds),
        "text": lambda scratch: text.measure(scratch, arguments.prepare_mb),
        "checkpoints": checkpoints.measure,
        "ranks": lambda scratch: ranks.measure(scratch, rounds, steps, WARMUP_STEPS),
        "neighbors": lambda scratch: neighbors.measure(scratch, rounds),
        "memory": memory.measure,
        "runs": runs.measure,
        "rerun": rerun.measure,
    }
    if unknown := set(arguments.what) - set(benchmarks):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; choose from {', '.join(benchmarks)}")
    if not program.PROGRAM.exists():
        parser.error(f"{program.PROGRAM} does not exist; build it with `make build`")

    # Run directories need several GB, so they go beside the program, not in /tmp, which may be in memory.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=program.REPOSITORY / "target") as directory:
        for name, benchmark in benchmarks.items():
            if name in arguments.what or not arguments.what:
                scratch = Path(directory) / name
                scratch.mkdir()
                benchmark(scratch)


if __name__ == "__main__":
    main()
