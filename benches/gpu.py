"""Trains the 20B shape with fewer layers on one GPU, against transformers, in less than 8 minutes; builds nothing.

    make bench-gpu
    python benches/gpu.py [--program PATH] [--layers N] [--rehearse]

Parity first: the losses of three steps of the tiny preset in f32 must agree within 1e-4 between the CPU and the GPU. Then
tokens per second of both sides on the same text, T = 4096, bf16, and the fraction of the GPU's rate: the model's FLOPs,
without recomputation, over those of a bf16 matrix product measured in the same minutes. Needs a Python with torch; the
comparison is skipped without transformers. `--rehearse` does the same on a CPU, with a tiny model.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
LARGEST_DIFFERENCE = 1e-4
PARITY_STEPS = 3
STEPS, WARMUP_STEPS = 8, 3
# Enough text for every step, tokenized with the shape's vocabulary.
DATA = {"dataset.builtin": "stories", "dataset.tokenizer": "o200k_harmony"}
SCHEDULE = {"schedule.kind": "constant", "schedule.warmup_steps": 0, "evaluate.every_steps": 0}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=Path, default=REPOSITORY / "target/release/oss-run")
    parser.add_argument("--layers", type=int, default=4, help="layers of the 20B shape (24 in the model)")
    parser.add_argument("--sequences", type=int, default=2, help="sequences of 4096 tokens per step")
    parser.add_argument("--rehearse", action="store_true", help="a tiny model on the CPU, to try the script")
    arguments = parser.parse_args()
    if not arguments.program.exists():
        parser.error(f"{arguments.program} does not exist; build it, or pass its path with --program")
    device = "cpu" if arguments.rehearse else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU; run this on a machine with one, or try it with --rehearse")

    with tempfile.TemporaryDirectory(prefix="bench-gpu-", dir=REPOSITORY / "target") as directory:
        runs = Path(directory)
        check_parity(arguments.program, runs, device)
        model, length = shape(arguments)
        compare(arguments, runs, device, model, length)


def shape(arguments):
    """Fields of `[model]`, by their Hugging Face names, and the sequence length."""
    if arguments.rehearse:
        return {"preset": "tiny"}, 128
    return {"preset": "20b", "num_hidden_layers": arguments.layers}, 4096


def check_parity(program, runs, device):
    settings = DATA | SCHEDULE | {
        "dataset.tokenizer": {"train": 512}, "model.preset": "tiny", "train.global_batch_size": 2,
        "train.sequence_length": 64, "train.precision": "f32",
    }
    losses = [
        [line["loss"] for line in train(program, runs, settings | {"train.device": where}, PARITY_STEPS)]
        for where in ("cpu", device)
    ]
    difference = max(abs(a - b) for a, b in zip(*losses))
    print(f"parity: losses over 3 steps in f32 differ by {difference:.1e} between cpu and {device}", flush=True)
    if difference > LARGEST_DIFFERENCE:
        sys.exit(f"error: the difference exceeds {LARGEST_DIFFERENCE:.0e}: {losses}; nothing was timed")


def compare(arguments, runs, device, model, length):
    settings = DATA | SCHEDULE | {f"model.{key}": value for key, value in model.items()} | {
        "train.global_batch_size": arguments.sequences, "train.micro_batch_size": arguments.sequences,
        "train.sequence_length": length, "train.precision": "bf16", "train.device": device,
    }
    planned = json.loads(call(arguments.program, "plan", experiment(runs, settings), "--json"))
    rate = gemm_flops_per_second(device)
    print(f"\nGEMM, bf16: {rate / 1e12:.1f} TFLOP/s; {planned['parameters']['total'] / 1e9:.2f} B parameters, T = {length}")
    lines = train(arguments.program, runs, settings, STEPS + WARMUP_STEPS)[WARMUP_STEPS:]
    measured = {"oss-run": statistics.median(line["tokens_per_second"] for line in lines)}
    try:
        import transformers
    except ImportError:
        print("transformers is not installed, skipping the comparison; to include it: pip install transformers accelerate")
    else:
        tokens_file = max(runs.glob(".prepared/**/train.bin"), key=lambda file: file.stat().st_mtime)
        resolved = planned["experiment"]["model"]
        for experts in ("grouped_mm", "eager"):
            name = f"transformers, {experts}"
            try:
                measured[name] = peer(transformers, resolved, tokens_file, device, arguments.sequences, length, experts)
            except torch.OutOfMemoryError:
                print(f"{name}: out of memory with {arguments.sequences} sequences per step; try --sequences 1")
            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()
    print(f"{'training':26} {'tokens/s':>9} {'of GEMM rate':>12} {'speedup':>12}")
    for name, speed in measured.items():
        share = planned["flops_per_token"] * speed / rate
        print(f"{name:26} {speed:9.0f} {share:12.1%} {measured['oss-run'] / speed:12.2f}")


def gemm_flops_per_second(device):
    """The best rate of a bf16 matrix product."""
    size, best = (8192, 0.0) if device == "cuda" else (1024, 0.0)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(20):
        synchronize(device)
        started = time.perf_counter()
        for _ in range(4):
            torch.matmul(a, b)
        synchronize(device)
        best = max(best, 4 * 2 * size**3 / (time.perf_counter() - started))
    return best


def peer(transformers, model, tokens_file, device, sequences, length, experts):
    """Tokens per second of transformers with torch's fused AdamW, with bf16 weights and optimizer state."""
    fields = transformers.GptOssConfig().to_dict().keys() & model.keys()
    config = transformers.GptOssConfig(**{field: model[field] for field in fields if model[field] is not None})
    torch.manual_seed(0)
    with torch.device(device):
        net = transformers.GptOssForCausalLM._from_config(
            config, dtype=torch.bfloat16, attn_implementation="eager", experts_implementation=experts
        ).train()
    net.config.use_cache = False
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    tokens = torch.from_numpy(numpy.fromfile(tokens_file, dtype="<u4").astype(numpy.int64))
    windows = tokens[: len(tokens) // length * length].view(-1, length)
    speeds = []
    for step in range(STEPS + WARMUP_STEPS):
        batch = windows[torch.arange(step * sequences, (step + 1) * sequences) % len(windows)].to(device)
        synchronize(device)
        started = time.perf_counter()
        net(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize(device)
        speeds.append(batch.numel() / (time.perf_counter() - started))
    return statistics.median(speeds[WARMUP_STEPS:])


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def train(program, runs, settings, num_lines):
    """The first `num_lines` lines of the run's metrics with a loss. The run is then killed, because its checkpoint would be
    tens of GB."""
    before = set(runs.glob("*/*/metrics.jsonl"))
    settings |= {"train.steps": 100_000, "log.every_steps": 1, "checkpoint.every_steps": 100_000}
    options = ["--new", "--until", "train", "--runs-dir", runs]
    process = subprocess.Popen([program, "run", experiment(runs, settings), *options], stdout=subprocess.DEVNULL)
    lines = []
    while len(lines) < num_lines and process.poll() is None:
        time.sleep(0.1)
        for metrics in set(runs.glob("*/*/metrics.jsonl")) - before:
            # The last line may be incomplete.
            complete = metrics.read_text().split("\n")[:-1]
            lines = [line for line in map(json.loads, complete) if "loss" in line]
    if process.poll() is not None:
        sys.exit(f"error: oss-run exited with status {process.returncode} after {len(lines)} steps; see above")
    process.kill()
    process.wait()
    return lines[:num_lines]


def experiment(runs, settings):
    """Writes `settings` as an experiment file with dotted keys."""
    def toml(value):
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{key} = {toml(entry)}" for key, entry in value.items()) + " }"
        return json.dumps(value)

    path = runs / "experiment.toml"
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in settings.items()))
    return path


def call(*command):
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if result.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))} exited with status {result.returncode}; see above")
    return result.stdout


if __name__ == "__main__":
    main()
