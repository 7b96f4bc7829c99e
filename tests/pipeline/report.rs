//! Reports: a single self-contained file about runs in any state.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::project::Project;

/// Text that would end or start a script if it were not escaped.
const HOSTILE: &str = "</script><img src=x onerror=alert(1)>";

fn page(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_report_is_written_to_the_run_directory() {
    let project = Project::with(&["sample.every_steps = 3", "run.notes = \"a first try\""]);
    project.oss_run("tiny.toml").ends_with(0);
    let run = project.the_run();
    let ended = project.oss_run("report last").ends_with(0);
    let out = project.path(ended.stdout.trim());
    assert_eq!(out.canonicalize().unwrap(), run.join("report.html").canonicalize().unwrap());
    let page = page(&out);
    for words in [
        "validation loss",
        "train/grad_norm",
        "after step 3",
        "finished",
        "a first try",
        "sequence_length",
        "never ran",
        "libtorch",
        "<noscript><svg",
        "<script>(() => {",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(page.contains("<b>loss</b>") && page.contains("validation</span>"), "both losses in one chart");
    assert!(!page.contains("<b>train/loss</b>") && !page.contains("<b>validation/loss</b>"));
    assert!(page.contains("data-to=\"time\""), "every line of the metrics has a time");
    for outside in ["src=\"http", "href=\"http", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let again = project.oss_run("tiny.toml").ends_with(0);
    assert_eq!(again.ran(), [""; 0], "a report makes nothing stale");
}

#[test]
fn a_stopped_run_with_a_torn_log_can_be_reported() {
    let project = Project::new();
    project.oss_run("tiny.toml --stop-at-step 3").ends_with(75);
    let run = project.the_run();
    let log = page(&run.join("metrics.jsonl"));
    // The writer is in the middle of a line.
    fs::write(run.join("metrics.jsonl"), format!("{log}{{\"step\":4,\"lo")).unwrap();
    project.oss_run("report last --out here.html").ends_with(0);
    let text = page(&project.path("here.html"));
    assert!(text.contains(">stopped<") && text.contains("of 6"), "{text}");
    assert!(!run.join("report.html").exists());
    let nowhere = project.oss_run("report last --out none/here.html").ends_with(1);
    assert!(nowhere.stderr.contains("hint: choose another file with --out"), "{}", nowhere.stderr);
    project.oss_run("report nothing").ends_with(2);
    project.oss_run("report").ends_with(2);
}

#[test]
fn several_runs_are_compared_and_user_text_is_escaped() {
    let project = Project::with(&["sample.every_steps = 3"]);
    project.set(&[&format!("run.notes = '{HOSTILE}'"), &format!("sample.prompts = ['{HOSTILE}']")]);
    project.oss_run("tiny.toml").ends_with(0);
    let first = project.the_run();
    project
        .command("tiny.toml --until train --set run.seed=5")
        .args(["--set", "run.notes=https://me:hf_canary@hub.example"])
        .output()
        .unwrap();
    let runs = project.runs();
    assert_eq!(runs.len(), 2);
    let named = format!("report {} {}", runs[0].display(), runs[1].display());
    let ended = project.oss_run(&named).ends_with(0);
    assert_eq!(ended.stdout, "report.html\n");
    let text = page(&project.path("report.html"));
    assert!(text.contains("Where the runs differ") && text.contains("run.seed"));
    assert!(text.contains("tiny: 2 runs"));
    for name in ["run.seed=0", "run.seed=5"] {
        assert!(text.contains(&format!("</i>{name}</button>")), "the legend has {name}: {text}");
    }
    assert!(!text.contains(HOSTILE) && !text.contains("<img"), "escaped everywhere");
    assert!(text.contains("&lt;/script&gt;&lt;img"), "and shown");
    assert!(!text.contains("hf_canary"), "no secret");
    assert!(text.contains(&format!("tiny/{}", first.file_name().unwrap().to_str().unwrap())));
}

#[test]
fn a_sweep_report_has_its_trials_and_best_runs() {
    let project = Project::new();
    project.oss_run("tiny.toml --until train").ends_with(0);
    let id = project.the_run().file_name().unwrap().to_str().unwrap().to_owned();
    let missing = project.oss_run("report --sweep tiny").ends_with(2);
    assert!(missing.stderr.contains("no sweep `tiny`"), "{}", missing.stderr);
    let line = |trial: u64, run: &str, state: &str, value: Option<f64>| {
        json!({"trial": trial, "run": run, "state": state, "values": {"optimizer.lr": 0.1 / trial as f64, "run.name": HOSTILE},
               "metric": "val_loss", "direction": "minimize", "value": value, "step": 6, "steps": 6, "seconds": 1.5})
    };
    let lines = [
        line(1, &id, "done", Some(2.5)),
        line(2, "gone", "failed", None),
        line(3, "other", "stopped", Some(1.0)),
    ];
    fs::create_dir_all(project.path("runs/tiny/sweep")).unwrap();
    project.write("runs/tiny/sweep/results.jsonl", &lines.map(|line| format!("{line}\n")).concat());
    let ended = project.oss_run("report --sweep tiny").ends_with(0);
    assert_eq!(ended.stdout, "report.html\n");
    let text = page(&project.path("report.html"));
    assert!(text.contains("3 trials, 1 done, 1 stopped, 1 failed"));
    assert!(text.contains("The best is trial <b>1</b>"), "the best trial that finished");
    assert!(text.contains(&format!("tiny/{id}")), "its curves are shown");
    assert!(!text.contains(HOSTILE) && !text.contains("<img"));
}
