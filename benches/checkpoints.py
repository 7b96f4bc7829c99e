"""A checkpoint of 1.3 GB written and read, beside as many bytes written and read plainly on the same disk."""

import program

ROWS = {
    "write and sync": ("save", "plain_write"),
    "read and check, from the disk": ("load", "plain_read"),
    "read and check, from memory": ("load_warm", "plain_read_warm"),
    "check only, from the disk": ("verify", "plain_read"),
}


def measure(scratch):
    result = program.bench("checkpoint", scratch)
    size, seconds = result["bytes"], result["seconds"]
    print(f"\n{f'checkpoint, {size / 1e9:.1f} GB':30} {'GB/s':>6} {'plain GB/s':>11} {'ratio':>6}")
    for name, (ours, plain) in ROWS.items():
        print(f"{name:30} {size / seconds[ours] / 1e9:6.2f} {size / seconds[plain] / 1e9:11.2f} ", end="")
        print(f"{seconds[plain] / seconds[ours]:6.2f}")
    print(f"a step pauses for {seconds['pause']:.2f} s, when written in the background")
