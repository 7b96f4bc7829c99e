"""Decodes greedily with transformers' `generate` and its KV cache, and prints tokens per second for each batch size.

usage: python benches/peer_decode.py --precision f32|bf16 --experts eager|grouped_mm --batches 1 8 --tokens N

Prefill is excluded by subtracting the time to generate one token. Output: one JSON object from batch size to tokens per
second.
"""

import argparse
import json
import time

import torch

import peer_model

PROMPT_TOKENS = 16


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", choices=["f32", "bf16"], required=True)
    parser.add_argument("--experts", choices=["eager", "grouped_mm"], required=True)
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    parser.add_argument("--tokens", type=int, required=True, help="tokens per sequence")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    model = peer_model.build(arguments.precision, arguments.experts).eval()
    speeds = {}
    for batch in arguments.batches:
        prompt = torch.randint(0, 199_000, (batch, PROMPT_TOKENS))
        seconds(model, prompt, 4)  # Warm-up.
        took = seconds(model, prompt, arguments.tokens) - seconds(model, prompt, 1)
        speeds[batch] = batch * (arguments.tokens - 1) / took
    print(json.dumps(speeds))


@torch.no_grad()
def seconds(model, prompt, tokens):
    started = time.perf_counter()
    model.generate(prompt, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
