"""The cost of sharding on two CPU ranks with one thread each: fsdp against ddp, in speed and bytes sent."""

import statistics
import subprocess
import sys

import program

EXPERIMENT = "benches/110m.toml"
RANKS = 2
PRECISIONS = ("f32", "bf16")
STRATEGIES = ("ddp", "fsdp")
# In a network namespace, the loopback interface carries only this program's traffic. Its counters follow the output.
SHOW_COUNTERS = 'ip link set lo up && "$@" && cat /proc/net/dev'
OWN_NETWORK = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", SHOW_COUNTERS, "sh"]
SHARED_NETWORK = ["sh", "-c", '"$@" && cat /proc/net/dev', "sh"]


def measure(scratch, rounds, steps, warmup_steps):
    own_network = subprocess.run([*OWN_NETWORK, "true"], capture_output=True).returncode == 0
    if not own_network:
        print("cannot create a network namespace: other traffic on loopback is counted too", file=sys.stderr)
    program.train(EXPERIMENT, scratch, settings("ddp", "f32") | {"train.steps": 1})  # Prepares the text.

    measured = {}
    for round_ in range(rounds):
        for precision in PRECISIONS:
            for strategy in STRATEGIES:
                print(f"round {round_ + 1}/{rounds}: {strategy}, {precision}", file=sys.stderr)
                num_steps = steps + warmup_steps
                values = settings(strategy, precision) | {"train.steps": num_steps}
                within = OWN_NETWORK if own_network else SHARED_NETWORK
                sent_before = 0 if own_network else sent_over_loopback(open("/proc/net/dev").read())
                speeds, output, _ = program.train(EXPERIMENT, scratch, values, within)
                sent_bytes = (sent_over_loopback(output) - sent_before) / num_steps / RANKS
                speed = statistics.median(speeds[warmup_steps:])
                measured.setdefault((precision, strategy), []).append((speed, sent_bytes))

    print(f"\n{'110 M shape, 2 ranks x 1 thread':34} {'tokens/s':>9} {'vs ddp':>7} ", end="")
    print(f"{'MB sent per step, rank':>24} {'plan':>8}")
    for (precision, strategy), results in measured.items():
        speed, sent_bytes = (statistics.median(column) for column in zip(*results))
        # Each round's two runs are adjacent in time, so that the ratio is robust to changes in the machine's speed.
        pairs = zip(results, measured[precision, "ddp"])
        ratio = statistics.median(speed / ddp_speed for (speed, _), (ddp_speed, _) in pairs)
        counted = program.plan(EXPERIMENT, settings(strategy, precision))["traffic"]["total"]
        print(f"{strategy + ', ' + precision:34} {speed:9.0f} {ratio:7.2f} {sent_bytes / 1e6:24.1f} {counted / 1e6:8.1f}")


def settings(strategy, precision):
    return {
        "sharding.strategy": strategy, "sharding.ranks": RANKS, "train.micro_batch_size": 2, "train.threads": 1,
        "train.precision": precision,
    }


def sent_over_loopback(counters):
    """Bytes sent, from the text of /proc/net/dev: the ninth number after the interface's name."""
    (line,) = [line for line in counters.splitlines() if line.strip().startswith("lo:")]
    return int(line.split(":")[1].split()[8])
