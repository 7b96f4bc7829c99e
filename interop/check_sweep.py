"""TensorBoard's HParams tab matches a sweep's results.jsonl: one row per trial, with swept values and metric."""

import json
import struct

from program import EXPERIMENT
from tensorboard import context as request_context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

SWEEP = """
[sweep]
base = "sweep_base.toml"
[sweep.parameters]
"optimizer.lr" = [1e-3, 3e-3]
"optimizer.kind" = ["adamw", "muon"]
"run.deterministic" = [true]
[train]
steps = 6
[sample]
every_steps = 0
"""


def check(program, report):
    program.file("sweep_base.toml", EXPERIMENT)
    program.call("sweep", program.file("sweep.toml", SWEEP), "--runs-dir", program.directory / "runs")
    folder = program.directory / "runs" / "sweep" / "sweep"
    trials = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    columns, metrics, rows = shown(folder.parent)
    report.same("columns of the HParams tab", columns, sorted(trials[0]["values"]))
    report.same("its first metric", metrics[0], "validation/loss")
    # TensorBoard stores metrics in 32 bits.
    as_f32 = lambda value: struct.unpack("f", struct.pack("f", value))[0]
    expected = {f"sweep/{row['run']}": (row["values"], as_f32(row["value"]), row["step"]) for row in trials}
    swept = {
        name: ({key: values.get(key) for key in columns}, found[0].value, found[0].training_step)
        for name, (values, found) in rows.items()
    }
    report.same("its rows: values, metric and step of each trial", swept, expected)
    report.same("cells without a metric", [len(metrics) - len(found) for _, found in rows.values()], [0] * len(trials))
    report.holds("every trial is shown as complete", len(rows) == 4, f"{len(rows)} of 4")


def shown(logdir):
    """Columns, metrics and rows, as TensorBoard's plugin reports them to its web page."""
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(logdir))
    plugin = base_plugin.TBContext(logdir=str(logdir), multiplexer=multiplexer, data_provider=provider)
    backend, asked = backend_context.Context(plugin), request_context.RequestContext()
    experiment = get_experiment.Handler(asked, backend, "sweep", api_pb2.GetExperimentRequest()).run()
    request = api_pb2.ListSessionGroupsRequest(slice_size=1000, allowed_statuses=[api_pb2.STATUS_SUCCESS])
    for info in experiment.hparam_infos:
        request.col_params.add(hparam=info.name)
    for info in experiment.metric_infos:
        request.col_params.add(metric=info.name)
    groups = list_session_groups.Handler(asked, backend, "sweep", request).run().session_groups
    value = lambda value: getattr(value, value.WhichOneof("kind"))
    metrics = [info.name.tag for info in experiment.metric_infos]
    rows = {
        group.name: (
            {name: value(entry) for name, entry in group.hparams.items()},
            sorted(group.metric_values, key=lambda found: metrics.index(found.name.tag)),
        )
        for group in groups
    }
    return sorted(info.name for info in experiment.hparam_infos), metrics, rows
