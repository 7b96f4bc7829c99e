"""docs/recipes.md works as it stands: every block runs in order, with a small model and without a network."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer

import reference
import slurm
import wandb_file

PAGE = Path(__file__).resolve().parent.parent / "docs/recipes.md"
# End of a line that needs the network.
BY_HAND = "# by hand"
STEPS = 60
# Settings that make the page's experiment quick.
QUICK = {
    "OSS_RUN__DATASET__TOKENIZER": "bytes", "OSS_RUN__MODEL__PRESET": "tiny", "OSS_RUN__TRAIN__STEPS": str(STEPS),
    "OSS_RUN__TRAIN__GLOBAL_BATCH_SIZE": "2", "OSS_RUN__TRAIN__MICRO_BATCH_SIZE": "1",
    "OSS_RUN__TRAIN__THREADS": "1", "OSS_RUN__EVALUATE__EVERY_STEPS": "20", "OSS_RUN__EVALUATE__MAX_TOKENS": "2048",
    "OSS_RUN__SAMPLE__MAX_NEW_TOKENS": "16", "OSS_RUN__LOG__EVERY_STEPS": "1",
}
# SLURM's job trains another run than the other recipes.
OTHER_RUN = {"OSS_RUN__RUN__NAME": "slurm", "OSS_RUN__RUN__SEED": "2"}
DOCUMENTS = [document for document in reference.DOCUMENTS.split("\n<|endoftext|>\n") if document.strip()]
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A file's first line, or the one after `#!`.
FILE_NAME = re.compile(r"^(?:#!.*\n)?# (\S+\.\w+)\n")


def check(program, report):
    directory = program.directory / "recipes"
    commands = directory / "bin"
    commands.mkdir(parents=True)
    (commands / "oss-run").symlink_to(program.binary)
    slurm.install(commands)
    lines = [json.dumps({"text": document}) for document in DOCUMENTS]
    (directory / "held-out.jsonl").write_text("\n".join(lines) + "\n")
    environment = program.environment | QUICK | {
        "PATH": os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "MPLBACKEND": "agg", "WANDB_MODE": "offline",
        "MLFLOW_TRACKING_URI": (directory / "mlruns").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true",
    }

    _, *sections = HEADING.split("\n## Start\n" + PAGE.read_text())
    output = {}
    for name, text in zip(sections[::2], sections[1::2], strict=True):
        variables = environment | (OTHER_RUN if name == "SLURM" else {})
        output[name] = run_blocks(FENCE.findall(text), directory, variables)

    (run,) = (directory / "runs/mine").iterdir()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    check_notebook(report, directory, lines, output["A notebook"])
    check_lm_eval(report, directory, output["lm-eval"])
    check_wandb(report, directory, lines)
    check_mlflow(report, directory, lines)
    check_slurm(report, directory)


def run_blocks(blocks, directory, environment):
    """Runs a section's blocks and returns their output; its Python blocks without a file name are one program."""
    output, cells = "", ""
    for language, text in blocks:
        if name := FILE_NAME.match(text):
            (directory / name[1]).write_text(text)
        elif language == "python":
            cells += text
        else:
            lines = [line for line in text.splitlines() if not line.endswith(BY_HAND)]
            output += call(["bash", "-euo", "pipefail", "-c", "\n".join(lines)], directory, environment)
    return output + (call([sys.executable, "-c", cells], directory, environment) if cells else "")


def call(command, directory, environment):
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"exited with status {done.returncode}: {command[-1]}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def check_notebook(report, directory, lines, output):
    report.holds("notebook: the model continues the prompt", output.startswith("Once upon a time"), repr(output))
    figure = (directory / "loss.svg").read_text()
    curves = [len(path.split("L")) for path in re.findall(r'<path d="([^"]*)" clip-path', figure)]
    expected = [len(points(lines, name)) for name in ("loss", "val_loss")]
    report.same("notebook: points of the two curves", curves, expected)


def check_lm_eval(report, directory, output):
    (results,) = directory.glob("lm-eval/*/results_*.json")
    found = json.loads(results.read_text())["results"]["held_out"]["bits_per_byte,none"]
    model, tokenizer = reference.load(directory / "model"), AutoTokenizer.from_pretrained(directory / "model")
    expected = bits_per_byte(model, tokenizer)
    report.below(f"lm-eval: bits per byte ({expected:.4f}), relative error", abs(found / expected - 1), 1e-4)
    ours = float(re.search(r"([\d.]+) bits per byte", output)[1])
    report.below("lm-eval and `oss-run evaluate`, relative difference", abs(found / ours - 1), 0.03)


def bits_per_byte(model, tokenizer):
    """Each document alone, after end-of-text."""
    nats = 0.0
    for document in DOCUMENTS:
        tokens = tokenizer.encode(document)
        scores = reference.logits(model, [tokenizer.eos_token_id, *tokens[:-1]])
        nats += torch.nn.functional.cross_entropy(scores.double(), torch.tensor(tokens), reduction="sum").item()
    return nats / math.log(2) / sum(len(document.encode()) for document in DOCUMENTS)


def check_wandb(report, directory, lines):
    sent = [wandb_file.history(file) for file in sorted(directory.glob("wandb/offline-run-*/*.wandb"))]
    for tag, name in (("loss", "loss"), ("val_loss", "val_loss")):
        report.same(f"W&B: {name} from metrics.jsonl", sent[0][tag], points(lines, name))
    for tag, name in (("train/loss", "loss"), ("validation/loss", "val_loss")):
        report.same(f"W&B: {tag} from TensorBoard", sent[1][tag], as_f32(points(lines, name)))


def check_mlflow(report, directory, lines):
    for tag, expected in (
        ("loss", points(lines, "loss")), ("val_loss", points(lines, "val_loss")),
        ("train/loss", as_f32(points(lines, "loss"))), ("validation/loss", as_f32(points(lines, "val_loss"))),
    ):
        (file,) = directory.glob(f"mlruns/*/*/metrics/{tag}")
        rows = [line.split() for line in file.read_text().splitlines()]  # time, value, step
        report.same(f"MLflow: {tag}", [(int(step), float(value)) for _, value, step in rows], expected)
    sizes = {file.read_text() for file in directory.glob("mlruns/*/*/params/model.hidden_size")}
    report.same("MLflow: a parameter", sizes, {"64"})


def check_slurm(report, directory):
    (run,) = (directory / "runs/slurm").iterdir()
    attempts = json.loads((run / "manifest.json").read_text())["segments"]
    found = [(attempt["exit"], attempt["ranks"]) for attempt in attempts]
    report.same("SLURM: attempts and their ranks", found, [("stopped", slurm.TASKS), ("done", slurm.TASKS)])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    report.same("SLURM: steps", [step for step, _ in points(lines, "loss")], list(range(1, STEPS + 1)))


def points(lines, name):
    return [(line["step"], line[name]) for line in lines if name in line]


def as_f32(pairs):
    return [(step, torch.tensor(value, dtype=torch.float32).item()) for step, value in pairs]
