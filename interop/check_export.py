"""transformers loads the export of a newly trained model and gives the same results as oss-run."""

import torch
from transformers import AutoTokenizer

import reference
from program import SETTINGS

PROMPTS = ["Once upon a time", "The fox said", '"Why?" asked Tom. He looked at the small red boat and']
NEW_TOKENS = 64


def check(program, report):
    run = program.trained
    directory = program.export(run)
    model = reference.load(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    end_of_text = tokenizer.eos_token_id
    compare(program, report, run, model, tokenizer, end_of_text)

    # The run's own export stage produced the same model.
    own = reference.load(run / "export")
    same = all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), own.state_dict().values()))
    report.holds("the run's own export", same, "same weights as `oss-run export`" if same else "different weights")


def compare(program, report, run, model, tokenizer, end_of_text, step=None, label=""):
    """Compares one checkpoint's logits, loss on a text file and greedily decoded tokens with those of `model`."""
    chosen = [] if step is None else ["--step", step]

    text = reference.DOCUMENTS.replace("<|endoftext|>", "")
    ours = program.json("logits", run, *chosen, "--prompt", text)
    tokens = ours["prompt_tokens"]
    report.same(f"{label}tokens of a text", tokens, tokenizer.encode(text))
    expected = reference.logits(model, tokens)
    error = reference.relative_error(torch.tensor(ours["logits"]), expected)
    report.below(f"{label}logits for {len(tokens)} tokens, relative error", error, 1e-5)

    file = program.file("text.txt", reference.DOCUMENTS)
    loss = program.json("evaluate", run, *chosen, "--data", file)["loss"]
    tokens = reference.document_tokens(tokenizer, reference.DOCUMENTS, end_of_text)
    expected = reference.window_loss(model, tokens, SETTINGS["train"]["sequence_length"])
    report.below(f"{label}loss on a text file ({expected:.6f}), relative error", abs(loss / expected - 1), 1e-5)

    longest = 0
    for prompt in PROMPTS:
        options = ["--prompt", prompt, "--greedy", "--max-new-tokens", NEW_TOKENS]
        (sample,) = program.json("sample", run, *chosen, *options)["samples"]
        ours = reference.without_end(sample["tokens"], end_of_text)
        theirs, lead = reference.greedy(model, sample["prompt_tokens"], NEW_TOKENS, end_of_text)
        report.same(f"{label}greedy after {prompt!r} ({len(theirs)} tokens, smallest margin {lead:.1e})", ours, theirs)
        longest = max(longest, len(theirs))
    beyond = longest == NEW_TOKENS
    report.holds(f"{label}longest greedy sample", beyond, f"{longest} tokens, window {model.config.sliding_window}")
