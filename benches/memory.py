"""Compares a rank's peak memory with `plan`'s estimate."""

import sys

import program

RANKS = (1, 2, 4)
PRECISIONS = ("f32", "bf16")
STEPS = 3
MODEL = "benches/memory.toml"
# The baseline of a process without a model: the same experiment with everything as small as possible.
NO_MODEL = {
    "model.hidden_size": 32, "model.intermediate_size": 32, "model.num_hidden_layers": 1, "train.sequence_length": 16,
}


def measure(scratch):
    print(f"{'fsdp':>5} {'precision':>9} {'baseline MB':>12} {'above it MB':>12} {'plan MB':>8} ", end="")
    print(f"{'ratio':>6} {'sharded part MB':>17}")
    for precision in PRECISIONS:
        for ranks in RANKS:
            values = {"sharding.strategy": "fsdp", "sharding.ranks": ranks, "train.precision": precision}
            print(f"{ranks} ranks, {precision}", file=sys.stderr)
            steps = {"train.steps": STEPS}
            *_, baseline = program.train(MODEL, scratch, values | steps | NO_MODEL)
            *_, peak = program.train(MODEL, scratch, values | steps)
            memory = program.plan(MODEL, values)["memory"]
            above, planned = peak - baseline, memory["total"]
            print(f"{ranks:5} {precision:>9} {baseline / 1e6:12.0f} {above / 1e6:12.0f} {planned / 1e6:8.0f} ", end="")
            print(f"{above / planned:6.2f} {memory['state'] / 1e6:17.0f}", flush=True)
