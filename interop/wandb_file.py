"""Reads what W&B wrote offline: a LevelDB log of protobuf records, with a header of its own.

https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

import json
from collections import defaultdict

from wandb.proto.wandb_internal_pb2 import Record

BLOCK_BYTES = 32768
FILE_HEADER_BYTES = 7
HEADER_BYTES = 7
FULL, LAST = 1, 4


def history(path):
    """The logged values by name: lists of (step, value)."""
    values = defaultdict(list)
    for data in records(path.read_bytes()):
        record = Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                name = item.key or ".".join(item.nested_key)
                values[name].append((record.history.step.num, json.loads(item.value_json)))
    return values


def records(data):
    offset, record = FILE_HEADER_BYTES, b""
    while offset < len(data):
        left = BLOCK_BYTES - offset % BLOCK_BYTES
        if left < HEADER_BYTES:  # The end of a block is padding.
            offset += left
            continue
        size, kind = int.from_bytes(data[offset + 4 : offset + 6], "little"), data[offset + 6]
        record += data[offset + HEADER_BYTES : offset + HEADER_BYTES + size]
        offset += HEADER_BYTES + size
        if kind in (FULL, LAST):
            yield record
            record = b""
