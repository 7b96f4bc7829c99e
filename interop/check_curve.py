"""From oss-run's initial weights and batches, transformers with torch's AdamW reproduces the loss curve."""

import json
import math

import torch
from transformers import AutoTokenizer

import reference
from program import SETTINGS

STEPS = SETTINGS["train"]["steps"]
VARIANTS = {
    # name: (experiment values, bound on the loss difference of every step; in bf16, on its root mean square)
    "plain": ({}, 1e-3),
    "recomputed": ({"train__activation_checkpointing": "true"}, 1e-3),
    "balanced": ({"train__router_aux_loss_coef": 0.05}, 1e-3),
    "documents": ({"train__document_mask": "true"}, 1e-3),
    # Rounding routes some tokens to different experts, after which the curves diverge by chance: over six seeds our f32 and
    # bf16 curves differ by 0.0038 to 0.0058 in the root mean square, with either sign, and by 0.010 to 0.022 in one step.
    "bf16": ({"train__precision": "bf16"}, 1e-2),
}


def check(program, report):
    for name, (values, bound) in VARIANTS.items():
        run = program.run(f"curve_{name}", **values)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        logged = [line for line in lines if "loss" in line]
        batches = [batch["tokens"] for batch in program.json("batches", run, "--steps", f"0..{STEPS}")]
        directory = program.export(run, step=0)
        ours = torch.tensor([line["loss"] for line in logged], dtype=torch.float64)
        theirs = curve(directory, batches, values)
        report.same(f"{name}: logged steps", len(logged), STEPS)
        differences = (ours - theirs).abs()
        if name == "bf16":
            what, difference = "root mean square difference", differences.square().mean().sqrt().item()
        else:
            what, difference = "largest difference", differences.max().item()
        report.below(f"{name}: losses {theirs[0]:.4f} to {theirs[-1]:.4f}, {what}", difference, bound)
        rates = max(abs(line["lr"] - learning_rate(step)) for step, line in enumerate(logged))
        report.below(f"{name}: learning rates, largest difference", rates, 1e-9)


def curve(directory, batches, values):
    """The loss of each step of transformers' model under torch's AdamW."""
    model = reference.load(directory)
    end_of_text = AutoTokenizer.from_pretrained(directory).eos_token_id
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2 and not name.endswith("bias")
        (matrices if is_matrix else others).append(parameter)
    ours = SETTINGS["optimizer"]
    groups = [dict(params=matrices, weight_decay=ours["weight_decay"]), dict(params=others, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, betas=ours["betas"], eps=ours["eps"])
    losses = []
    for step, tokens in enumerate(batches):
        tokens = torch.tensor(tokens)
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        masks = None
        if "train__document_mask" in values:
            masks = reference.document_masks(inputs, end_of_text, model.config.sliding_window)
        loss, balance = reference.training_loss(model, inputs, targets, masks)
        optimizer.zero_grad()
        (loss + values.get("train__router_aux_loss_coef", 0.0) * balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), ours["max_grad_norm"])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64)


def learning_rate(step):
    """Linear warm-up to the peak, then cosine decay to the minimum rate; `step` counts from 0."""
    peak = SETTINGS["optimizer"]["lr"]
    warmup, least = SETTINGS["schedule"]["warmup_steps"], SETTINGS["schedule"]["min_lr_ratio"]
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / (STEPS - warmup)
    return peak * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * progress)))
