"""Greedy decoding of the 110 M shape beside transformers' `generate`, and the share of the memory's bandwidth.

Reading the prompt is left out on both sides. Tokens a second are the median of some runs; the best of them is held to the best
rate at which the machine read memory just before. A token reads every weight but the embedding, of the experts the active ones; a
batch is counted as if it read all of them once a step.
"""

import json
import statistics
import sys

import program

EXPERIMENT = "benches/110m.toml"
PRECISIONS = {"f32": 4, "bf16": 2}
BATCHES = (1, 8)
TOKENS = 257
RUNS = 3
EXPERTS = ("eager", "grouped_mm")
PROMPT = "One day, a little girl named Lily found a needle in her room. She knew it was"


def measure(scratch, rounds):
    for precision in PRECISIONS:
        settings = {"train.precision": precision, "train.steps": 1, "run.name": precision}
        program.train(EXPERIMENT, scratch, settings, keep=True)
    parameters = program.plan(EXPERIMENT, {})["parameters"]
    measured = {}
    for round_ in range(rounds):
        for precision, weight_bytes in PRECISIONS.items():
            print(f"round {round_ + 1}/{rounds}: {precision}", file=sys.stderr)
            theirs = [peer(precision, experts) for experts in EXPERTS]
            for batch in BATCHES:
                bandwidth = program.machine()["read_bytes_per_second"]
                speeds = [ours(scratch, precision, batch) for _ in range(RUNS)]
                speed = statistics.median(speeds)
                peer_speed = max(speeds[str(batch)] for speeds in theirs)
                read = parameters["active"] if batch == 1 else parameters["total"] - parameters["embedding"]
                share = max(speeds) / batch * read * weight_bytes / bandwidth
                measured.setdefault((precision, batch), []).append((speed, peer_speed, speed / peer_speed, share))

    print(f"\n{'greedy decoding, 110 M shape':28} {'batch':>5} {'tokens/s':>9} {'transformers':>12} {'ratio':>6} ", end="")
    print(f"{'of bandwidth':>12}", flush=True)
    for (precision, batch), results in measured.items():
        speed, peer_speed, ratio, share = (statistics.median(column) for column in zip(*results))
        print(f"{precision:28} {batch:5} {speed:9.1f} {peer_speed:12.1f} {ratio:6.2f} {share:12.0%}", flush=True)


def ours(runs, run, batch):
    """Tokens a second of the batch."""
    options = ["--greedy", "--max-new-tokens", TOKENS, "--num-samples", batch, "--json", "--runs-dir", runs]
    output, _ = program.call([program.PROGRAM, "sample", run, "--prompt", PROMPT, *options])
    result = json.loads(output)
    new_tokens = sum(len(sample["tokens"]) - 1 for sample in result["samples"])
    return new_tokens / result["decoding_seconds"]


def peer(precision, experts):
    """From batch size to tokens a second."""
    script = program.REPOSITORY / "benches/peer_decode.py"
    options = ["--precision", precision, "--experts", experts, "--tokens", TOKENS, "--batches", *BATCHES]
    output, _ = program.call([sys.executable, script, *options])
    return json.loads(output.splitlines()[-1])
