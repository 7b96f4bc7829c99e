"""Text to tokens: encoding against tiktoken-rs and the fastest known exact encoder, and the whole prepare stage."""

import itertools
import math
import os
import random
import time

import program

ENCODED_MB = 20


def measure(scratch, prepared_mb):
    encode(scratch)
    prepare(scratch, prepared_mb)


def encode(scratch):
    made_up = scratch / "made-up words"
    write(made_up, ENCODED_MB * 1_000_000)
    result = program.bench("tokenize", made_up)
    threads = result["threads"]
    print(f"\n{'encoding with o200k_harmony':28} {'encoder':>12} {'1 thread MB/s':>14} ", end="")
    print(f"{f'{threads} threads MB/s':>15} {'M tokens/s':>11} {'vs tiktoken-rs':>16}")
    for text in result["texts"]:
        name = os.path.basename(text["name"])
        slowest = text["encoders"][0]["seconds_on_all_threads"]
        for encoder in text["encoders"]:
            one, every = encoder["seconds_on_one_thread"], encoder["seconds_on_all_threads"]
            print(f"{name:28} {encoder['name']:>12} {text['bytes'] / one / 1e6:14.0f} ", end="")
            print(f"{text['bytes'] / every / 1e6:15.0f} {text['tokens'] / every / 1e6:11.1f} {slowest / every:16.1f}")


def prepare(scratch, megabytes):
    text, runs = scratch / "text.txt", scratch / "runs"
    write(text, megabytes * 1_000_000)
    experiment = program.REPOSITORY / "benches/110m.toml"
    started = time.perf_counter()
    _, peak_bytes = program.call(
        [program.PROGRAM, "run", experiment, "--until", "prepare", "--runs-dir", runs]
        + ["--set", f'dataset.files=["{text}"]', "--set", "train.steps=1"]
    )
    seconds = time.perf_counter() - started
    num_tokens = sum(file.stat().st_size for file in runs.glob(".prepared/**/*.bin")) // 4
    text_bytes = text.stat().st_size
    print(f"\nprepare, {text_bytes / 1e6:.0f} MB with o200k_harmony, {os.cpu_count()} cores: ", end="")
    print(f"{num_tokens / seconds:,.0f} tokens/s, {text_bytes / seconds / 1e6:.1f} MB/s, peak {peak_bytes / 1e9:.2f} GB")


def write(path, size):
    """Writes documents of made-up words with the word lengths and frequencies of English; the same ones every time."""
    draw = random.Random(0)
    syllables = "an be ca do el fi go ha in jo ke li ma no or pe qu ra si to un ve wi ya zo the ing ed er ly".split()
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(20_000)]
    # Zipf's law: the n-th word occurs 1/n times as often as the first.
    cumulative = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    documents = []
    for _ in range(2_000):
        sentences = [draw.choices(words, cum_weights=cumulative, k=draw.randint(4, 16)) for _ in range(20)]
        documents.append(" ".join(" ".join(sentence).capitalize() + "." for sentence in sentences))
    chapter = "".join(f"{document}\n<|endoftext|>\n" for document in documents)
    with path.open("w") as file:
        for _ in range(math.ceil(size / len(chapter))):
            file.write(chapter)
