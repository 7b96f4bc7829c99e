"""Checks oss-run against the programs it is used with: transformers, torch, TensorBoard, Chromium and more.

    make interop                                      # all checks, in their own virtual environment
    python interop/run.py [--binary PATH] [CHECK]...  # selected checks, see CHECKS

Each check prints its measurements with their bounds. The last line counts the results; the exit status is 1 if any failed.
"""

import argparse
import importlib
import sys
import tempfile
import traceback
from pathlib import Path

import torch
from program import Program
from report import Report

REPOSITORY = Path(__file__).resolve().parent.parent
CHECKS = ["export", "tokenizers", "schema", "curve", "init_from", "watching", "sweep", "report", "ranks", "recipes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"some of: {', '.join(CHECKS)}")
    parser.add_argument("--binary", type=Path, default=REPOSITORY / "target/release/oss-run")
    arguments = parser.parse_args()
    if unknown := set(arguments.checks) - set(CHECKS):
        parser.error(f"no such check: {', '.join(sorted(unknown))}; choose from {', '.join(CHECKS)}")
    if not arguments.binary.exists():
        parser.error(f"{arguments.binary} does not exist; build it with `make build`")

    torch.set_num_threads(2)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="oss-run-interop-") as directory:
        program = Program(arguments.binary.resolve(), Path(directory))
        for name in arguments.checks or CHECKS:
            print(f"\n{name}", flush=True)
            try:
                importlib.import_module(f"check_{name}").check(program, report)
            except Exception:
                traceback.print_exc()
                report.failed(name, "stopped by the error above")
    print(f"\n{report.num_passed} passed, {report.num_failed} failed")
    sys.exit(1 if report.num_failed else 0)


if __name__ == "__main__":
    main()
