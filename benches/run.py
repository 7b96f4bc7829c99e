"""Measures oss-run beside transformers on this machine, now.

    make bench                                                       # everything
    python benches/run.py [--rounds N] [--steps N] [--prepare-mb N] [WHAT]...

- train: tokens a second (median over the steps after the warm-up, then over the rounds) and the largest resident set,
  ours and theirs in turn.
- prepare: tokens a second of the whole command on a generated text.
- ranks: fsdp beside ddp on 2 ranks, and the bytes that they move beside those that `plan` counts.
- memory: the peak of a rank beside what `plan` says, on 1, 2 and 4 ranks.
"""

import argparse
import itertools
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import memory
import program
import ranks
from program import PROGRAM, REPOSITORY, call

WARMUP_STEPS = 2


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", help="some of train, prepare, ranks, memory (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="measured steps a round, after the warm-up")
    parser.add_argument("--prepare-mb", type=int, default=100)
    arguments = parser.parse_args()
    benchmarks = {
        "train": lambda scratch: train(scratch, arguments.rounds, arguments.steps),
        "prepare": lambda scratch: prepare(scratch, arguments.prepare_mb),
        "ranks": lambda scratch: ranks.measure(scratch, arguments.rounds, arguments.steps, WARMUP_STEPS),
        "memory": memory.measure,
    }
    if unknown := set(arguments.what) - set(benchmarks):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; choose from {', '.join(benchmarks)}")
    if not PROGRAM.exists():
        parser.error(f"{PROGRAM} is not there; build it with `make build`")

    # The run directories take some GB while it runs: beside the program, not in a /tmp that may be memory.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=REPOSITORY / "target") as directory:
        for name, benchmark in benchmarks.items():
            if name in arguments.what or not arguments.what:
                scratch = Path(directory) / name
                scratch.mkdir()
                benchmark(scratch)


def train(scratch, rounds, steps):
    runs = scratch
    ours(runs, "f32", steps=1)  # Prepares the text, which both sides then read.
    tokens_file = next(runs.glob(".prepared/**/train.bin"))

    measured = {}
    for round_ in range(rounds):
        for precision in ("f32", "bf16"):
            contenders = {"oss-run": lambda: ours(runs, precision, steps + WARMUP_STEPS)}
            for experts in ("eager", "grouped_mm"):
                contenders[f"transformers, {experts}"] = lambda experts=experts: peer(
                    tokens_file, precision, experts, steps + WARMUP_STEPS
                )
            for name, measure in contenders.items():
                print(f"round {round_ + 1}/{rounds}: {name}, {precision}", file=sys.stderr)
                speeds, peak_bytes = measure()
                speed = statistics.median(speeds[WARMUP_STEPS:])
                measured.setdefault((name, precision), []).append((speed, peak_bytes))

    print(f"\n{'training, 110 M shape':30} {'precision':>9} {'tokens/s':>9} {'peak GB':>8}")
    for (name, precision), results in measured.items():
        speed = statistics.median(speed for speed, _ in results)
        peak_bytes = max(peak for _, peak in results)
        print(f"{name:30} {precision:>9} {speed:9.0f} {peak_bytes / 1e9:8.2f}")


def ours(runs, precision, steps):
    """Tokens a second of each step, and the peak memory in bytes."""
    speeds, _, peak_bytes = program.train("benches/110m.toml", runs, {"train.precision": precision, "train.steps": steps})
    return speeds, peak_bytes


def peer(tokens_file, precision, experts, steps):
    """As `ours`, for transformers."""
    script = REPOSITORY / "benches/peer.py"
    options = ["--precision", precision, "--experts", experts, "--steps", steps]
    output, peak_bytes = call([sys.executable, script, tokens_file, *options])
    return json.loads(output.splitlines()[-1]), peak_bytes


def prepare(scratch, megabytes):
    text = scratch / "text.txt"
    write_text(text, megabytes * 1_000_000)
    runs = scratch / "runs"
    experiment = REPOSITORY / "benches/110m.toml"
    started = time.perf_counter()
    _, peak_bytes = call(
        [PROGRAM, "run", experiment, "--until", "prepare", "--runs-dir", runs]
        + ["--set", f'dataset.files=["{text}"]', "--set", "train.steps=1"]
    )
    seconds = time.perf_counter() - started
    num_tokens = sum(file.stat().st_size for file in runs.glob(".prepared/**/*.bin")) // 4
    text_bytes = text.stat().st_size
    print(f"\nprepare, {text_bytes / 1e6:.0f} MB with o200k_harmony, {os.cpu_count()} cores: ", end="")
    print(f"{num_tokens / seconds:,.0f} tokens/s, {text_bytes / seconds / 1e6:.1f} MB/s, peak {peak_bytes / 1e9:.2f} GB")


def write_text(path, size):
    """Documents of made-up words with the lengths and repetitions of English, the same ones every time."""
    draw = random.Random(0)
    syllables = "an be ca do el fi go ha in jo ke li ma no or pe qu ra si to un ve wi ya zo the ing ed er ly".split()
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(20_000)]
    # Zipf's law: the n-th word comes 1/n as often as the first.
    cumulative = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    documents = []
    for _ in range(2_000):
        sentences = [draw.choices(words, cum_weights=cumulative, k=draw.randint(4, 16)) for _ in range(20)]
        documents.append(" ".join(" ".join(sentence).capitalize() + "." for sentence in sentences))
    # No cache outlives a document in prepare, so the same documents again are as much work as new ones.
    chapter = "".join(f"{document}\n<|endoftext|>\n" for document in documents)
    with path.open("w") as file:
        for _ in range(math.ceil(size / len(chapter))):
            file.write(chapter)


if __name__ == "__main__":
    main()
