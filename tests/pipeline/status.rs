//! Run states: `ls`, `show`, `report` and `sweep` agree on every state a run can be in.

use std::fs;
use std::path::Path;
use std::process::Command;

use chrono::Utc;
use oss_runs::run_dir::{Exit, Manifest, RunDir, Stage, StageRecord, StageState, WriteLock};
use serde_json::{Value, json};

use crate::project::{Ended, Project};

/// A single trial, so that each case is both a run and a trial of a sweep.
const SWEEP: &str = r#"
[sweep]
base = "tiny.toml"
until = "export"

[sweep.parameters]
optimizer.lr = [1e-3]
"#;

/// A project whose trial has finished, and that can be restored to that state.
struct Fixture {
    project: Project,
    id: String,
}

impl Fixture {
    fn new() -> Self {
        let project = Project::new();
        project.write("lr.toml", SWEEP);
        let swept = project.oss_run("sweep lr.toml --json").ends_with(0);
        let id = document(&swept)["trials"][0]["run"].as_str().unwrap().to_owned();
        let fixture = Self { project, id };
        copy(&fixture.project.path("runs"), &fixture.project.path("finished"));
        fixture
    }

    fn restore(&self) {
        let runs = self.project.path("runs");
        fs::remove_dir_all(&runs).unwrap();
        copy(&self.project.path("finished"), &runs);
    }

    fn run(&self) -> RunDir {
        RunDir::new(self.project.path("runs/lr").join(&self.id))
    }

    /// Edits the run's manifest.
    fn change(&self, change: impl FnOnce(&mut Manifest)) {
        let run = self.run();
        let mut manifest = Manifest::load(&run).unwrap();
        change(&mut manifest);
        manifest.save(&run).unwrap();
    }

    /// Sets how the last start ended, and the state of its stages; stages that are not listed have not run.
    fn set(&self, exit: Option<Exit>, stages: &[(Stage, StageState)]) {
        self.change(|manifest| {
            let start = manifest.segments.last_mut().unwrap();
            start.finished = exit.is_some().then(Utc::now);
            start.exit = exit;
            let mut records = std::mem::take(&mut manifest.stages);
            for (stage, state) in stages {
                // Prepare has no record if a sweep prepared before its trials started, or another run did.
                let record = records.remove(stage.name()).unwrap_or_else(record);
                manifest.stages.insert(stage.name().to_owned(), StageRecord { state: *state, ..record });
            }
        });
    }

    /// Removes the last checkpoint, so that training is incomplete.
    fn cut(&self) {
        fs::remove_dir_all(self.run().checkpoints().join("step-00000006")).unwrap();
    }

    fn lock(&self) -> WriteLock {
        self.run().lock_for_writing().unwrap()
    }

    /// The state that each command reports, or the error message if a command fails.
    fn said(&self) -> [String; 4] {
        let asked = format!("runs/lr/{}", self.id);
        let word = |value: &Value| value.as_str().unwrap_or("nothing").to_owned();
        let told = |ended: Ended, word: &dyn Fn(&Ended) -> String| match ended.status {
            0 => word(&ended),
            _ => ended.stderr,
        };
        let listed = self.project.oss_run("ls --json");
        let shown = self.project.oss_run(&format!("show {asked} --json"));
        let reported = self.project.oss_run(&format!("report {asked} --out report.html"));
        let swept = self.project.oss_run("sweep lr.toml --dry-run --json");
        let badges = |_: &Ended| badges(&fs::read_to_string(self.project.path("report.html")).unwrap());
        if shown.status == 0 {
            // They agree on the state of each stage, too.
            let document = document(&shown);
            let stages = document["stages"].as_array().unwrap().iter();
            let words = [&document["state"]].into_iter().chain(stages.map(|stage| &stage["state"])).map(word);
            assert_eq!(words.collect::<Vec<_>>(), badges(&reported), "{document:#}");
        }
        [
            told(listed, &|ended| word(&document(ended)["runs"][0]["state"])),
            told(shown, &|ended| word(&document(ended)["state"])),
            told(reported, &|ended| badges(ended)[0].clone()),
            told(swept, &|ended| word(&document(ended)["trials"][0]["state"])),
        ]
    }

    /// Checks the state that `ls`, `show` and `report` print, and what `sweep` does.
    #[track_caller]
    fn says(&self, word: &str, trial: &str) {
        assert_eq!(self.said(), [word, word, word, trial]);
    }
}

