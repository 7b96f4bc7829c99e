"""Speed and memory as experts grow at constant active width, and as sequences grow at constant tokens per step.

Tokens per second are the median over steps; the fastest step is compared with the machine's best rates. The floor of a step is
the time for its matrix products at the machine's best rate, plus 28 bytes per parameter at the rate of a copy: AdamW reads the
weight, the gradient and two moments, and writes the weight and the moments, in f32.
"""

import statistics
import sys

import program

EXPERIMENT = "benches/110m.toml"
EXPERTS = (4, 8, 16, 32, 64)
LENGTHS = (128, 256, 512, 1024, 2048, 4096)
STEP_TOKENS = 4096
OPTIMIZER_BYTES = 28
WARMUP_STEPS = 1


def measure(scratch, rounds, steps):
    measured = {experts: [over_floor(scratch, experts, steps) for _ in range(rounds)] for experts in EXPERTS}
    print(f"\n{'experts, f32, 2 active':24} {'M parameters':>12} {'tokens/s':>9} {'step / floor':>14} ", end="")
    print(f"{'each round':>24} {'peak GB':>8}", flush=True)
    for experts, results in measured.items():
        speed = statistics.median(result["speed"] for result in results)
        # A round's floor and steps are adjacent in time, so that their ratio is robust to changes in the machine's speed.
        ratios = [result["over_floor"] for result in results]
        peak_bytes = max(result["peak_bytes"] for result in results)
        print(f"{experts:24} {results[0]['parameters'] / 1e6:12.0f} {speed:9.0f} {statistics.median(ratios):14.2f} ", end="")
        print(f"{', '.join(f'{ratio:.2f}' for ratio in ratios):>24} {peak_bytes / 1e9:8.2f}", flush=True)

    print(f"\n{f'T, f32, {STEP_TOKENS} tokens per step':24} {'tokens/s':>9} {'of GEMM rate':>12} {'peak GB':>8}", flush=True)
    for length in LENGTHS:
        sequences = STEP_TOKENS // length
        settings = {
            "train.sequence_length": length, "train.global_batch_size": sequences, "train.micro_batch_size": sequences,
        }
        gemm_rate = program.gemm_flops_per_second(program.machine(), "f32")
        speed, best, peak_bytes, planned = train(scratch, settings, min(steps, 3) + WARMUP_STEPS)
        share = planned["flops_per_token"] * best / gemm_rate
        print(f"{length:24} {speed:9.0f} {share:12.0%} {peak_bytes / 1e9:8.2f}", flush=True)


def over_floor(scratch, experts, steps):
    """One round with one number of experts."""
    machine = program.machine()
    speed, best, peak_bytes, planned = train(scratch, {"model.num_local_experts": experts}, steps + WARMUP_STEPS)
    parameters, step_seconds = planned["parameters"]["total"], planned["tokens_per_step"] / best
    flops = planned["flops_per_token"] * planned["tokens_per_step"]
    gemm_seconds = flops / program.gemm_flops_per_second(machine, "f32")
    floor = gemm_seconds + OPTIMIZER_BYTES * parameters / machine["copy_bytes_per_second"]
    return {"speed": speed, "over_floor": step_seconds / floor, "parameters": parameters, "peak_bytes": peak_bytes}


def train(scratch, settings, steps):
    """Median and best tokens per second, peak memory in bytes, and the output of `plan`."""
    print(", ".join(f"{key} = {value}" for key, value in settings.items()), file=sys.stderr)
    planned = program.plan(EXPERIMENT, settings)
    speeds, _, peak_bytes = program.train(EXPERIMENT, scratch, settings | {"train.steps": steps})
    speeds = speeds[WARMUP_STEPS:]
    return statistics.median(speeds), max(speeds), peak_bytes, planned
