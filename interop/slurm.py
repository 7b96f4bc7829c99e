"""Stands in for SLURM on one machine: `sbatch`, `srun` and `scontrol`, with two nodes that run one task each.

A job script runs at once. The first time, its tasks get SIGTERM after a few training steps, as with `--signal` before
the time limit. A job that requeues itself runs again.
"""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

TASKS = 2
STEPS_BEFORE_SIGNAL = 5
JOB = "4242"
REQUEUED = Path("requeued")


def install(bin_directory):
    """Puts the commands into a directory for PATH."""
    for name in COMMANDS:
        command = bin_directory / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" {name} "$@"\n')
        command.chmod(0o755)


def sbatch(script):
    for restarts in itertools.count():
        job = {"SLURM_JOB_ID": JOB, "SLURM_NTASKS": str(TASKS), "SLURM_CPUS_PER_TASK": "1"}
        if restarts > 0:
            job["SLURM_RESTART_COUNT"] = str(restarts)
        status = subprocess.run(["bash", script], env=os.environ | job).returncode
        if not REQUEUED.exists():
            sys.exit(status)
        REQUEUED.unlink()


def srun(*arguments):
    command = list(itertools.dropwhile(lambda argument: argument.startswith("--"), arguments))
    step = {
        "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(TASKS), "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": f"1(x{TASKS})", "SLURM_LOCALID": "0",
    }
    tasks = [
        subprocess.Popen(command, env=os.environ | step | {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)})
        for rank in range(TASKS)
    ]
    if "SLURM_RESTART_COUNT" not in os.environ:
        while num_logged_steps() < STEPS_BEFORE_SIGNAL and all(task.poll() is None for task in tasks):
            time.sleep(0.01)
        for task in tasks:
            task.terminate()
    sys.exit(max(task.wait() for task in tasks))


def num_logged_steps():
    return sum(len(log.read_text().splitlines()) for log in Path("runs/slurm").glob("*/metrics.jsonl"))


def scontrol(action, job):
    if (action, job) != ("requeue", JOB):
        sys.exit(f"scontrol: unexpected arguments: {action} {job}")
    REQUEUED.touch()


COMMANDS = {"sbatch": sbatch, "srun": srun, "scontrol": scontrol}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