fn document(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// The states shown on a page, that of the run first.
fn badges(page: &str) -> Vec<String> {
    let badge = |text: &str| text.split_once('>').unwrap().1.split_once('<').unwrap().0.to_owned();
    page.split("<span class=\"state ").skip(1).map(badge).collect()
}

fn record() -> StageRecord {
    StageRecord {
        state: StageState::Running,
        key: String::new(),
        version: 1,
        values: Default::default(),
        inputs: Default::default(),
        outputs: Default::default(),
        started: Utc::now(),
        finished: None,
        reason: None,
    }
}

#[test]
fn every_command_reports_the_same_state() {
    use Stage::{Evaluate, Export, Prepare, Sample, Train};
    use StageState::{Done, Failed, Running, Stopped};

    let fixture = Fixture::new();
    fixture.says("done", "done");

    // Never started, or died before writing anything: there is no run.
    let [listed, shown, reported, trial] = {
        fs::remove_dir_all(fixture.run().root()).unwrap();
        fixture.said()
    };
    assert_eq!([listed.as_str(), trial.as_str()], ["nothing", "waiting"]);
    assert!(shown.contains("is not a run directory") && reported.contains("is not a run directory"));
    fixture.restore();
    fs::remove_file(fixture.run().manifest()).unwrap();
    let [listed, shown, reported, trial] = fixture.said();
    assert_eq!([listed.as_str(), trial.as_str()], ["nothing", "waiting"]);
    assert!(shown.contains("is not a run directory") && reported.contains("is not a run directory"));

    // Running: preparing, training.
    for stages in [&[(Prepare, Running)][..], &[(Prepare, Done), (Train, Running)]] {
        fixture.restore();
        fixture.set(None, stages);
        fixture.cut();
        let lock = fixture.lock();
        fixture.says("running", "running");
        drop(lock);
        fixture.says("interrupted", "interrupted");
    }

    // Only prepared.
    fixture.restore();
    fixture.set(Some(Exit::Done), &[(Prepare, Done)]);
    fs::remove_dir_all(fixture.run().checkpoints()).unwrap();
    fixture.says("untrained", "untrained");

    // Stopped with a checkpoint; and only prepared again afterwards.
    for exit in [Exit::Stopped, Exit::Done] {
        fixture.restore();
        fixture.set(Some(exit), &[(Prepare, Done), (Train, Stopped)]);
        fixture.cut();
        fixture.says("stopped", "paused");
    }

    // Failed; and only prepared again afterwards.
    for exit in [Exit::Failed("train failed".into()), Exit::Done] {
        fixture.restore();
        fixture.set(Some(exit), &[(Prepare, Done), (Train, Failed)]);
        fixture.cut();
        fixture.says("failed", "failed");
    }

    // Killed in a later stage, and failed there.
    let trained = [(Prepare, Done), (Train, Done), (Evaluate, Done), (Sample, Done)];
    fixture.restore();
    fixture.set(None, &[&trained[..], &[(Export, Running)]].concat());
    fixture.says("interrupted", "interrupted");
    fixture.restore();
    fixture.set(Some(Exit::Failed("export failed".into())), &[&trained[..], &[(Export, Failed)]].concat());
    fixture.says("failed", "failed");

    // For a sweep that only requests training, the trial is done.
    fixture.project.write("lr.toml", &SWEEP.replace("\"export\"", "\"train\""));
    fixture.says("failed", "done");
    fixture.project.write("lr.toml", SWEEP);

    // Done, and then extended by more steps.
    fixture.restore();
    fixture.project.set(&["train.steps = 8"]);
    let raised = format!("resume runs/lr/{} --set train.steps=8 --until prepare", fixture.id);
    fixture.project.oss_run(&raised).ends_with(0);
    fixture.says("stopped", "paused");
    fixture.project.set(&["train.steps = 6"]);

    // An unreadable manifest.
    fixture.restore();
    fs::write(fixture.run().manifest(), "{").unwrap();
    let [listed, told @ ..] = fixture.said();
    assert_eq!(listed, "damaged");
    for text in told {
        assert!(text.contains("manifest.json is damaged"), "{text}");
    }
}

#[test]
fn a_sweep_report_does_not_show_outdated_states() {
    let fixture = Fixture::new();
    let results = fixture.project.path("runs/lr/sweep/results.jsonl");
    let mut row: Value = serde_json::from_str(&fs::read_to_string(&results).unwrap()).unwrap();
    let reported = |row: &Value| {
        fs::write(&results, format!("{row}\n")).unwrap();
        fixture.project.oss_run("report --sweep lr --out report.html").ends_with(0);
        let page = fs::read_to_string(fixture.project.path("report.html")).unwrap();
        let trials = page.split_once("id=\"trials\"").unwrap().1;
        badges(trials)[0].clone()
    };
    assert_eq!(reported(&row), "done");
    // The sweep was killed while the trial was running, and the trial with it.
    row["state"] = json!("running");
    fixture.set(None, &[(Stage::Prepare, StageState::Done), (Stage::Train, StageState::Running)]);
    assert_eq!(reported(&row), "interrupted");
    let lock = fixture.lock();
    assert_eq!(reported(&row), "running");
    drop(lock);
    // A recorded outcome does not change.
    row["state"] = json!("stopped");
    assert_eq!(reported(&row), "stopped");
}
