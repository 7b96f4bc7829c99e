//! Many run directories, generated without training: `ls` shows what was written for each.

use oss_runs::monitor::MetricsLog;
use oss_runs::run_dir::{Exit, Manifest, RunsDir, Segment, StageRecord, StageState};
use serde_json::{Value, json};

use crate::project::Project;

const RUNS: u64 = 120;

/// Writes run `n`: one in three is stopped halfway, each with its own learning rate and losses.
fn write(runs: &RunsDir, n: u64) {
    let name = if n.is_multiple_of(2) { "even" } else { "odd" };
    let id = format!("{n:010x}");
    let run = runs.run(name, &id);
    run.create().unwrap();
    let is_stopped = n.is_multiple_of(3);
    let experiment = json!({
        "run": {"name": name, "labels": {"group": (n % 5).to_string()}},
        "optimizer": {"lr": 1e-4 * (n + 1) as f64},
        "train": {"steps": 20},
    });
    let mut manifest = Manifest::new(&*id, name, experiment);
    // The run started last is written first, so that the order on disk differs from the order in time.
    let started = manifest.created - chrono::TimeDelta::minutes(n as i64);
    manifest.created = started;
    manifest.segments.push(Segment {
        started,
        finished: Some(started + chrono::TimeDelta::seconds(n as i64)),
        exit: Some(if is_stopped { Exit::Stopped } else { Exit::Done }),
        ..Segment::default()
    });
    let record = StageRecord {
        state: if is_stopped { StageState::Stopped } else { StageState::Done },
        key: String::new(),
        version: 1,
        values: Default::default(),
        inputs: Default::default(),
        outputs: Default::default(),
        started,
        finished: None,
        reason: None,
    };
    manifest.stages.insert("train".to_owned(), record);
    manifest.save(&run).unwrap();
    let mut log = MetricsLog::open(&run.metrics(), None).unwrap();
    for step in 1..=if is_stopped { 10 } else { 20 } {
        let loss = 5.0 / step as f64 + n as f64;
        log.append(step, json!({"loss": loss, "grad_norm": 1.0}).as_object().unwrap()).unwrap();
        if step % 5 == 0 {
            log.append(step, json!({"val_loss": loss + 0.5}).as_object().unwrap()).unwrap();
        }
    }
}

#[test]
fn many_runs_are_listed_filtered_and_sorted() {
    let project = Project::new();
    let runs = RunsDir::new(project.path("runs"));
    (0..RUNS).for_each(|n| write(&runs, n));
    let list = |arguments: &str| -> Vec<Value> {
        let ended = project.oss_run(&format!("ls --json {arguments}")).ends_with(0);
        let document: Value = serde_json::from_str(&ended.stdout).unwrap();
        document["runs"].as_array().unwrap().clone()
    };
    let number = |run: &Value| u64::from_str_radix(run["id"].as_str().unwrap(), 16).unwrap();

    let all = list("");
    assert_eq!(
        all.iter().map(number).collect::<Vec<_>>(),
        (0..RUNS).rev().collect::<Vec<_>>(),
        "newest last"
    );
    for run in &all {
        let n = number(run);
        let is_stopped = n.is_multiple_of(3);
        let last = if is_stopped { 10 } else { 20 };
        let loss = 5.0 / last as f64 + n as f64;
        assert_eq!(run["state"], if is_stopped { "stopped" } else { "done" }, "{n}");
        assert_eq!((run["step"].as_u64(), run["steps"].as_u64()), (Some(last), Some(20)), "{n}");
        assert_eq!((run["loss"].as_f64(), run["val_loss"].as_f64()), (Some(loss), Some(loss + 0.5)), "{n}");
        assert_eq!(run["duration"].as_f64(), Some(n as f64), "{n}");
        assert_eq!(run["labels"], json!({"group": (n % 5).to_string()}), "{n}");
    }
    let chosen = list("odd --state stopped --label group=1 --where val_loss<60 --sort loss");
    let expected: Vec<u64> = (0..59).filter(|n| n % 2 == 1 && n % 3 == 0 && n % 5 == 1).collect();
    assert_eq!(chosen.iter().map(number).collect::<Vec<_>>(), expected);
    let by_rate = list("even --sort -optimizer.lr --columns id,optimizer.lr");
    assert_eq!(
        by_rate.iter().map(number).collect::<Vec<_>>(),
        (0..RUNS).rev().filter(|n| n % 2 == 0).collect::<Vec<_>>()
    );
    assert_eq!(by_rate[0]["optimizer.lr"], 1e-4 * 119.0);

    let found = project.oss_run("diff 0000000001 0000000002 --json").ends_with(0);
    let found: Value = serde_json::from_str(&found.stdout).unwrap();
    let what: Vec<&str> =
        found["configuration"].as_array().unwrap().iter().map(|it| it["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["optimizer.lr", "run.labels", "run.name"]);
    assert_eq!(found["first_different_loss"], json!({"step": 1, "left": 6.0, "right": 7.0}));
}
