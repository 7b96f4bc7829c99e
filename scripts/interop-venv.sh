#!/usr/bin/env bash
# usage: scripts/interop-venv.sh DIRECTORY
# Creates the virtual environment for `make interop` and `make bench`; DIRECTORY/ready marks it as complete.
set -euo pipefail
cd "$(dirname "$0")/.."
directory="$1"

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: the interop checks need Python 3.11 or newer; install it and put it first in PATH as python3" >&2
    exit 1
fi
rm -rf "$directory"
if ! python3 -m venv "$directory"; then
    echo "error: python3 cannot create virtual environments; for example: sudo apt install python3-venv" >&2
    exit 1
fi
echo "downloading torch, transformers and what reads runs into $directory (6 GB; transformers needs all of torch)" >&2
# Compiling every module takes longer than compiling those that the checks import, when they do.
"$directory/bin/pip" install --quiet --disable-pip-version-check --no-compile --requirement interop/requirements.txt >&2
if ! command -v chromedriver >/dev/null; then
    echo "the report check needs Chromium; for example: sudo apt install chromium chromium-driver" >&2
fi
touch "$directory/ready"
