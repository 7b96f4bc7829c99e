use tensorboard_rs::masked_crc32c::masked_crc32c;

use super::*;

/// The events of all files in `dir`, in the order in which TensorBoard reads them; framing and checksums are verified.
fn events(dir: &Path) -> Vec<Event> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().flat_map(|path| records(&fs::read(path).unwrap())).collect()
}

fn records(mut bytes: &[u8]) -> Vec<Event> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_at(8);
        let (header_sum, rest) = rest.split_at(4);
        let (record, rest) = rest.split_at(u64::from_le_bytes(header.try_into().unwrap()) as usize);
        let (record_sum, rest) = rest.split_at(4);
        assert_eq!(header_sum, masked_crc32c(header).to_le_bytes());
        assert_eq!(record_sum, masked_crc32c(record).to_le_bytes());
        found.push(Event::parse_from_bytes(record).unwrap());
        bytes = rest;
    }
    found
}

#[test]
fn what_is_written_can_be_read_before_the_file_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut board = TensorBoard::open(dir.path(), Some(0));
    board.scalar("loss", 7, 2.5);
    board.text("sample/0", 7, "Once upon a time");
    board.flush();
    let events = events(dir.path());
    assert_eq!(events.len(), 3, "the first file of a folder has nothing to purge");
    assert_eq!(events[0].get_file_version(), "brain.Event:2");
    assert!(events[0].get_wall_time() > 1.7e9);
    let loss = &events[1].get_summary().get_value()[0];
    assert_eq!((events[1].get_step(), loss.get_tag(), loss.get_simple_value()), (7, "loss", 2.5));
    let text = &events[2].get_summary().get_value()[0];
    assert_eq!(text.get_metadata().get_plugin_data().get_plugin_name(), "text");
    assert_eq!(text.get_tensor().get_string_val(), [b"Once upon a time"]);
    drop(board);
}

#[test]
fn a_resumed_run_writes_a_later_file_that_purges() {
    let dir = tempfile::tempdir().unwrap();
    for start in 0..3u64 {
        let mut board = TensorBoard::open(dir.path(), Some(start * 10));
        board.scalar("loss", start * 10, 1.0);
    }
    let events = events(dir.path());
    let steps: Vec<_> = events.iter().filter(|event| event.has_summary()).map(Event::get_step).collect();
    assert_eq!(steps, [0, 10, 20], "files sort in the order of the starts, even within one second");
    let purges: Vec<_> = events.iter().filter(|event| event.has_session_log()).map(Event::get_step).collect();
    assert_eq!(purges, [10, 20]);
}

#[test]
fn hparams_are_written_as_three_summaries() {
    use tensorboard_proto::api::HParamInfo;
    use tensorboard_proto::plugin_hparams::HParamsPluginData;

    let dir = tempfile::tempdir().unwrap();
    let mut board = TensorBoard::open(dir.path(), None);
    board.hparams(&HParams {
        row: "tiny/0123456789".into(),
        values: BTreeMap::from([
            ("optimizer.lr".to_owned(), HParam::Number(3e-4)),
            ("train.precision".to_owned(), HParam::Text("bf16".into())),
            ("run.deterministic".to_owned(), HParam::Flag(true)),
            ("run.seed".to_owned(), HParam::Number(1.0)),
        ]),
        columns: ["optimizer.lr", "run.deterministic", "train.precision"].map(str::to_owned).into(),
        first: BTreeSet::from(["optimizer.lr".to_owned()]),
        metrics: vec![("validation/loss".into(), "validation loss")],
    });
    board.finish();
    let data: Vec<_> = events(dir.path())[1..]
        .iter()
        .map(|event| {
            let plugin = event.get_summary().get_value()[0].get_metadata().get_plugin_data();
            assert_eq!(plugin.get_plugin_name(), "hparams");
            HParamsPluginData::parse_from_bytes(plugin.get_content()).unwrap()
        })
        .collect();
    assert_eq!(data.len(), 3);
    let columns = data[0].get_experiment().get_hparam_infos();
    let differs = |column: &HParamInfo| column.get_unknown_fields().get(7).is_some();
    let shown: Vec<_> = columns.iter().map(|column| (column.get_name(), differs(column))).collect();
    assert_eq!(shown, [("optimizer.lr", true), ("run.deterministic", false), ("train.precision", false)]);
    let metric = &data[0].get_experiment().get_metric_infos()[0];
    assert_eq!(
        (metric.get_name().get_tag(), metric.get_display_name()),
        ("validation/loss", "validation loss")
    );
    let start = data[1].get_session_start_info();
    assert_eq!(start.get_group_name(), "tiny/0123456789");
    assert_eq!(start.get_hparams().len(), 4, "a value needs no column");
    assert_eq!(start.get_hparams()["optimizer.lr"].get_number_value(), 3e-4);
    assert!(data[2].has_session_end_info());
}

#[test]
fn an_unwritable_directory_does_not_stop_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let in_the_way = dir.path().join("tensorboard");
    fs::write(&in_the_way, "a file").unwrap();
    let mut board = TensorBoard::open(&in_the_way, None);
    board.scalar("loss", 1, 1.0);
    board.finish();
    assert!(board.writer.is_none());
}

#[test]
fn a_full_disk_only_ends_tensorboard_logging() {
    let mut board = TensorBoard {
        dir: "/dev".into(),
        writer: Some(RecordWriter::new(BufWriter::new(
            OpenOptions::new().write(true).open("/dev/full").unwrap(),
        ))),
    };
    board.scalar("loss", 1, 1.0);
    board.flush();
    assert!(board.writer.is_none());
    board.scalar("loss", 2, 1.0);
}
