"""Installs into the user's cache the parts of PyTorch's wheels that oss-run links, and prints the directory.

usage: python3 scripts/libtorch_wheels.py cpu|cuda|cuda-link

libtorch-VARIANT.txt beside this file lists the wheels with their digests. Their files go to
${XDG_CACHE_HOME:-~/.cache}/oss-run/libtorch-2.11.0-VARIANT, under the same relative paths as in the wheels, because the
libraries look for each other there. The directory gets that name only once it is complete; it is replaced if a file is
missing or has changed since. Messages go to stderr; the only line on stdout is the directory.
"""

import contextlib
import fcntl
import fnmatch
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

VERSION = "2.11.0"
SCRIPTS = pathlib.Path(__file__).resolve().parent
STAMP = "complete.json"

CPU_FILES = [
    "torch/include/*",
    "torch/lib/libc10.so",
    "torch/lib/libgomp*.so*",
    "torch/lib/libtorch.so",
    "torch/lib/libtorch_cpu.so",
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
    "*.dist-info/*LICENSE*",
    "*.dist-info/*NOTICE*",
    "*.dist-info/*License*",
]
LINK_FILES = ["torch/lib/libtorch_cuda.so", "torch/lib/libc10_cuda.so", "nvidia/*/include/*"]
CUDA_FILES = ["torch/lib/*.so*", "nvidia/*/lib/*.so*", "nvidia/*/include/*"]

# For each variant: the files to keep, the version suffix as in libtorch's own archives, and the disk space needed for the
# wheels and the kept files together.
VARIANTS = {
    "cpu": (CPU_FILES, "cpu", 1.2e9),
    "cuda": (CPU_FILES + CUDA_FILES, "cu130", 8e9),
    "cuda-link": (CPU_FILES + LINK_FILES, "cu130", 2e9),
}
# Left out of every variant: the Python bindings, and the libraries that only they load.
DROPPED = ["torch/lib/libtorch_python.so", "torch/lib/libshm.so", "torch/lib/libtorch_global_deps.so"]

# The platform tags of the pinned wheels, spelled out so that any pip on any Python downloads these wheels.
PLATFORMS = ["2_28", "2_27", "2_25", "2_18", "2_17", "2_12", "2_5"]


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in VARIANTS:
        sys.exit(f"usage: libtorch_wheels.py {'|'.join(VARIANTS)}")
    variant = sys.argv[1]
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "oss-run"
    directory = cache / f"libtorch-{VERSION}-{variant}"
    identity = identity_of(variant)
    if not is_complete(directory, identity):
        cache.mkdir(parents=True, exist_ok=True)
        with exclusive(cache / f"{directory.name}.lock"):
            # Another process may have finished the installation while this one waited for the lock.
            if not is_complete(directory, identity):
                install(variant, directory, identity)
    print(directory)


def identity_of(variant):
    """Digest of everything that determines the contents of an installed directory."""
    described = [pinned_wheels(f"libtorch-{variant}.txt"), VARIANTS[variant][:2], DROPPED]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def pinned_wheels(name):
    """The requirement lines of a list and of the lists it includes."""
    wheels = []
    for line in (SCRIPTS / name).read_text().splitlines():
        if line.startswith("-r "):
            wheels += pinned_wheels(line[3:].strip())
        elif line and not line.startswith("#"):
            wheels.append(line)
    return wheels


def is_complete(directory, identity):
    """Whether every file still exists with its size; reports the first that does not."""
    try:
        stamp = json.loads((directory / STAMP).read_text())
    except (OSError, ValueError):
        return False
    if stamp.get("identity") != identity:
        return False
    for name, size in stamp["files"].items():
        try:
            found = (directory / name).stat().st_size
        except OSError:
            found = None
        if found != size:
            print(f"{directory / name} is damaged or missing; reinstalling libtorch", file=sys.stderr)
            return False
    return True


@contextlib.contextmanager
def exclusive(path):
    """Holds a file lock, which the kernel releases however this process ends."""
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another setup is installing {path.stem}; waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install(variant, directory, identity):
    keep, suffix, needed_bytes = VARIANTS[variant]
    partial_prefix = f".{directory.name}.partial-"
    for leftover in directory.parent.glob(f"{partial_prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    free_bytes = shutil.disk_usage(directory.parent).free
    if free_bytes < needed_bytes:
        sys.exit(
            f"error: {directory.parent} has {free_bytes / 1e9:.1f} GB free, but installing libtorch ({variant}) "
            f"needs {needed_bytes / 1e9:.1f} GB; free some space, or set XDG_CACHE_HOME to a directory on a larger disk"
        )
    partial = pathlib.Path(tempfile.mkdtemp(prefix=partial_prefix, dir=directory.parent))
    try:
        wheels = partial / "wheels"
        download(variant, wheels)
        content = partial / "content"
        for wheel in sorted(wheels.glob("*.whl")):
            print(f"unpacking {wheel.name}", file=sys.stderr)
            unpack(wheel, content, keep)
            wheel.unlink()
        (content / "torch" / "build-version").write_text(f"{VERSION}+{suffix}\n")
        files = {
            str(path.relative_to(content)): path.stat().st_size for path in content.rglob("*") if path.is_file()
        }
        (content / STAMP).write_text(json.dumps({"identity": identity, "files": files}))
        if directory.exists():
            directory.rename(partial / "replaced")
        content.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def download(variant, wheels):
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--dest", str(wheels)]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"]
    for glibc in PLATFORMS:
        command += ["--platform", f"manylinux_{glibc}_x86_64"]
    for legacy in ("manylinux2014", "manylinux2010", "manylinux1"):
        command += ["--platform", f"{legacy}_x86_64"]
    command += ["--requirement", str(SCRIPTS / f"libtorch-{variant}.txt")]
    print(f"downloading libtorch {VERSION} ({variant}) from PyPI", file=sys.stderr)
    if subprocess.run(command, stdout=sys.stderr).returncode != 0:
        sys.exit(
            "error: pip could not download libtorch's wheels (see its message above); check the network, or set "
            "PIP_INDEX_URL to a mirror, and run `make setup` again"
        )


def unpack(wheel, target, keep):
    def wanted(name):
        return any(fnmatch.fnmatch(name, pattern) for pattern in keep) and name not in DROPPED

    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target, [name for name in archive.namelist() if wanted(name) and not name.endswith("/")])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
