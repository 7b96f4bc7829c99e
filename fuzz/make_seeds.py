"""Regenerates fuzz/seeds: small real files of every format, written by the program and by the formats' own libraries.

    pip install numpy pyarrow tokenizers
    python3 fuzz/make_seeds.py PROGRAM
"""

import gzip
import json
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

REPOSITORY = Path(__file__).resolve().parent.parent
SEEDS = REPOSITORY / "fuzz/seeds"
DOCUMENTS = [f"On day {n} the cat \u00abfound\u00bb a small ball.\nThen it went home." for n in range(80)]
STORIES = DOCUMENTS[:4]

EXPERIMENT = """
[dataset]
files = ["text.txt"]
tokenizer = "tokenizer.json"
validation.fraction = 0.2

[model]
preset = "tiny"
hidden_size = 8
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 4
num_local_experts = 2
intermediate_size = 8

[schedule]
warmup_steps = 2

[train]
steps = 4
global_batch_size = 2
micro_batch_size = 2
sequence_length = 16
device = "cpu"
threads = 1

[evaluate]
every_steps = 2
max_tokens = 200

[log]
every_steps = 1

[sample]
prompts = ["the cat"]
max_new_tokens = 4
"""

SWEEP = """[sweep]
base = "base.toml"
method = "random"
num_trials = 3
metric = "loss"
until = "train"

[sweep.parameters]
"optimizer.lr" = { min = 3e-4, max = 2e-2, log = true }
"run.seed" = [1, 2]

[[sweep.skip]]
"run.seed" = 2

[sweep.halving]
min_steps = 60
reduction_factor = 3
"""


def main():
    program = Path(sys.argv[1]).resolve()
    shutil.rmtree(SEEDS, ignore_errors=True)
    tokenizer_files()
    with tempfile.TemporaryDirectory() as directory:
        project = Path(directory)
        run = train(program, project)
        from_run(run)
        experiments(run)
    text()
    parquet()
    for path in sorted(SEEDS.glob("*")):
        sizes = [file.stat().st_size for file in path.iterdir()]
        print(f"{path.name}: {len(sizes)} files, {sum(sizes)} bytes")


def put(target, name, content):
    path = SEEDS / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def train(program, project):
    (project / "text.txt").write_text("\n<|endoftext|>\n".join(DOCUMENTS))
    (project / "tiny.toml").write_text(EXPERIMENT)
    # A small vocabulary makes small matrices, so that most mutations hit the metadata.
    shutil.copy(SEEDS / "tokenizer/byte_level.json", project / "tokenizer.json")
    subprocess.run([program, "tiny.toml"], cwd=project, check=True, capture_output=True)
    [run] = (project / "runs/tiny").iterdir()
    return run


def from_run(run):
    put("run_manifest", "run.json", (run / "manifest.json").read_bytes())
    put("metrics", "run.jsonl", (run / "metrics.jsonl").read_bytes())
    put("metrics", "torn.jsonl", (run / "metrics.jsonl").read_bytes()[:-20])
    checkpoint = max((run / "checkpoints").iterdir())
    [tensors] = checkpoint.glob("*.safetensors")
    put("checkpoint", "one_rank", (checkpoint / "manifest.json").read_bytes() + b"\xff" + tensors.read_bytes())
    config = json.loads((run / "export/config.json").read_text())
    put("hf_config", "exported.json", json.dumps(config))
    put("hf_config", "openai.json", json.dumps(openai(config)))
    put("hf_config", "transformers_5.json", json.dumps({k: v for k, v in config.items() if k != "rope_scaling"}))
    put("safetensors", "exported.safetensors", (run / "export/model.safetensors").read_bytes())


def openai(config):
    names = {"head_dim", "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers",
             "num_key_value_heads", "rope_theta", "sliding_window", "swiglu_limit", "vocab_size"}
    rope = config["rope_parameters"]
    return {name: config[name] for name in names} | {
        "experts_per_token": config["num_experts_per_tok"],
        "initial_context_length": rope["original_max_position_embeddings"],
        "num_experts": config["num_local_experts"],
        "rope_ntk_alpha": rope["beta_slow"],
        "rope_ntk_beta": rope["beta_fast"],
        "rope_scaling_factor": rope["factor"],
    }


