"""Runs oss-run as its users do: a binary, experiment files, run directories."""

import json
import os
import subprocess
import tomllib
from functools import cached_property

# All dimensions differ, so that a transposed or swapped tensor cannot go unnoticed, and the window is shorter than the
# sequences. The initial weights are large enough for the experts and sinks to matter.
EXPERIMENT = """
[run]
seed = 7
[dataset]
builtin = "stories"
tokenizer = { train = 512 }
[model]
preset = "tiny"
hidden_size = 64
intermediate_size = 96
num_attention_heads = 6
num_key_value_heads = 2
head_dim = 16
num_local_experts = 5
sliding_window = 24
initializer_range = 0.08
[optimizer]
lr = 3e-3
betas = [0.9, 0.95]
eps = 1e-8
weight_decay = 0.1
max_grad_norm = 1.0
[schedule]
kind = "cosine"
warmup_steps = 5
min_lr_ratio = 0.1
[train]
steps = 50
global_batch_size = 4
micro_batch_size = 2
sequence_length = 61
router_aux_loss_coef = 0.0
device = "cpu"
[checkpoint]
every_steps = 25
keep_last = 10
[evaluate]
every_steps = 25
max_tokens = 4000
[sample]
every_steps = 25
max_new_tokens = 16
[export]
dtype = "f32"
"""
SETTINGS = tomllib.loads(EXPERIMENT)


class Program:
    """Runs the binary in a scratch directory, isolated from the caller's settings and the network."""

    def __init__(self, binary, directory):
        self.binary = binary
        self.directory = directory
        foreign = ("OSS_RUN__", "HF_", "TORCH")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        self.environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(directory / "hub")}

    def call(self, *arguments):
        """Standard output of one call; a failure raises an error with the program's messages."""
        command = [str(self.binary), *map(str, arguments)]
        done = subprocess.run(command, cwd=self.directory, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"`{' '.join(command)}` exited with status {done.returncode}:\n{done.stderr}")
        return done.stdout

    def json(self, *arguments):
        """The one JSON document that `--json` prints."""
        return json.loads(self.call(*arguments, "--json"))

    def run(self, name, **values):
        """Runs all stages of the experiment, with `section__key` values changed; returns the run directory."""
        self.call(*self.arguments(name, **values))
        return self.only_run(name)

    def only_run(self, name):
        (run,) = [path for path in (self.directory / "runs" / name).iterdir() if (path / "manifest.json").exists()]
        return run

    def start(self, name, **values):
        """Like `run`, but returns the process without waiting."""
        command = [str(self.binary), *map(str, self.arguments(name, **values))]
        return subprocess.Popen(
            command, cwd=self.directory, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def arguments(self, name, **values):
        """Writes the experiment file and returns the arguments for `run`."""
        file = self.file(f"{name}.toml", EXPERIMENT)
        settings = [f"{key.replace('__', '.')}={value}" for key, value in values.items()]
        changes = [part for setting in settings for part in ("--set", setting)]
        return ["run", file, "--runs-dir", self.directory / "runs", *changes]

    @cached_property
    def trained(self):
        """One trained model, shared by several checks."""
        return self.run("trained")

    def export(self, run, step=None):
        """Exports a checkpoint as an f32 Hugging Face directory."""
        out = self.directory / f"export-{run.parent.name}-{'last' if step is None else step}"
        if not out.exists():
            chosen = [] if step is None else ["--step", step]
            self.call("export", run, *chosen, "--dtype", "f32", "--out", out)
        return out

    def file(self, name, text):
        path = self.directory / name
        path.write_text(text)
        return path
