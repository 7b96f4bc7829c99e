"""Writes tests/golden/mxfp4/: the released layouts in miniature, and what transformers reads from them.

    python crates/oss-train/tests/golden/make_mxfp4.py          (needs torch, transformers and safetensors)

huggingface/           a two-layer model with expert matrices in MXFP4, named as in the released weights
openai/                the same model in OpenAI's own layout (fused q, k, v; mlp1, mlp2)
expected.safetensors   its bf16 tensors, as dequantized and named by transformers
table.safetensors      every code with every finite scale, and the values that transformers gives it
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import GptOssConfig, GptOssForCausalLM, Mxfp4Config
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

FOLDER = pathlib.Path(__file__).parent / "mxfp4"
LAYERS, D, F, E, H, K, C, V = 2, 32, 64, 2, 2, 1, 8, 24
BF16 = torch.bfloat16


def packed(generator, out_width, in_width):
    """Random blocks [E, out, in/32, 16] and scales [E, out, in/32] of moderate size."""
    groups = in_width // 32
    blocks = torch.randint(0, 256, (E, out_width, groups, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(118, 124, (E, out_width, groups), generator=generator, dtype=torch.uint8)
    return blocks, scales


def main():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator).mul(0.3).to(BF16)

    huggingface = {
        "model.embed_tokens.weight": normal(V, D),
        "model.norm.weight": normal(D),
        "lm_head.weight": normal(V, D),
    }
    openai = {
        "embedding.weight": huggingface["model.embed_tokens.weight"],
        "norm.scale": huggingface["model.norm.weight"],
        "unembedding.weight": huggingface["lm_head.weight"],
    }
    for n in range(LAYERS):
        layer, block = f"model.layers.{n}", f"block.{n}"
        same = {
            "input_layernorm.weight": ("attn.norm.scale", normal(D)),
            "self_attn.sinks": ("attn.sinks", normal(H)),
            "self_attn.o_proj.weight": ("attn.out.weight", normal(D, H * C)),
            "self_attn.o_proj.bias": ("attn.out.bias", normal(D)),
            "post_attention_layernorm.weight": ("mlp.norm.scale", normal(D)),
            "mlp.router.weight": ("mlp.gate.weight", normal(E, D)),
            "mlp.router.bias": ("mlp.gate.bias", normal(E)),
            "mlp.experts.gate_up_proj_bias": ("mlp.mlp1_bias", normal(E, 2 * F)),
            "mlp.experts.down_proj_bias": ("mlp.mlp2_bias", normal(E, D)),
        }
        for name, (theirs, tensor) in same.items():
            huggingface[f"{layer}.{name}"] = tensor
            openai[f"{block}.{theirs}"] = tensor
        for part, shape in (("weight", (D,)), ("bias", ())):
            rows = {"q": H * C, "k": K * C, "v": K * C}
            pieces = {name: normal(count, *shape) for name, count in rows.items()}
            for name, piece in pieces.items():
                huggingface[f"{layer}.self_attn.{name}_proj.{part}"] = piece
            openai[f"{block}.attn.qkv.{part}"] = torch.cat(list(pieces.values()))
        for name, theirs, out_width, in_width in (
            ("gate_up_proj", "mlp1_weight", 2 * F, D),
            ("down_proj", "mlp2_weight", D, F),
        ):
            blocks, scales = packed(generator, out_width, in_width)
            huggingface[f"{layer}.mlp.experts.{name}_blocks"] = blocks
            huggingface[f"{layer}.mlp.experts.{name}_scales"] = scales
            openai[f"{block}.mlp.{theirs}.blocks"] = blocks
            openai[f"{block}.mlp.{theirs}.scales"] = scales

    config = GptOssConfig(
        num_hidden_layers=LAYERS, hidden_size=D, intermediate_size=F, num_local_experts=E, num_experts_per_tok=1,
        num_attention_heads=H, num_key_value_heads=K, head_dim=C, vocab_size=V, sliding_window=8, dtype=BF16,
        architectures=["GptOssForCausalLM"], quantization_config={"quant_method": "mxfp4"},
    )
    (FOLDER / "huggingface").mkdir(parents=True, exist_ok=True)
    (FOLDER / "openai").mkdir(exist_ok=True)
    config.save_pretrained(FOLDER / "huggingface")
    save_file(huggingface, FOLDER / "huggingface" / "model.safetensors", {"format": "pt"})
    theirs = dict(
        num_hidden_layers=LAYERS, num_experts=E, experts_per_token=1, vocab_size=V, hidden_size=D,
        intermediate_size=F, swiglu_limit=7.0, head_dim=C, num_attention_heads=H, num_key_value_heads=K,
        sliding_window=8, initial_context_length=4096, rope_theta=150000, rope_scaling_factor=32.0,
        rope_ntk_alpha=1, rope_ntk_beta=32,
    )
    (FOLDER / "openai" / "config.json").write_text(json.dumps(theirs, indent=2) + "\n")
    save_file(openai, FOLDER / "openai" / "model.safetensors")

    model, info = GptOssForCausalLM.from_pretrained(
        FOLDER / "huggingface", quantization_config=Mxfp4Config(dequantize=True), dtype=BF16,
        output_loading_info=True,
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    expected = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(expected, FOLDER / "expected.safetensors")

    codes = torch.arange(16, dtype=torch.uint8)
    row = torch.cat([codes[0::2] | codes[1::2] << 4] * 2)
    scales = torch.arange(255, dtype=torch.uint8).reshape(1, 255, 1)
    blocks = row.expand(1, 255, 1, 16).contiguous()
    dense = convert_moe_packed_tensors(blocks, scales)
    save_file({"blocks": blocks, "scales": scales, "dense": dense}, FOLDER / "table.safetensors")

    for path in FOLDER.rglob("*.safetensors"):
        path.chmod(0o644)


if __name__ == "__main__":
    main()