def experiments(run):
    parting = "\n#----\n"
    for path in [*REPOSITORY.glob("experiments/*.toml")]:
        put("experiment", path.name, path.read_text())
    put("experiment", "every_key.toml", (run / "experiment.toml").read_bytes())
    layers = ['extends = "base.toml"\n[train]\nsteps = 7\n', EXPERIMENT, 'optimizer.kind=muon\nrun.name="a b"', "log.every_steps"]
    put("experiment", "layers.toml", parting.join(layers))
    put("experiment", "sweep.toml", parting.join([SWEEP, EXPERIMENT]))
    grid = '[sweep]\nbase = "base.toml"\n[sweep.parameters]\n"optimizer.lr" = [1e-3, 2e-3]\n"run.seed" = [1, 2]\n'
    put("experiment", "grid.toml", parting.join([grid, EXPERIMENT, "train.steps=3"]))
    listed = '[sweep]\nbase = "base.toml"\nmethod = "list"\n[[sweep.trials]]\n"optimizer.lr" = 1e-3\n'
    put("experiment", "list.toml", parting.join([listed, EXPERIMENT]))
    put("experiment", "mistakes.toml", '[train]\nstep = 3\nlr = "\u00e9"\n[modle]\n[optimizer]\nlr = -1\nbetas = [1]\n')


def text():
    plain = "\n<|endoftext|>\n".join(STORIES).encode()
    lines = "".join(json.dumps({"id": n, "text": story}) + "\n" for n, story in enumerate(STORIES)).encode()
    for name, content in [("txt", plain), ("jsonl", lines)]:
        put("text", name, content)
        put("text", f"{name}.gz", gzip.compress(content, mtime=0))
        zst = subprocess.run(["zstd", "--stdout", "--check"], input=content, check=True, capture_output=True)
        put("text", f"{name}.zst", zst.stdout)
    rows = [{"id": n, "text": story} for n, story in enumerate(STORIES)]
    put("text", "json", json.dumps(rows).encode())
    quoted = "".join('%d,"%s"\r\n' % (row["id"], row["text"].replace('"', '""')) for row in rows)
    put("text", "csv", f"id,text\r\n{quoted}".encode())
    odd = [{"text": None}, {"other": 1}, {"text": ["\u0000"]}, {"text": "\ud83d\ude00 \\u12"}]
    put("text", "odd.jsonl", b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(line).encode() for line in odd) + b"\n\n{\"text\"")


def parquet():
    table = pa.table({"text": STORIES, "id": list(range(len(STORIES)))})
    nulls = pa.table({"text": pa.array([STORIES[0], None, STORIES[1]])})
    for codec in ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]:
        write_parquet(codec, table, compression=codec, row_group_size=2)
    write_parquet("version_2", table, compression="snappy", data_page_version="2.0", use_dictionary=False)
    write_parquet("delta_length", table, use_dictionary=False, column_encoding={"text": "DELTA_LENGTH_BYTE_ARRAY"})
    write_parquet("delta", table, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})
    write_parquet("nulls", nulls, compression="snappy", write_page_index=True)
    write_parquet("nested", pa.table({"text": [["a", "b"], ["c"]]}), compression="none")


def write_parquet(name, table, **options):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, store_schema=False, write_statistics=name == "none", **options)
    put("parquet", f"{name}.parquet", sink.getvalue().to_pybytes())


def tokenizer_files():
    special = ["<|endoftext|>"]
    byte_level = tokenizers.Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    byte_level.train_from_iterator(DOCUMENTS, trainers.BpeTrainer(vocab_size=50, special_tokens=special, show_progress=False))
    put("tokenizer", "byte_level.json", byte_level.to_str())

    words = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]", "[CLS]", "</s>"], show_progress=False)
    words.train_from_iterator(STORIES, trainer)
    words.post_processor = processors.TemplateProcessing("[CLS] $0", special_tokens=[("[CLS]", 1)])
    words.enable_truncation(16)
    words.enable_padding()
    put("tokenizer", "wordpiece.json", words.to_str())

    pieces = tokenizers.Tokenizer(models.Unigram())
    pieces.normalizer = normalizers.Sequence([
        normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " "), normalizers.Lowercase(), normalizers.StripAccents(),
    ])
    pieces.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Metaspace(), pre_tokenizers.Digits(), pre_tokenizers.Punctuation(),
        pre_tokenizers.Split(tokenizers.Regex("a|c"), "isolated"),
    ])
    pieces.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Strip(), decoders.Fuse()])
    trainer = trainers.UnigramTrainer(vocab_size=40, special_tokens=["<unk>", "<eos>"], unk_token="<unk>", show_progress=False)
    pieces.train_from_iterator(STORIES, trainer)
    put("tokenizer", "unigram.json", pieces.to_str())

    level = tokenizers.Tokenizer(models.WordLevel({"<|end_of_text|>": 0, "the": 1, "?": 2}, unk_token="?"))
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    level.add_tokens(["cat"])
    put("tokenizer", "wordlevel.json", level.to_str())


if __name__ == "__main__":
    main()
