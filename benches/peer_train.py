"""Trains the shape of 110m.toml with transformers and torch's AdamW, and prints each step's tokens per second.

usage: python benches/peer_train.py TOKENS_FILE --precision f32|bf16 --experts eager|grouped_mm --steps N

TOKENS_FILE is a `train.bin` written by oss-run, so that both sides train on the same text. Output: one JSON list.
"""

import argparse
import json
import time

import numpy
import torch

import peer_model

BATCH, LENGTH = 4, 128


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tokens_file")
    parser.add_argument("--precision", choices=["f32", "bf16"], required=True)
    parser.add_argument("--experts", choices=["eager", "grouped_mm"], required=True)
    parser.add_argument("--steps", type=int, required=True)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    model = peer_model.build(arguments.precision, arguments.experts).train()
    model.config.use_cache = False
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    speeds = []
    for batch in batches(arguments.tokens_file, arguments.steps):
        started = time.perf_counter()
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        speeds.append(batch.numel() / (time.perf_counter() - started))
    print(json.dumps(speeds))


def batches(tokens_file, steps):
    """Consecutive windows of the text, `[BATCH, LENGTH]` each, wrapping around at its end."""
    tokens = torch.from_numpy(numpy.fromfile(tokens_file, dtype="<u4").astype(numpy.int64))
    windows = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
    for step in range(steps):
        rows = torch.arange(step * BATCH, (step + 1) * BATCH) % len(windows)
        yield windows[rows]


if __name__ == "__main__":
    main()
