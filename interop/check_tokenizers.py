"""AutoTokenizer loads each kind of exported tokenizer, and encodes and decodes like oss-run."""

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

TEXTS = [
    "Once upon a time",
    "  leading, trailing and    inner   spaces  ",
    "Two\n\nlines\r\n\tand a tab; then 1234567890 digits.",
    "It's they'll I'D won't — “quotes” … naïve café",
    "日本語のテキスト と 한국어, русский, العربية, 🙂👩‍👩‍👧 e\u0301",
    "def f(x):\n    return x**2  # code\n" * 3,
    "a" * 300 + " " * 40 + "!?" * 50,
]


def with_post_processor(path, changed):
    """A tokenizer as published ones are: it adds a token around a text, which training does not see, and truncates."""
    tokenizer = Tokenizer.from_file(str(path))
    end = "<|endoftext|>"
    tokenizer.post_processor = TemplateProcessing(
        single=f"{end} $A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    tokenizer.enable_truncation(16)
    tokenizer.save(str(changed))
    assert len(Tokenizer.from_file(str(changed)).encode(TEXTS[-1]).ids) == 16
    return changed


def check(program, report):
    trained = program.export(program.trained)
    named = {
        "trained": "{ train = 512 }",
        "bytes": '"bytes"',
        "file": f'"{trained / "tokenizer.json"}"',
        "post_processor": f'"{with_post_processor(trained / "tokenizer.json", program.directory / "processed.json")}"',
        "o200k_harmony": '"o200k_harmony"',
    }
    for name, choice in named.items():
        # The smallest possible model: only its tokenizer matters, and o200k_harmony has 201088 rows.
        run = program.run(
            f"tokenizer_{name}", dataset__tokenizer=choice, train__steps=1, schedule__warmup_steps=0, model__hidden_size=16,
            model__num_hidden_layers=1, evaluate__max_tokens=61, sample__max_new_tokens=1,
        )
        tokenizer = AutoTokenizer.from_pretrained(program.export(run))
        prompts = [part for text in TEXTS for part in ("--prompt", text)]
        samples = program.json("sample", run, *prompts, "--max-new-tokens", 1, "--greedy")["samples"]
        ours = [sample["prompt_tokens"] for sample in samples]
        report.same(f"{name}: tokens for {len(TEXTS)} texts", ours, [tokenizer.encode(text) for text in TEXTS])
        decoded = [tokenizer.decode(tokens, clean_up_tokenization_spaces=False) for tokens in ours]
        report.same(f"{name}: decoded texts", decoded, TEXTS)
        report.holds(f"{name}: end of text", tokenizer.eos_token_id is not None, f"{tokenizer.eos_token!r}")
