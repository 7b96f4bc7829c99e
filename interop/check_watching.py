"""TensorBoard matches metrics.jsonl, for an uninterrupted run and for one that was killed and resumed."""

import subprocess
import sys
import time
from pathlib import Path

READER = Path(__file__).with_name("check_tensorboard.py")


def check(program, report):
    read(report, "uninterrupted run", program.trained)
    read(report, "killed and resumed run", killed_and_resumed(program))


def read(report, what, run):
    done = subprocess.run([sys.executable, READER, run, "--text", "--finished"], capture_output=True, text=True)
    answer = done.stdout if done.returncode == 0 else done.stderr
    report.holds(what, done.returncode == 0, answer.strip())


def killed_and_resumed(program):
    """A run killed between two checkpoints, so that resuming it discards logged steps."""
    process = program.start("killed", train__steps=300, checkpoint__every_steps=25)
    try:
        while True:
            logs = list((program.directory / "runs" / "killed").glob("*/metrics.jsonl"))
            if logs and len(logs[0].read_text().splitlines()) >= 40:
                break
            if process.poll() is not None:
                raise RuntimeError("the run ended before it could be killed")
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    run = logs[0].parent
    program.call("resume", run)
    return run
