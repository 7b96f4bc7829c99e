"""Training the 110 M shape against transformers: tokens per second, peak memory, and the fraction of the machine's GEMM rate. The
last line sums it up like README does, for this machine.

Tokens per second are the median over steps. The model's FLOPs are those counted by `plan`, without recomputation. The fraction is
the fastest step's rate over the best rate that a 2048 x 2048 matrix product reached in one second just before, with any
library: the best of both, since other VMs on the host slow some of each.
"""

import json
import os
import statistics
import sys

import program

EXPERIMENT = "benches/110m.toml"
PRECISIONS = ("f32", "bf16")
EXPERTS = ("eager", "grouped_mm")
OURS = "oss-run"
PEER = "transformers"


def measure(scratch, rounds, steps, warmup_steps):
    ours(scratch, "f32", steps=1)  # Prepares the text that both sides read.
    tokens_file = next(scratch.glob(".prepared/**/train.bin"))

    measured, gemm_rates = {}, {}
    for round_ in range(rounds):
        for precision in PRECISIONS:
            machine = program.machine()
            gemm_rate = program.gemm_flops_per_second(machine, precision)
            gemm_rates.setdefault(precision, []).append(gemm_rate)
            flops_per_token = program.plan(EXPERIMENT, {"train.precision": precision})["flops_per_token"]
            contenders = {
                OURS: lambda: ours(scratch, precision, steps + warmup_steps),
                f"{OURS}, muon": lambda: ours(scratch, precision, steps + warmup_steps, {"optimizer.kind": "muon"}),
            }
            if precision == "bf16":
                # Like transformers' model and optimizer state.
                narrow = {"train.param_dtype": "bf16", "optimizer.state_dtype": "bf16"}
                contenders[f"{OURS}, all in bf16"] = lambda: ours(scratch, precision, steps + warmup_steps, narrow)
            for experts in EXPERTS:
                contenders[f"{PEER}, {experts}"] = lambda experts=experts: peer(
                    tokens_file, precision, experts, steps + warmup_steps
                )
            for name, run in contenders.items():
                print(f"round {round_ + 1}/{rounds}: {name}, {precision}", file=sys.stderr)
                speeds, peak_bytes = run()
                speeds = speeds[warmup_steps:]
                share = max(speeds) * flops_per_token / gemm_rate
                speed = statistics.median(speeds)
                measured.setdefault(precision, {}).setdefault(name, []).append((speed, share, peak_bytes))

    print(f"\n{'training, 110 M shape':26} {'precision':>9} {'tokens/s':>9} {'speedup':>12} ", end="")
    print(f"{'of GEMM rate':>12} {'peak GB':>8}")
    for precision, contenders in measured.items():
        for name, results in contenders.items():
            speed = statistics.median(speed for speed, _, _ in results)
            ratio = speedup(contenders[OURS], results)
            share = statistics.median(share for _, share, _ in results)
            peak_bytes = max(peak for _, _, peak in results)
            print(f"{name:26} {precision:>9} {speed:9.0f} {ratio:12.2f} {share:12.0%} {peak_bytes / 1e9:8.2f}")
    show_machine(machine)
    print(f"\n{summary(measured, gemm_rates)}", flush=True)


def speedup(ours, theirs):
    """Each round's runs are adjacent in time, so that the ratio is robust to changes in the machine's speed."""
    return statistics.median(mine[0] / other[0] for mine, other in zip(ours, theirs, strict=True))


def summary(measured, gemm_rates):
    """One sentence: the speedup over the faster of the peer's implementations, and the rates that it depends on."""
    speedups = []
    for precision, contenders in measured.items():
        peers = [results for name, results in contenders.items() if name.startswith(PEER)]
        speedups.append(f"{min(speedup(contenders[OURS], results) for results in peers):.2f} x ({precision})")
    rates = [f"{statistics.median(rates) / 1e9:.0f}" for rates in gemm_rates.values()]
    return (
        f"oss-run trains at {' and '.join(speedups)} the speed of {PEER} on this machine, with "
        f"{len(os.sched_getaffinity(0))} CPU cores and GEMM rates of {' and '.join(rates)} GFLOP/s."
    )


def ours(scratch, precision, steps, settings=None):
    """Each step's tokens per second, and the peak memory in bytes."""
    values = {"train.precision": precision, "train.steps": steps} | (settings or {})
    speeds, _, peak_bytes = program.train(EXPERIMENT, scratch, values)
    return speeds, peak_bytes


def peer(tokens_file, precision, experts, steps):
    """Like `ours`, for transformers."""
    script = program.REPOSITORY / "benches/peer_train.py"
    options = ["--precision", precision, "--experts", experts, "--steps", steps]
    output, peak_bytes = program.call([sys.executable, script, tokens_file, *options])
    return json.loads(output.splitlines()[-1]), peak_bytes


def show_machine(machine):
    for precision, libraries in machine["gemm_flops_per_second"].items():
        rates = ", ".join(f"{rate / 1e9:.0f} by {library}" for library, rate in libraries.items())
        print(f"GEMM, 2048^3, {precision}: {rates} GFLOP/s")
    read, copy = machine["read_bytes_per_second"], machine["copy_bytes_per_second"]
    print(f"memory: {read / 1e9:.0f} GB/s read, {copy / 1e9:.0f} GB/s copied (read and written)", flush=True)
