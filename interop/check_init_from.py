"""`model.init_from` reads other programs' directories: bf16, MXFP4 as transformers reads it, and OpenAI's layout."""

import json

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, GptOssConfig, GptOssForCausalLM

import mxfp4
import reference
from check_export import compare


def check(program, report):
    vocabulary = program.export(program.trained)
    tokenizer = AutoTokenizer.from_pretrained(vocabulary)
    original = random_model(len(tokenizer), tokenizer.eos_token_id)
    makers = {"bf16": write_bf16, "bf16 shards": write_shards, "mxfp4": write_mxfp4, "openai": write_openai}
    for name, write in makers.items():
        directory = program.directory / f"init-{name.replace(' ', '-')}"
        directory.mkdir()
        expected = write(directory, original)
        run = program.run(
            f"init_{name.replace(' ', '_')}", model__init_from=f'"{directory}"', train__steps=1,
            dataset__tokenizer=f'"{vocabulary / "tokenizer.json"}"', model__hidden_size=64,
            model__intermediate_size=96, model__num_hidden_layers=2, model__num_attention_heads=4,
            model__num_key_value_heads=2, model__head_dim=32, model__num_local_experts=6,
            model__num_experts_per_tok=3, model__sliding_window=19, schedule__warmup_steps=0,
        )
        exported = reference.load(program.export(run, step=0))
        weights = exported.state_dict()
        different = [key for key, value in expected.state_dict().items() if not torch.equal(value, weights[key])]
        report.same(f"{name}: tensors that differ from those of transformers", different, [])
        compare(program, report, run, expected, tokenizer, tokenizer.eos_token_id, step=0, label=f"{name}: ")


def random_model(vocab_size, end_of_text):
    """A bf16 model with every parameter random and every dimension different."""
    config = GptOssConfig(
        vocab_size=vocab_size, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, num_local_experts=6, num_experts_per_tok=3, sliding_window=19,
        eos_token_id=end_of_text, pad_token_id=end_of_text,
    )
    model = GptOssForCausalLM(config)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if "norm" in name else 0.2 * noise)
    return model.bfloat16()


def write_bf16(directory, model):
    model.save_pretrained(directory)
    return reference.load(directory)


def write_shards(directory, model):
    model.save_pretrained(directory, max_shard_size="100KB")
    assert (directory / "model.safetensors.index.json").exists()
    return reference.load(directory)


def write_mxfp4(directory, model):
    """The released layout: packed experts, everything else bf16."""
    tensors, plain = {}, {}
    for name, weight in model.state_dict().items():
        if name.endswith(("gate_up_proj", "down_proj")):
            # Packed along the input axis: [E, out, in], where the bf16 layout is [E, in, out].
            blocks, scales = mxfp4.quantize(weight.transpose(1, 2))
            tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = blocks, scales
            plain[name] = mxfp4.dequantize(blocks, scales).transpose(1, 2)
        else:
            tensors[name] = weight
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")
    config = json.loads(model.config.to_json_string())
    untouched = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": untouched}
    config["architectures"] = ["GptOssForCausalLM"]
    (directory / "config.json").write_text(json.dumps(config))
    expected = reference.load(directory)
    for name, weight in plain.items():
        assert torch.equal(expected.state_dict()[name], weight), f"the packer and transformers disagree on {name}"
    return expected


def write_openai(directory, model):
    """OpenAI's reference layout: fused q, k and v, packed experts, its own names and config."""
    state = model.state_dict()
    tensors = {
        "embedding.weight": state["model.embed_tokens.weight"],
        "unembedding.weight": state["lm_head.weight"],
        "norm.scale": state["model.norm.weight"],
    }
    packed = {}
    for index in range(model.config.num_hidden_layers):
        theirs, block = f"model.layers.{index}", f"block.{index}"
        for kind in ("weight", "bias"):
            heads = [state[f"{theirs}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            tensors[f"{block}.attn.qkv.{kind}"] = torch.cat(heads)
            tensors[f"{block}.attn.out.{kind}"] = state[f"{theirs}.self_attn.o_proj.{kind}"]
            tensors[f"{block}.mlp.gate.{kind}"] = state[f"{theirs}.mlp.router.{kind}"]
        tensors[f"{block}.attn.sinks"] = state[f"{theirs}.self_attn.sinks"]
        tensors[f"{block}.attn.norm.scale"] = state[f"{theirs}.input_layernorm.weight"]
        tensors[f"{block}.mlp.norm.scale"] = state[f"{theirs}.post_attention_layernorm.weight"]
        for layer, part in (("mlp1", "gate_up_proj"), ("mlp2", "down_proj")):
            name = f"{theirs}.mlp.experts.{part}"
            blocks, scales = mxfp4.quantize(state[name].transpose(1, 2))
            tensors[f"{block}.mlp.{layer}_weight.blocks"] = blocks
            tensors[f"{block}.mlp.{layer}_weight.scales"] = scales
            tensors[f"{block}.mlp.{layer}_bias"] = state[f"{name}_bias"]
            packed[name] = mxfp4.dequantize(blocks, scales).transpose(1, 2)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")
    config = model.config
    (directory / "config.json").write_text(
        json.dumps(
            {
                "num_hidden_layers": config.num_hidden_layers, "num_experts": config.num_local_experts,
                "experts_per_token": config.num_experts_per_tok, "vocab_size": config.vocab_size,
                "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
                "swiglu_limit": 7.0, "head_dim": config.head_dim,
                "num_attention_heads": config.num_attention_heads,
                "num_key_value_heads": config.num_key_value_heads, "sliding_window": config.sliding_window,
                "initial_context_length": 4096, "rope_theta": 150000, "rope_scaling_factor": 32.0,
                "rope_ntk_alpha": 1, "rope_ntk_beta": 32,
            }
        )
    )
    expected = GptOssForCausalLM(config)
    expected.set_attn_implementation("eager")
    expected.load_state_dict({**{name: weight.float() for name, weight in state.items()}, **packed})
    return expected.eval()
