"""Greedy decoding of the 110 M shape against transformers' `generate`, and the fraction of the memory bandwidth.

Prefill is excluded on both sides. Tokens per second are the median of several runs; the fastest run is compared with the best
rate at which the machine read memory just before. One token reads every weight except the embedding and the inactive experts; a
batch is counted as reading all experts once per step. int8 weights are compared with transformers in bf16, which has no int8.
"""

import json
import statistics
import sys

import program

EXPERIMENT = "benches/110m.toml"
PRECISIONS = ("f32", "bf16")
# How weights are stored: precision of the run and of transformers, bytes per weight.
WEIGHTS = {"f32": ("f32", 4), "bf16": ("bf16", 2), "int8": ("bf16", 1)}
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
        theirs = {}
        for weights, (precision, weight_bytes) in WEIGHTS.items():
            print(f"round {round_ + 1}/{rounds}: {weights}", file=sys.stderr)
            if precision not in theirs:
                theirs[precision] = [peer(precision, experts) for experts in EXPERTS]
            for batch in BATCHES:
                bandwidth = program.machine()["read_bytes_per_second"]
                speeds = [ours(scratch, precision, weights, batch) for _ in range(RUNS)]
                speed = statistics.median(speeds)
                peer_speed = max(speeds[str(batch)] for speeds in theirs[precision])
                read = parameters["active"] if batch == 1 else parameters["total"] - parameters["embedding"]
                share = max(speeds) / batch * read * weight_bytes / bandwidth
                measured.setdefault((weights, batch), []).append((speed, peer_speed, speed / peer_speed, share))

    print(f"\n{'greedy decoding, 110 M shape':28} {'batch':>5} {'tokens/s':>9} {'transformers':>12} {'ratio':>6} ", end="")
    print(f"{'bandwidth':>12}", flush=True)
    for (weights, batch), results in measured.items():
        speed, peer_speed, ratio, share = (statistics.median(column) for column in zip(*results))
        print(f"{weights:28} {batch:5} {speed:9.1f} {peer_speed:12.1f} {ratio:6.2f} {share:12.0%}", flush=True)


def ours(runs, run, weights, batch):
    """Tokens per second over the whole batch."""
    options = ["--greedy", "--max-new-tokens", TOKENS, "--num-samples", batch, "--weights", weights]
    options += ["--json", "--runs-dir", runs]
    output, _ = program.call([program.PROGRAM, "sample", run, "--prompt", PROMPT, *options])
    result = json.loads(output)
    new_tokens = sum(len(sample["tokens"]) - 1 for sample in result["samples"])
    return new_tokens / result["decoding_seconds"]


def peer(precision, experts):
    """Tokens per second by batch size."""
    script = program.REPOSITORY / "benches/peer_decode.py"
    options = ["--precision", precision, "--experts", experts, "--tokens", TOKENS, "--batches", *BATCHES]
    output, _ = program.call([sys.executable, script, *options])
    return json.loads(output.splitlines()[-1])
