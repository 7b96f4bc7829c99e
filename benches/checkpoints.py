"""Writes and reads a 1.3 GB checkpoint, against a plain write and read of as many bytes on the same disk."""

import program

ROWS = {
    "write and sync": ("save", "plain_write"),
    "read and verify, from disk": ("load", "plain_read"),
    "read and verify, page cache": ("load_warm", "plain_read_warm"),
    "verify only, from disk": ("verify", "plain_read"),
}


def measure(scratch):
    result = program.bench("checkpoint", scratch)
    size, seconds = result["bytes"], result["seconds"]
    print(f"\n{f'checkpoint, {size / 1e9:.1f} GB':30} {'GB/s':>6} {'plain GB/s':>11} {'ratio':>6}")
    for name, (ours, plain) in ROWS.items():
        print(f"{name:30} {size / seconds[ours] / 1e9:6.2f} {size / seconds[plain] / 1e9:11.2f} ", end="")
        print(f"{seconds[plain] / seconds[ours]:6.2f}")
    print(f"training pauses for {seconds['pause']:.2f} s per background write")
