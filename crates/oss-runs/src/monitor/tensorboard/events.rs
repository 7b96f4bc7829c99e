//! The events that TensorBoard reads: scalars, text, the three summaries of the HParams plugin and the restart that
//! purges.

use protobuf::well_known_types::Value;
use protobuf::{Message, RepeatedField};
use tensorboard_proto::api::{
    DataType as HParamType, Experiment, HParamInfo, MetricInfo, MetricName, Status,
};
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_proto::plugin_hparams::{HParamsPluginData, SessionEndInfo, SessionStartInfo};
use tensorboard_proto::summary::{Summary, Summary_Value, SummaryMetadata, SummaryMetadata_PluginData};
use tensorboard_proto::tensor::TensorProto;
use tensorboard_proto::tensor_shape::{TensorShapeProto, TensorShapeProto_Dim};
use tensorboard_proto::types::DataType;

use super::{HParam, HParams, now_secs};

/// The first event of every file.
pub(super) fn file_version() -> Event {
    let mut event = Event::new();
    event.set_file_version("brain.Event:2".into());
    event
}

/// Tells TensorBoard to drop `step` and everything after it from earlier files.
pub(super) fn restart(step: u64) -> Event {
    let mut log = SessionLog::new();
    log.set_status(SessionLog_SessionStatus::START);
    let mut event = at(step);
    event.set_session_log(log);
    event
}

pub(super) fn scalar(tag: &str, step: u64, value: f64) -> Event {
    let mut summary = tagged(tag);
    summary.set_simple_value(value as f32);
    with_summary(step, summary)
}

pub(super) fn text(tag: &str, step: u64, text: &str) -> Event {
    let mut tensor = TensorProto::new();
    tensor.set_dtype(DataType::DT_STRING);
    // A scalar string: with a dimension, TensorBoard would render a table around it.
    tensor.set_tensor_shape(TensorShapeProto::new());
    tensor.set_string_val(RepeatedField::from_vec(vec![text.as_bytes().to_vec()]));
    let mut summary = tagged(tag);
    // Version 0 of the text plugin encodes to no bytes.
    summary.set_metadata(plugin("text", Vec::new()));
    summary.set_tensor(tensor);
    with_summary(step, summary)
}

/// Number of the field `differs` of `HParamInfo`, which `tensorboard-proto` does not know. The HParams tab sorts the
/// columns by it, then by name, and selects the first ones.
const DIFFERS: u32 = 7;

/// The columns of the HParams tab: hyperparameters and metrics. Columns have no domain: TensorBoard uses one run's
/// columns for all runs, and a domain with this run's values would filter out the others.
pub(super) fn hparams_experiment(run: &HParams) -> Event {
    let columns = run.values.iter().filter(|(name, _)| run.columns.contains(*name)).map(|(name, value)| {
        let mut column = HParamInfo::new();
        column.set_name(name.clone());
        column.set_field_type(match value {
            HParam::Number(_) => HParamType::DATA_TYPE_FLOAT64,
            HParam::Text(_) => HParamType::DATA_TYPE_STRING,
            HParam::Flag(_) => HParamType::DATA_TYPE_BOOL,
        });
        if run.first.contains(name) {
            column.mut_unknown_fields().add_varint(DIFFERS, 1);
        }
        column
    });
    let metrics = run.metrics.iter().map(|(tag, heading)| {
        let mut name = MetricName::new();
        name.set_tag(tag.clone());
        let mut metric = MetricInfo::new();
        metric.set_name(name);
        metric.set_display_name((*heading).to_owned());
        metric
    });
    let mut experiment = Experiment::new();
    experiment.set_time_created_secs(now_secs());
    experiment.set_hparam_infos(columns.collect());
    experiment.set_metric_infos(metrics.collect());
    let mut data = HParamsPluginData::new();
    data.set_experiment(experiment);
    hparams_event("_hparams_/experiment", &data)
}

/// The row of this run.
pub(super) fn hparams_start(run: &HParams) -> Event {
    let mut start = SessionStartInfo::new();
    start.set_hparams(run.values.iter().map(|(name, value)| (name.clone(), json_value(value))).collect());
    // Otherwise the row would be named after the folder of the event files.
    start.set_group_name(run.row.clone());
    start.set_start_time_secs(now_secs());
    let mut data = HParamsPluginData::new();
    data.set_session_start_info(start);
    hparams_event("_hparams_/session_start_info", &data)
}

/// Marks this run as complete.
pub(super) fn hparams_end() -> Event {
    let mut end = SessionEndInfo::new();
    end.set_status(Status::STATUS_SUCCESS);
    end.set_end_time_secs(now_secs());
    let mut data = HParamsPluginData::new();
    data.set_session_end_info(end);
    hparams_event("_hparams_/session_end_info", &data)
}

/// The HParams plugin stores its data in the metadata of a summary with an empty tensor.
fn hparams_event(tag: &str, data: &HParamsPluginData) -> Event {
    let mut tensor = TensorProto::new();
    tensor.set_dtype(DataType::DT_FLOAT);
    tensor.set_tensor_shape(no_elements());
    let mut summary = tagged(tag);
    // Every field is set, so encoding cannot fail.
    summary.set_metadata(plugin("hparams", data.write_to_bytes().unwrap_or_default()));
    summary.set_tensor(tensor);
    with_summary(0, summary)
}

fn json_value(value: &HParam) -> Value {
    let mut json = Value::new();
    match value {
        HParam::Number(number) => json.set_number_value(*number),
        HParam::Text(text) => json.set_string_value(text.clone()),
        HParam::Flag(flag) => json.set_bool_value(*flag),
    }
    json
}

fn plugin(name: &str, content: Vec<u8>) -> SummaryMetadata {
    let mut data = SummaryMetadata_PluginData::new();
    data.set_plugin_name(name.into());
    data.set_content(content);
    let mut metadata = SummaryMetadata::new();
    metadata.set_plugin_data(data);
    metadata
}

/// One dimension of length 0.
fn no_elements() -> TensorShapeProto {
    let mut shape = TensorShapeProto::new();
    shape.set_dim(RepeatedField::from_vec(vec![TensorShapeProto_Dim::new()]));
    shape
}

fn tagged(tag: &str) -> Summary_Value {
    let mut value = Summary_Value::new();
    value.set_tag(tag.into());
    value
}

fn with_summary(step: u64, value: Summary_Value) -> Event {
    let mut summary = Summary::new();
    summary.set_value(RepeatedField::from_vec(vec![value]));
    let mut event = at(step);
    event.set_summary(summary);
    event
}

fn at(step: u64) -> Event {
    let mut event = Event::new();
    // Steps are counted, and no run takes 2^63 of them.
    event.set_step(step as i64);
    event
}
