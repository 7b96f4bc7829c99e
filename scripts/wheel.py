"""Packs an installed tree (bin/oss-run, lib/oss-run) as a Python wheel without dependencies.

    python3 scripts/wheel.py TREE VERSION DIRECTORY

The wheel contains no Python: pip installs the program as a script and the libraries under the environment's lib/, where the
program looks for them ($ORIGIN/../lib/oss-run).
"""

import base64
import hashlib
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def main():
    tree, version, directory = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    program, libraries = tree / "bin/oss-run", tree / "lib/oss-run"
    tag = f"py3-none-manylinux_2_{glibc_minor([program, *libraries.glob('*.so*')])}_x86_64"
    prefix = f"oss_run-{version}"
    with Wheel(directory / f"{prefix}-{tag}.whl", f"{prefix}.dist-info") as wheel:
        wheel.add(f"{prefix}.data/scripts/oss-run", program.read_bytes(), mode=0o755)
        for file in sorted(path for path in libraries.rglob("*") if path.is_file()):
            wheel.add(f"{prefix}.data/data/{file.relative_to(tree)}", file.read_bytes())
        wheel.add_info("METADATA", metadata(version))
        wheel.add_info("WHEEL", f"Wheel-Version: 1.0\nGenerator: oss-run\nRoot-Is-Purelib: false\nTag: {tag}\n")
        wheel.add_info("licenses/LICENSE", (REPOSITORY / "LICENSE").read_text())


def metadata(version):
    return f"""Metadata-Version: 2.4
Name: oss-run
Version: {version}
Summary: {re.search('^description = "(.*)"', (REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE)[1]}
License-Expression: Apache-2.0
License-File: LICENSE
Description-Content-Type: text/markdown

{(REPOSITORY / "README.md").read_text()}"""


def glibc_minor(files):
    """The newest glibc 2.x that any of the files needs symbols from, for the platform tag."""
    needed = subprocess.run(["readelf", "--version-info", "--wide", *files], capture_output=True, text=True, check=True)
    return max(int(minor) for minor in re.findall(r"Name: GLIBC_2\.(\d+)", needed.stdout))


class Wheel:
    """A zip file that writes its own RECORD at the end; equal contents give equal bytes."""

    def __init__(self, path, info):
        self.info = info
        self.date = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))[:6]
        self.zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9)
        self.record = ""

    def add(self, name, content, mode=0o644):
        entry = zipfile.ZipInfo(name, self.date)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = (0o100000 | mode) << 16
        self.zip.writestr(entry, content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        self.record += f"{name},sha256={digest},{len(content)}\n"

    def add_info(self, name, text):
        self.add(f"{self.info}/{name}", text.encode())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.record += f"{self.info}/RECORD,,\n"
        self.zip.writestr(zipfile.ZipInfo(f"{self.info}/RECORD", self.date), self.record)
        self.zip.close()


if __name__ == "__main__":
    main()
