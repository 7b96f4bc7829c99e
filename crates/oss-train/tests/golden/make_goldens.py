"""Writes the reference values that `tests/numerics.rs` compares oss-run with.

    python -m venv .venv-golden && .venv-golden/bin/pip install torch==2.11.0 transformers==5.23.0 safetensors
    .venv-golden/bin/python crates/oss-train/tests/golden/make_goldens.py

All values come from Hugging Face's GptOssForCausalLM (eager attention, eager experts) and torch's AdamW, on tiny models
with random weights. The weights are f32; everything computed from them is computed in f64 and then rounded to f32, so
that the reference is more accurate than the f32 implementation under test. (transformers computes the norms in f32
whatever the model's dtype; here they are in f64, too. Its rotary angles stay f32, because they are part of the model's
definition.) The script also runs the unmodified transformers in f32 and prints its distance from the reference.

A reference is useless where rounding decides the outcome: at a tie between two experts, at the edge of a clamp, or at a
tie between the two most likely tokens. Each case therefore uses the first seed that stays clear of all of these.

Files, all beside this script:

    <case>.safetensors  metadata "case", JSON: config (as in config.json), optionally separator (see below); and
        weight/<name>            parameters under their Hugging Face names
        input_ids, targets       [B, T] int64; the targets are random, not the shifted inputs
        logits, loss             [B, T, V]; mean negative log-likelihood over all B*T predictions
        gradient/<name>          gradient of the loss, every parameter
        balance                  [layers]: load_balancing_loss_func of each layer's router logits alone
        balance_gradient/<name>  gradient of the mean of `balance`, every parameter that has one
        greedy.N/prompt, greedy.N/tokens   prompts and the tokens that greedy decoding adds (some cases)
      With a separator, a token sees only its own document, and every separator opens one: in the data it closes the
      document before it, but the first token of the next document is predicted from it alone.
    adamw.safetensors   metadata "case", JSON: config and optimizer; and
        weight/<name>, input_ids and targets [steps, B, T],
        losses and gradient_norms (before clipping) [steps], final/<name>
    yarn.json           rotary frequencies and attention factors of several shapes
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GptOssConfig, GptOssForCausalLM
from transformers import logging as transformers_logging
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRMSNorm, load_balancing_loss_func

HERE = Path(__file__).resolve().parent

# Minimum distances from a decision that rounding could flip.
ROUTING_MARGIN = 2e-4
CLAMP_MARGIN = 1e-5
GREEDY_MARGIN = 2e-3


@dataclass
class Case:
    """One tiny model and its inputs."""

    name: str
    config: dict
    batch: int
    time: int
    prompts: tuple[int, ...] = ()
    documents: bool = False
    steps: int = 0
    scale: dict = field(default_factory=dict)


ROPE = dict(rope_type="yarn", factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False, rope_theta=150000.0)

CASES = [
    # H = 4K, H*C != D, F != D; the middle of three layers sees everything.
    Case(
        "grouped",
        dict(
            vocab_size=53, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=1,
            head_dim=8, num_local_experts=5, num_experts_per_tok=2, intermediate_size=20, sliding_window=7,
            swiglu_limit=7.0, rope_parameters=dict(ROPE, original_max_position_embeddings=4096),
        ),
        batch=2, time=37, prompts=(10, 13), scale={"gate_up_proj": 0.9},
    ),
    # H = K; a short original context, so that both ends of the YaRN ramp are inside the head and the text.
    Case(
        "ungrouped",
        dict(
            vocab_size=61, hidden_size=20, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3,
            head_dim=16, num_local_experts=8, num_experts_per_tok=4, intermediate_size=12, sliding_window=5,
            swiglu_limit=2.5,
            rope_parameters=dict(ROPE, factor=4.0, rope_theta=10000.0, original_max_position_embeddings=64),
        ),
        batch=2, time=41, prompts=(10,),
    ),
    # Odd widths everywhere, one expert per token (its router gets no gradient), full attention first.
    Case(
        "odd",
        dict(
            vocab_size=47, hidden_size=27, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
            head_dim=6, num_local_experts=3, num_experts_per_tok=1, intermediate_size=13, sliding_window=11,
            swiglu_limit=3.0, layer_types=["full_attention", "sliding_attention", "sliding_attention"],
            rope_parameters=dict(ROPE, original_max_position_embeddings=4096),
        ),
        batch=3, time=29,
    ),
    # Several documents in one window; three of four experts per token.
    Case(
        "documents",
        dict(
            vocab_size=31, hidden_size=22, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            head_dim=10, num_local_experts=4, num_experts_per_tok=3, intermediate_size=18, sliding_window=6,
            swiglu_limit=4.0, rope_parameters=dict(ROPE, original_max_position_embeddings=4096),
        ),
        batch=2, time=43, documents=True,
    ),
    Case(
        "adamw",
        dict(
            vocab_size=43, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            head_dim=8, num_local_experts=4, num_experts_per_tok=2, intermediate_size=20, sliding_window=9,
            swiglu_limit=7.0, rope_parameters=dict(ROPE, original_max_position_embeddings=4096),
        ),
        batch=2, time=23, steps=5,
    ),
]

OPTIMIZER = dict(lr=3e-3, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.1, max_grad_norm=0.5)


class TooClose(Exception):
    """With this seed, a decision depends on rounding."""


def main():
    transformers_logging.set_verbosity_error()  # it warns about tiny shapes
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for case in CASES:
        tensors, description, notes = first_clear_seed(case)
        path = HERE / f"{case.name}.safetensors"
        # A single entry, because safetensors writes several in no fixed order.
        save_file(tensors, path, metadata={"case": json.dumps(description)})
        path.chmod(0o644)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
        for note in notes:
            print(f"    {note}")
    (HERE / "yarn.json").write_text(json.dumps(yarn(), indent=1) + "\n")


def first_clear_seed(case):
    for seed in range(1000):
        try:
            tensors, description, notes = adamw(case, seed) if case.steps else gradients(case, seed)
        except TooClose:
            continue
        return tensors, description, [f"seed {seed}", *notes]
    raise SystemExit(f"{case.name}: no seed stays clear of ties; reduce the margins or the size of the case")


def gradients(case, seed):
    """Logits, loss, balancing loss and all gradients of one case."""
    model, generator = random_model(case, seed)
    config = model.config
    ids = torch.randint(config.vocab_size, (case.batch, case.time), generator=generator)
    targets = torch.randint(config.vocab_size, (case.batch, case.time), generator=generator)
    description = {"config": config_json(config)}
    masks = None
    if case.documents:
        separator = config.vocab_size - 1
        for row, at in [(0, 0), (0, 12), (0, 13), (0, 30), (1, 25), (1, case.time - 1)]:
            ids[row, at] = separator
        masks = document_masks(ids, separator, config.sliding_window)
        description["separator"] = separator
    weights = named(model)

    double(model)
    with Decisions(model) as decisions:
        output, loss, balance = losses(model, ids, targets, masks)
    decisions.check()
    tensors = {f"weight/{name}": weight for name, weight in weights.items()}
    tensors |= {"input_ids": ids, "targets": targets, "logits": output.logits, "loss": loss, "balance": balance}
    tensors |= prefixed("gradient", gradient_of(model, loss))
    tensors |= prefixed("balance_gradient", gradient_of(model, balance.mean()))
    notes = [decisions.report(), f"loss {loss.item():.6f}, balance {[round(b, 4) for b in balance.tolist()]}"]
    for index, length in enumerate(case.prompts):
        prompt = torch.randint(config.vocab_size, (length,), generator=generator)
        tokens = greedy(model, prompt, 64)
        tensors |= {f"greedy.{index}/prompt": prompt, f"greedy.{index}/tokens": tokens}
        notes.append(f"greedy from {length}: {len(set(tokens.tolist()))} different tokens")

    # The error of the same library in f32: another f32 implementation cannot be expected to do better.
    single(model)
    output, loss, balance = losses(model, ids, targets, masks)
    found = {"logits": output.logits, "loss": loss, "balance": balance}
    found |= prefixed("gradient", gradient_of(model, loss))
    found |= prefixed("balance_gradient", gradient_of(model, balance.mean()))
    notes.append("transformers in f32: " + worst(found, tensors))
    return f32(tensors), description, notes


def adamw(case, seed):
    """A few steps of AdamW with clipping; only matrices decay."""
    model, generator = random_model(case, seed)
    shape = (case.steps, case.batch, case.time)
    ids = torch.randint(model.config.vocab_size, shape, generator=generator)
    targets = torch.randint(model.config.vocab_size, shape, generator=generator)
    weights = named(model)

    def run():
        # The experts' biases are matrices by shape, [E, 2F] and [E, D], but biases by role.
        decays = {n: p.ndim >= 2 and not n.endswith("bias") for n, p in model.named_parameters()}
        groups = [
            dict(params=[p for n, p in model.named_parameters() if decays[n] == decay], weight_decay=rate)
            for decay, rate in ((True, OPTIMIZER["weight_decay"]), (False, 0.0))
        ]
        optimizer = torch.optim.AdamW(
            groups, lr=OPTIMIZER["lr"], betas=OPTIMIZER["betas"], eps=OPTIMIZER["eps"], foreach=False, fused=False
        )
        history, norms = [], []
        for step in range(case.steps):
            optimizer.zero_grad()
            with Decisions(model) as decisions:
                _, loss, _ = losses(model, ids[step], targets[step])
            if model.dtype == torch.float64:
                decisions.check()
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER["max_grad_norm"]))
            optimizer.step()
            history.append(loss.detach())
        return {"losses": torch.stack(history), "gradient_norms": torch.stack(norms), **prefixed("final", named(model))}

    double(model)
    reference = run()
    single(model).load_state_dict(weights)
    found = run()
    tensors = prefixed("weight", weights) | {"input_ids": ids, "targets": targets} | reference
    description = {"config": config_json(model.config), "optimizer": OPTIMIZER}
    shown = lambda name: [round(value, 4) for value in reference[name].tolist()]
    notes = [f"losses {shown('losses')}, norms {shown('gradient_norms')}", "torch in f32: " + worst(found, reference)]
    return f32(tensors), description, notes


def random_model(case, seed):
    """A model in which every parameter is random and affects the output, and the generator that drew it."""
    config = GptOssConfig(**case.config)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = GptOssForCausalLM(config).train()
    # transformers would freeze the padding row at zero; in oss-run it is a row like any other.
    model.model.embed_tokens.padding_idx = None
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            kind = name.split(".")[-1] if "experts" in name or "sinks" in name else name
            if "norm" in name:
                parameter.copy_(1.0 + 0.2 * noise)
            elif "embed_tokens" in name:
                parameter.copy_(0.5 * noise)
            elif "sinks" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(case.scale.get(kind, 0.3) * noise)
    return model, generator


def double(model):
    """Converts the whole model to f64, including its norms."""
    for module in model.double().modules():
        if isinstance(module, GptOssRMSNorm):
            module.forward = lambda x, norm=module: norm.weight * (
                x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
            )


def single(model):
    """Converts the whole model to f32, as transformers runs it."""
    for module in model.float().modules():
        if isinstance(module, GptOssRMSNorm):
            del module.forward
    return model


def losses(model, ids, targets, masks=None):
    """The model's output, its loss and the balancing loss of each layer, [layers]."""
    logits = []
    hooks = [
        layer.mlp.router.register_forward_hook(lambda _module, _inputs, routed: logits.append(routed[0]))
        for layer in model.model.layers
    ]
    output = model(input_ids=ids, attention_mask=masks, use_cache=False)
    for hook in hooks:
        hook.remove()
    loss = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), targets.flatten())
    experts, active = model.config.num_local_experts, model.config.num_experts_per_tok
    balance = [load_balancing_loss_func((layer,), experts, active) for layer in logits]
    return output, loss, torch.stack(balance)


