#!/usr/bin/env bash
# Checks the newest run of the quickstart: a validation loss below the bound, and samples that end with a complete
# sentence.
set -euo pipefail
cd "$(dirname "$0")/.."

run=$(ls -td runs/quickstart/*/ | head -n 1)
python3 - "$run" <<'PYTHON'
import json
import pathlib
import sys

BOUND = 0.15  # nats per byte

run = pathlib.Path(sys.argv[1])
loss = json.loads((run / "evaluation.json").read_text())["nats_per_byte"]
samples = json.loads((run / "samples/final.json").read_text())["samples"]
whole = sum(sample["text"].rstrip().endswith((".", "!", "?", '"')) for sample in samples)
print(f"quickstart: {loss:.4f} nats per byte (bound {BOUND}), {whole} of {len(samples)} stories end with a complete sentence")
sys.exit(not (loss < BOUND and whole == len(samples)))
PYTHON
