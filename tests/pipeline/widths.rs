//! What people see in terminals of different widths: columns are left out, and no id or key is broken apart.

use chrono::{DateTime, TimeDelta, Utc};
use oss_runs::monitor::MetricsLog;
use oss_runs::run_dir::{Exit, Manifest, RunsDir, Segment, StageRecord, StageState};
use regex::Regex;
use serde_json::{Value, json};

use crate::project::Project;
use crate::terminal::Terminal;

const WIDTHS: [u16; 4] = [60, 80, 120, 200];

/// The screens of `arguments` in terminals of each width, under a ruler of that width.
fn screens(project: &Project, arguments: &str, redacted: impl Fn(&str) -> String) -> String {
    let screen = |width: u16| {
        let mut command = project.command(arguments);
        command.env("TZ", "UTC");
        let rows = Terminal::after(command, width).rows();
        format!("{}\n{}", "-".repeat(usize::from(width)), redacted(&rows.join("\n")))
    };
    WIDTHS.map(screen).join("\n\n")
}

fn replaced(text: &str, patterns: &[(&str, &str)]) -> String {
    patterns.iter().fold(text.to_owned(), |text, (pattern, with)| {
        Regex::new(pattern).unwrap().replace_all(&text, *with).into_owned()
    })
}

/// A run that was trained at a fixed time.
fn write(runs: &RunsDir, name: &str, id: &str, experiment: Value, state: StageState, losses: &[f64]) {
    let run = runs.run(name, id);
    run.create().unwrap();
    let started: DateTime<Utc> = "2026-05-04T12:30:00Z".parse().unwrap();
    let mut manifest = Manifest::new(id, name, experiment);
    manifest.created = started;
    manifest.segments.push(Segment {
        started,
        finished: Some(started + TimeDelta::seconds(754)),
        exit: Some(if state == StageState::Done { Exit::Done } else { Exit::Stopped }),
        ..Segment::default()
    });
    let outputs = [("weights".to_owned(), json!(id.repeat(5)))].into();
    let record = StageRecord {
        state,
        key: String::new(),
        version: 1,
        values: Default::default(),
        inputs: Default::default(),
        outputs,
        started,
        finished: None,
        reason: None,
    };
    manifest.stages.insert("train".to_owned(), record);
    manifest.save(&run).unwrap();
    let mut log = MetricsLog::open(&run.metrics(), None).unwrap();
    for (step, loss) in (1..).zip(losses) {
        let fields = json!({"loss": loss, "val_loss": loss + 0.125, "tokens_per_second": 12345.0});
        log.append(step, fields.as_object().unwrap()).unwrap();
    }
}

fn with_runs() -> Project {
    let project = Project::new();
    let runs = RunsDir::new(project.path("runs"));
    let experiment = |name: &str, lr: f64, prompt: &str| {
        json!({
            "run": {"name": name, "labels": {"team": "speech", "owner": "ann"}},
            "optimizer": {"lr": lr},
            "model": {"rope_scaling": {"original_max_position_embeddings": (lr * 1e6) as u64}},
            "sample": {"prompts": [prompt]},
            "train": {"steps": 3},
        })
    };
    let long = "Once upon a time, in a small house at the edge of a dark forest, there lived a fox.";
    let name = "a-longer-name-of-an-experiment";
    write(
        &runs,
        "tiny",
        "c598553264",
        experiment("tiny", 1e-3, "One"),
        StageState::Done,
        &[5.5, 4.25, 3.0625],
    );
    write(&runs, name, "4126dc7dc7", experiment(name, 3e-4, long), StageState::Stopped, &[5.75, 4.5]);
    project
}

#[test]
fn ls_at_each_width() {
    let project = with_runs();
    insta::assert_snapshot!("ls", screens(&project, "ls", str::to_owned));
    let columns = "ls --columns id,optimizer.lr,model.rope_scaling.original_max_position_embeddings,sample.prompts,labels";
    insta::assert_snapshot!("ls_columns", screens(&project, columns, str::to_owned));
}

#[test]
fn diff_at_each_width() {
    insta::assert_snapshot!("diff", screens(&with_runs(), "diff c59 412", str::to_owned));
}

#[test]
fn plan_at_each_width() {
    let project = Project::new();
    let redacted = |screen: &str| {
        replaced(
            screen,
            &[(r"tiny/[0-9a-f]{10}", "tiny/0123456789"), (r",\s+[\d.]+\s+\w+\s+free", ", 1.00 TiB free")],
        )
    };
    insta::assert_snapshot!(
        "plan",
        screens(&project, "plan tiny.toml --unset dataset.files --set dataset.builtin=stories", redacted)
    );
}

#[test]
fn sweep_at_each_width() {
    let project = Project::new();
    project.write("lr.toml", "[sweep]\nbase = \"tiny.toml\"\n[sweep.parameters]\noptimizer.lr = [1e-5, 1e-2]\ntrain.global_batch_size = [2]\ndataset.validation.fraction = [0.2]\n");
    project.oss_run("sweep lr.toml").ends_with(0);
    let redacted =
        |screen: &str| replaced(screen, &[(r"\b[0-9a-f]{10}\b", "0123456789"), (r"\b\d\.\d{4}\b", "1.2345")]);
    insta::assert_snapshot!("sweep", screens(&project, "sweep lr.toml --dry-run", redacted));
}

/// The lines of a run are as wide as they are: a terminal wraps them, and they can be copied.
#[test]
fn a_run_leaves_the_same_lines_at_each_width() {
    let lines = |width: u16| {
        let lines = Terminal::after(Project::new().command("tiny.toml"), width).lines();
        // Whatever took longer than a second has a line of its own.
        let lines: Vec<&str> = lines.lines().filter(|line| !line.contains(" s (")).collect();
        replaced(&lines.join("\n"), &[(r"[0-9a-f]{10}", "ID"), (r"\d[\d.,]*", "N")])
    };
    let [first, others @ ..] = WIDTHS.map(lines);
    insta::assert_snapshot!("run", first);
    for other in others {
        assert_eq!(first, other);
    }
}