def gradient_of(model, scalar):
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(scalar, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {name: gradient for name, gradient in zip(parameters, found) if gradient is not None}


def document_masks(ids, separator, window):
    """Additive masks for both layer types, [B, 1, T, T]."""
    document = (ids == separator).cumsum(1)
    query, key = torch.arange(ids.shape[1])[:, None], torch.arange(ids.shape[1])[None]
    seen = (document[:, None, :, None] == document[:, None, None, :]) & (key <= query)
    nothing = torch.finfo(torch.float32).min
    additive = lambda allowed: torch.zeros(allowed.shape).masked_fill(~allowed, nothing)
    return {"full_attention": additive(seen), "sliding_attention": additive(seen & (query - key < window))}


def greedy(model, prompt, count):
    """The greedy continuation by full forward passes; `generate` with its cache must produce the same."""
    tokens = prompt[None]
    with torch.no_grad():
        for _ in range(count):
            best = model(input_ids=tokens, use_cache=False).logits[0, -1].topk(2)
            if best.values[0] - best.values[1] < GREEDY_MARGIN:
                raise TooClose
            tokens = torch.cat([tokens, best.indices[None, :1]], dim=1)
        new = tokens[0, len(prompt) :]
        if len(new.unique()) < 8:
            raise TooClose  # stuck in a short cycle, which many wrong models would reproduce
        cached = model.generate(
            prompt[None], attention_mask=torch.ones_like(prompt[None]), do_sample=False, max_new_tokens=count
        )
    assert torch.equal(cached[0, len(prompt) :], new), "generate disagrees with full forward passes"
    return new


class Decisions:
    """Observes a forward pass: how close its routing and clamps are to flipping, and whether they take effect."""

    def __init__(self, model):
        self.model = model
        self.limit = model.config.swiglu_limit
        self.active = model.config.num_experts_per_tok
        self.loads, self.gate_ups = [], []
        self.routing_margin = math.inf

    def __enter__(self):
        self.handles = []
        for layer in self.model.model.layers:
            self.handles.append(layer.mlp.router.register_forward_hook(self.routed))
            experts = layer.mlp.experts
            plain = type(experts)._apply_gate.__get__(experts)
            experts._apply_gate = lambda gate_up, plain=plain: (self.gate_ups.append(gate_up.detach()), plain(gate_up))[1]
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()
        for layer in self.model.model.layers:
            del layer.mlp.experts._apply_gate

    def routed(self, module, inputs, output):
        logits, _, chosen = output
        self.loads.append(torch.bincount(chosen.flatten(), minlength=logits.shape[1]))
        if self.active < logits.shape[1]:
            ordered = logits.detach().sort(descending=True).values
            gap = ordered[:, self.active - 1] - ordered[:, self.active]
            self.routing_margin = min(self.routing_margin, gap.min().item())

    def check(self):
        gate, up = self.gate_and_up()
        near = min((gate - self.limit).abs().min(), (up.abs() - self.limit).abs().min())
        if self.routing_margin < ROUTING_MARGIN or near < CLAMP_MARGIN:
            raise TooClose
        if any((load == 0).any() for load in self.loads):
            raise TooClose  # an expert that receives no tokens tests nothing

    def gate_and_up(self):
        every = torch.cat(self.gate_ups)
        return every[:, 0::2], every[:, 1::2]

    def report(self):
        gate, up = self.gate_and_up()
        above, beyond = (gate > self.limit).double().mean(), (up.abs() > self.limit).double().mean()
        return (
            f"expert loads {[load.tolist() for load in self.loads]}, routing margin {self.routing_margin:.1e}, "
            f"clamped: {above:.2%} of gates, {beyond:.2%} of ups"
        )


def yarn():
    """Rotary frequencies as transformers computes them, in f32."""
    shapes = [
        (64, 150000.0, 32.0, 32.0, 1.0, 4096),
        (32, 150000.0, 32.0, 32.0, 1.0, 4096),
        (6, 150000.0, 32.0, 32.0, 1.0, 4096),
        (16, 10000.0, 4.0, 32.0, 1.0, 64),
        (128, 500000.0, 8.0, 16.0, 2.0, 8192),
        (16, 10000.0, 1.0, 32.0, 1.0, 2048),
    ]
    entries = []
    for head_dim, theta, factor, beta_fast, beta_slow, original in shapes:
        scaling = dict(
            factor=factor, beta_fast=beta_fast, beta_slow=beta_slow, original_max_position_embeddings=original
        )
        config = GptOssConfig(
            head_dim=head_dim, rope_parameters=dict(scaling, rope_type="yarn", truncate=False, rope_theta=theta)
        )
        frequencies, attention_factor = ROPE_INIT_FUNCTIONS["yarn"](config)
        shape = dict(head_dim=head_dim, rope_theta=theta, rope_scaling=scaling)
        entries.append(dict(shape, inv_freq=frequencies.tolist(), attention_factor=attention_factor))
    return entries


def config_json(config):
    """config.json as in a release, with both the current `rope_parameters` and the older `rope_scaling`."""
    values = json.loads(config.to_json_string(use_diff=False))
    rope = values["rope_parameters"]
    values["rope_theta"] = rope["rope_theta"]
    values["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    return values


def named(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def prefixed(prefix, tensors):
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def f32(tensors):
    def stored(tensor):
        tensor = tensor.detach()
        return (tensor.float() if tensor.is_floating_point() else tensor).contiguous().clone()

    return {name: stored(tensor) for name, tensor in tensors.items()}


def worst(found, expected):
    """The largest relative error (norms) among tensors of the same name."""
    errors = {}
    for name, tensor in found.items():
        difference = (tensor.double() - expected[name].double()).norm()
        errors[name] = (difference / expected[name].double().norm().clamp_min(1e-30)).item() if difference else 0.0
    name = max(errors, key=errors.get)
    return f"worst {errors[name]:.1e} ({name}), logits {errors.get('logits', math.nan):.1e}"


if __name__ == "__main__":
    main()
