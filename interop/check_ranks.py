"""Ranks started by torchrun train the same as ranks started by oss-run, and the result is an ordinary model."""

import json
import os
import socket
import subprocess
import sys

from transformers import AutoTokenizer

import reference
from check_export import compare

STEPS = 20
# Two sequences per rank on 4 ranks. Sums depend on the number of threads, and launchers set different defaults.
VALUES = {
    "train__steps": STEPS, "train__global_batch_size": 8, "train__threads": 1,
    "checkpoint__every_steps": STEPS, "evaluate__every_steps": STEPS, "sample__every_steps": 0,
}
SHARDED = {"sharding__strategy": "fsdp", "sharding__ranks": 2}
# The number of ranks per replica is left to default to those of a machine, which is what one torchrun agent starts.
HYBRID = {"sharding__strategy": "hsdp", "sharding__ranks": 4}
PATIENCE_SECONDS = 120


def check(program, report):
    own = program.run("ranks_own", **VALUES, **SHARDED)
    alone = program.run("ranks_alone", **VALUES)
    drift = max(abs(many["loss"] / one["loss"] - 1) for many, one in zip(steps(own), steps(alone), strict=True))
    report.below(f"losses of {STEPS} steps on 2 ranks and on 1, largest relative difference", drift, 1e-5)

    port = free_port()
    launches = {
        "torchrun, static rendezvous": ["--master-addr=127.0.0.1", f"--master-port={port}"],
        "torchrun --standalone": ["--standalone"],
    }
    for number, (name, options) in enumerate(launches.items()):
        run = torchrun(program, f"ranks_torchrun_{number}", SHARDED, [options])
        report.same(f"{name}: same steps and losses as self-launched", numbers(run), numbers(own))
    run = torchrun(
        program, "ranks_torchrun_served", SHARDED, [["--standalone"]], TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"
    )
    report.same("torchrun without its agent's store: same steps and losses as self-launched", numbers(run), numbers(own))

    hybrid = program.run("ranks_hybrid", **VALUES, **HYBRID, sharding__shard_degree=2)
    meeting = ["--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--rdzv-id=interop"]
    nodes = [[*meeting, f"--node-rank={node}"] for node in range(2)]
    run = torchrun(program, "ranks_nodes", HYBRID, nodes)
    report.same("torchrun on 2 nodes of 2, hsdp: same steps and losses as self-launched", numbers(run), numbers(hybrid))

    directory = program.export(own)
    model, tokenizer = reference.load(directory), AutoTokenizer.from_pretrained(directory)
    compare(program, report, own, model, tokenizer, tokenizer.eos_token_id, label="trained on 2 ranks: ")


def torchrun(program, name, sharding, nodes, **environment):
    """Like `program.run`, with two ranks from each torchrun agent; `nodes` lists the agents' options."""
    agent = [sys.executable, "-m", "torch.distributed.run", "--no-python", "--nproc-per-node=2"]
    command = [str(part) for part in [program.binary, *program.arguments(name, **VALUES, **sharding)]]
    agents = [
        subprocess.Popen(
            [*agent, *options, *command], cwd=program.directory, env=program.environment | environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )
        for options in nodes
    ]
    try:
        messages = [agent.communicate(timeout=PATIENCE_SECONDS)[1] for agent in agents]
    finally:
        for agent in agents:
            if agent.poll() is None:
                os.killpg(agent.pid, 9)
                agent.wait()
    if any(agent.returncode for agent in agents):
        raise RuntimeError("torchrun failed:\n" + "\n".join(messages))
    return program.only_run(name)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def steps(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def numbers(run):
    """What must be bit-identical. JSON numbers are the shortest that identify an f64, so equal text means equal bits."""
    return [(line["step"], line["loss"], line["grad_norm"]) for line in steps(run)]
