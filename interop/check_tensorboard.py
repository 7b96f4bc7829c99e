"""Reads a run's event files with the tensorboard package and compares them with its metrics.jsonl.

    python interop/check_tensorboard.py runs/<name>/<id> [--text] [--finished]

Every number in metrics.jsonl must be a point of its curve (loss is train/loss, val_loss is validation/loss, a list has
one curve per position, in the last group), in the same order and with the same value as a 32-bit float; counts of dead
experts start with the first above zero. There must be no other points (steps that a resume discarded are gone), except
the losses of the last evaluation. The HParams plugin must read the experiment and the session, which is named after the
run. --text requires sample text, --finished a completed session. Exits with 1 and a list of differences otherwise.
"""

import argparse
import json
import math
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util


def as_f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def same(a, b):
    return a == b or (math.isnan(a) and math.isnan(b))


def tag_of(name, value):
    """Plain numbers are grouped into training and validation; objects and lists are details."""
    if isinstance(value, (dict, list)):
        return f"verbose/{name}"
    return f"validation/{name[4:]}" if name.startswith("val_") else f"train/{name}"


def numbers(tag, value):
    """The numbers in a field with their tags: objects append a name, lists a position; null means NaN."""
    if value is None:
        yield tag, math.nan
    elif isinstance(value, bool) or isinstance(value, str):
        return
    elif isinstance(value, (int, float)):
        yield tag, as_f32(value)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from numbers(f"{tag}/{position:02}", item)
    else:
        for name, item in value.items():
            yield from numbers(f"{tag}/{name}", item)


def expected_curves(run):
    curves = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        step = fields.pop("step")
        for name, value in fields.items():
            for tag, number in numbers(tag_of(name, value), value):
                if "dead_experts" not in tag or number != 0 or tag in curves:
                    curves.setdefault(tag, []).append((step, number))
    if (run / "evaluation.json").exists():
        last = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
        losses = curves.setdefault("validation/loss", [])
        if not losses or losses[-1][0] != last["step"]:
            losses.append((last["step"], as_f32(last["loss"])))
            curves.setdefault("validation/nats_per_byte", []).append((last["step"], as_f32(last["nats_per_byte"])))
    return curves


def compare_curves(expected, accumulator):
    problems = []
    shown = {}
    for tag in accumulator.Tags()["scalars"]:
        shown[tag] = [(event.step, event.value) for event in accumulator.Scalars(tag)]
    for tag in sorted(expected.keys() | shown.keys()):
        want, have = expected.get(tag, []), shown.get(tag, [])
        if len(want) != len(have):
            problems.append(f"{tag}: {len(want)} points in metrics.jsonl, {len(have)} in TensorBoard")
        for (step, value), (shown_step, shown_value) in zip(want, have):
            if step != shown_step or not same(value, shown_value):
                problems.append(f"{tag}: step {step} is {value}, TensorBoard shows {shown_value} at {shown_step}")
                break
    return problems, sum(map(len, shown.values()))


def texts(accumulator):
    """Sample texts by tag, as (step, text)."""
    found = {}
    for tag in accumulator.Tags()["tensors"]:
        if accumulator.SummaryMetadata(tag).plugin_data.plugin_name == "text":
            found[tag] = [
                (event.step, tensor_util.make_ndarray(event.tensor_proto).item().decode("utf-8"))
                for event in accumulator.Tensors(tag)
            ]
    return found


def hparams(accumulator):
    """The HParams plugin's messages, by the last component of their tag."""
    found = {}
    for tag, content in accumulator.PluginTagToContent("hparams").items():
        found[tag.rsplit("/", 1)[1]] = plugin_data_pb2.HParamsPluginData.FromString(content)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--text", action="store_true", help="require sample text")
    parser.add_argument("--finished", action="store_true", help="require a completed session")
    arguments = parser.parse_args()

    events = arguments.run / "tensorboard"
    # Read every record of every file, so that a damaged one is not skipped.
    records = sum(1 for path in sorted(events.iterdir()) for _ in EventFileLoader(str(path)).Load())
    accumulator = EventAccumulator(str(events), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()

    problems, points = compare_curves(expected_curves(arguments.run), accumulator)
    if points == 0:
        problems.append("no scalars")

    groups = sorted({tag.split("/")[0] for tag in accumulator.Tags()["scalars"]})
    if groups != ["train", "validation", "verbose"]:
        problems.append(f"groups: {groups}")

    samples = texts(accumulator)
    for tag, entries in samples.items():
        if any(not text for _, text in entries):
            problems.append(f"{tag}: empty text")
    if arguments.text and not samples:
        problems.append("no sample text")

    messages = hparams(accumulator)
    experiment = messages.get("experiment")
    start = messages.get("session_start_info")
    if experiment is None or start is None:
        problems.append("no hparams")
    else:
        columns = {info.name for info in experiment.experiment.hparam_infos}
        values = set(start.session_start_info.hparams)
        if not values or columns != values:
            problems.append(f"hparams: columns {sorted(columns)}, values {sorted(values)}")
        row, name = start.session_start_info.group_name, "/".join(arguments.run.resolve().parts[-2:])
        if row != name:
            problems.append(f"hparams: the row is named {row}, the run {name}")
    if arguments.finished and "session_end_info" not in messages:
        problems.append("the session is not shown as complete")

    for problem in problems:
        print(f"check_tensorboard: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    print(
        f"TensorBoard shows {points} points of {len(accumulator.Tags()['scalars'])} curves, identical to metrics.jsonl, "
        f"{sum(map(len, samples.values()))} texts, {len(values)} hparams ({records} records)"
    )


if __name__ == "__main__":
    main()
