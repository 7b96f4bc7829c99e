//! Monitoring across a kill and a resume: stop signals, the write lock, agreement of metrics and TensorBoard, redaction
//! of messages.
//!
//! Tests that need a separate process start this test binary again to run one ignored test.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use oss_config::error::ErrorReport;
use oss_runs::interrupt;
use oss_runs::monitor::{self, HParam, HParams, MetricsLog, Progress, Recorder, Unit, Verbosity};
use oss_runs::run_dir::{Environment, Exit, Manifest, RunDir, Segment, redact};
use serde_json::{Map, Value, json};

/// The directory that a child works in. A process without it is not a child, and its tests do nothing.
const CHILD_DIR: &str = "OSS_RUN_TEST_CHILD_DIR";

/// Set for a child that saves until it is killed.
const SAVES_LONG: &str = "OSS_RUN_TEST_SAVES_LONG";

const CANARY: &str = "hf_canary0123456789";

/// This test binary again, running only the ignored test `name` in `dir`.
fn child(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(CHILD_DIR, dir);
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The working directory, if this process is a child.
fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

fn fields(value: Value) -> Map<String, Value> {
    let Value::Object(fields) = value else { panic!("not an object: {value}") };
    fields
}

/// The line of one step of a simulated training.
fn measured(step: u64) -> Map<String, Value> {
    fields(json!({"loss": 4.0 / step as f64, "lr": 3e-4, "expert_load": [0.25, step as f64 / 7.0]}))
}

/// Trains from the checkpoint of `resume_at` to `last`.
fn train(run: &RunDir, resume_at: Option<u64>, last: u64) {
    let mut recorder = Recorder::open(run, resume_at).unwrap();
    recorder.tensorboard().hparams(&HParams {
        row: "tiny/0123456789".into(),
        values: BTreeMap::from([
            ("optimizer.lr".to_owned(), HParam::Number(3e-4)),
            ("train.precision".to_owned(), HParam::Text("f32".into())),
            ("run.deterministic".to_owned(), HParam::Flag(true)),
        ]),
        columns: BTreeSet::from(["optimizer.lr".to_owned()]),
        first: BTreeSet::new(),
        metrics: vec![(monitor::tag("val_loss"), "validation loss")],
    });
    for step in resume_at.unwrap_or(0) + 1..=last {
        recorder.record(step, &measured(step)).unwrap();
        if step % 4 == 0 {
            recorder
                .record(step, &fields(json!({"val_loss": 5.0 / step as f64, "val_bits_per_byte": null})))
                .unwrap();
            recorder.tensorboard().text("samples/0", step, &format!("Once upon a time, {step}"));
        }
    }
    recorder.sync().unwrap();
}

/// The files of a run that was stopped twice after its last checkpoint, and resumed.
fn interrupted_run(dir: &Path) -> RunDir {
    let run = RunDir::new(dir);
    run.create().unwrap();
    train(&run, None, 3);
    train(&run, None, 7);
    train(&run, Some(4), 10);
    train(&run, Some(8), 12);
    run
}

#[test]
fn a_resumed_run_has_the_metrics_of_an_uninterrupted_one() {
    let dir = tempfile::tempdir().unwrap();
    let resumed = interrupted_run(&dir.path().join("resumed"));
    let straight = RunDir::new(dir.path().join("straight"));
    straight.create().unwrap();
    train(&straight, None, 12);
    let lines = |run: &RunDir| {
        let mut lines = MetricsLog::read(&run.metrics()).unwrap();
        let times: Vec<_> = lines.iter_mut().map(|line| line.fields.remove(monitor::TIME)).collect();
        assert!(times.iter().all(Option::is_some), "{times:?}");
        lines
    };
    assert_eq!(lines(&resumed), lines(&straight));
    assert_eq!(lines(&resumed).len(), 12 + 3);
}

#[test]
#[ignore = "a child of the stop tests"]
fn child_works_until_it_is_stopped() {
    if child_dir().is_none() {
        return;
    }
    interrupt::install().unwrap();
    interrupt::install().unwrap();
    eprintln!("ready");
    let deadline = Instant::now() + Duration::from_secs(20);
    while interrupt::check().is_ok() {
        assert!(Instant::now() < deadline, "nobody asked for a stop");
        std::thread::sleep(Duration::from_millis(2));
    }
    eprintln!("saving");
    // A save that is cut short by a second signal.
    while Instant::now() < deadline && std::env::var_os(SAVES_LONG).is_some() {
        std::thread::sleep(Duration::from_millis(2));
    }
    std::process::exit(75);
}

/// Sends `signals` one at a time, when the child is ready for each, and returns its exit status and output lines.
fn stop(signals: &[&str], saves_long: bool) -> (ExitStatus, String) {
    let mut command = child("child_works_until_it_is_stopped", Path::new("."));
    if saves_long {
        command.env(SAVES_LONG, "");
    }
    let mut child = command.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    for (signal, line) in signals.iter().zip(["ready", "saving"]) {
        while !seen.lines().any(|seen| seen == line) {
            assert_ne!(stderr.read_line(&mut seen).unwrap(), 0, "the child ended early: {seen}");
        }
        let sent =
            Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
    stderr.read_to_string(&mut seen).unwrap();
    (child.wait().unwrap(), seen)
}

#[test]
fn the_first_signal_requests_a_stop_and_says_so() {
    for signal in ["INT", "TERM"] {
        let (status, seen) = stop(&[signal], false);
        assert_eq!(status.code(), Some(75), "{seen}");
        assert_eq!(
            seen.matches("finishing the current step, then saving; press Ctrl-C again to stop immediately\n")
                .count(),
            1,
            "{seen}"
        );
    }
}

#[test]
fn the_second_signal_stops_immediately() {
    let (status, seen) = stop(&["INT", "INT"], true);
    assert_eq!(status.code(), Some(130), "{seen}");
    let (status, seen) = stop(&["INT", "TERM"], true);
    assert_eq!(status.code(), Some(143), "{seen}");
}

#[test]
#[ignore = "a child of the test of the write lock"]
fn child_holds_the_write_lock() {
    let Some(dir) = child_dir() else { return };
    let _lock = RunDir::new(dir).lock_for_writing().unwrap();
    eprintln!("locked");
    std::thread::sleep(Duration::from_secs(20));
}

#[test]
fn a_run_in_use_is_refused_until_its_writer_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::new(dir.path());
    run.create().unwrap();
    let mut writer = child("child_holds_the_write_lock", dir.path()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(writer.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    let refused = ErrorReport::of(run.lock_for_writing().unwrap_err()).message;
    assert!(refused.contains(&format!("is in use by process {} on ", writer.id())), "{refused}");
    // SIGKILL: none of the writer's own code runs any more.
    writer.kill().unwrap();
    writer.wait().unwrap();
    run.lock_for_writing().unwrap();
}

#[test]
#[ignore = "a child of the test of secrets"]
fn child_meets_secrets() {
    let Some(dir) = child_dir() else { return };
    let run = RunDir::new(dir);
    run.create().unwrap();
    let _lock = run.lock_for_writing().unwrap();
    monitor::init_logging(Verbosity::Trace, None).unwrap();
    tracing::info!(target: "oss_run", "before the run is known: {CANARY}");
    monitor::log_to(&run.log(0)).unwrap();
    tracing::warn!(header = %format!("Bearer {CANARY}"), "the hub answered 401");
    tracing::error!("cannot get https://me:{CANARY}@hub.example/file");
    tracing::debug!(target: "oss_run", "a detail");
    let progress = Progress::new(CANARY, Some(10), Unit::Items);
    progress.advance(10);
    drop(progress);
    let mut manifest = Manifest::new("0123456789", "tiny", json!({}));
    let environment = Environment::capture(Path::new("."));
    manifest.segments.push(Segment {
        environment,
        exit: Some(Exit::Failed(redact(CANARY))),
        ..Segment::default()
    });
    manifest.save(&run).unwrap();
    manifest.save(&run).unwrap();
}

#[test]
fn no_secret_reaches_stderr_or_the_run_directory() {
    let dir = tempfile::tempdir().unwrap();
    let output = child("child_meets_secrets", dir.path())
        .env("HF_TOKEN", CANARY)
        .env("HF_ENDPOINT", format!("https://me:{CANARY}@hub.example"))
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(!stderr.contains(CANARY), "{stderr}");
    assert!(stderr.contains("before the run is known: [redacted]\n"), "{stderr}");
    assert!(stderr.contains("warning: the hub answered 401 header=Bearer [redacted]\n"), "{stderr}");
    assert!(stderr.contains("error: cannot get https://[redacted]@hub.example/file\n"), "{stderr}");

    let run = RunDir::new(dir.path());
    let log = fs::read_to_string(run.log(0)).unwrap();
    assert!(log.contains("before the run is known") && log.contains("a detail"), "{log}");
    let mut files = 0;
    let mut folders = vec![dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files += 1;
                assert!(
                    !String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(CANARY),
                    "{}",
                    path.display()
                );
            }
        }
    }
    assert_eq!(files, 4, "the lock, the log and two manifests");
}

#[test]
#[ignore = "a child of the test of quiet progress"]
fn child_makes_progress() {
    if child_dir().is_none() {
        return;
    }
    monitor::init_logging(Verbosity::Info, None).unwrap();
    let short = Progress::new("short work", Some(1), Unit::Items);
    short.advance(1);
    drop(short);
    let long = Progress::new("long work", Some(2000), Unit::Tokens);
    long.advance(1000);
    std::thread::sleep(Duration::from_millis(1100));
    long.message("all well");
    long.advance(500);
    long.advance(500);
}

#[test]
fn without_a_terminal_long_work_leaves_two_lines_and_short_work_none() {
    let output = child("child_makes_progress", Path::new(".")).output().unwrap();
    assert!(output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert_eq!(lines[0], "long work: 2,000 tokens to go");
    assert!(
        lines[1].starts_with("long work: 2,000 tokens in 1.") && lines[1].ends_with("/s), all well"),
        "{stderr}"
    );
}
