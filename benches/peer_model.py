"""The shape of 110m.toml in transformers."""

import torch
from transformers import GptOssConfig, GptOssForCausalLM


def build(precision, experts):
    """Random weights; `experts` is the expert implementation, eager or grouped_mm."""
    config = GptOssConfig(
        hidden_size=256,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=32,
        num_local_experts=4,
        num_experts_per_tok=2,
        intermediate_size=256,
        vocab_size=201088,
        sliding_window=64,
    )
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
    # `eager` is the only attention implementation in transformers that supports sinks on a CPU.
    return GptOssForCausalLM._from_config(
        config, dtype=dtype, attn_implementation="eager", experts_implementation=experts
    )
