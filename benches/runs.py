"""Times `oss-run ls`, `diff` and `gc` over a thousand run directories."""

import time

import program

FILTERED = ["--where", "val_loss<0.4", "--sort", "-optimizer.lr", "--columns", "id,optimizer.lr,grad_norm"]


def measure(scratch):
    runs = scratch / "runs"
    made = program.bench("runs", runs)
    sizes = f"manifests of {made['manifest_bytes'] / 1e6:.0f} MB, metrics of {made['metrics_bytes'] / 1e6:.0f} MB"
    print(f"\n{str(made['runs']) + ' runs':40} {'seconds':>8}   ({sizes})")
    rows = {
        "ls": ["ls"],
        "ls, filtered, sorted, custom columns": ["ls", *FILTERED],
        "diff of two ids": ["diff", f"{1:010x}", f"{2:010x}"],
        "diff of a name and an id": ["diff", "quickstart", f"{2:010x}"],
        "gc --dry-run": ["gc", "--dry-run"],
    }
    for name, arguments in rows.items():
        print(f"{name:40} {best_seconds([program.PROGRAM, *arguments, '--runs-dir', runs]):8.2f}")


def best_seconds(command, rounds=3):
    """The best of several rounds, so that the files are in the page cache."""
    seconds = []
    for _ in range(rounds):
        started = time.monotonic()
        program.call(command)
        seconds.append(time.monotonic() - started)
    return min(seconds)
