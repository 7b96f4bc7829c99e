//! How ranks end: when one is killed, hangs or is asked to stop, and when the launcher is killed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::{exported, newest_checkpoint, on, project};
use crate::project::{Project, Started, losses};

/// Time within which all ranks must have ended after one has died.
const SOON: Duration = Duration::from_secs(30);

/// A run that takes long enough to be interrupted, with everything that can be due at a step.
fn long(values: &[&str]) -> Project {
    let project = project(&[
        "train.steps = 60",
        "checkpoint.every_steps = 3",
        "evaluate.every_steps = 4",
        "sample.every_steps = 5",
        "sample.max_new_tokens = 3",
        "evaluate.max_tokens = 600",
    ]);
    project.set(values);
    project
}

/// The exported weights and the losses of the uninterrupted run.
fn undisturbed(values: &[&str], options: &str) -> (Vec<u8>, Vec<(u64, f64)>) {
    let project = long(values);
    project.oss_run(&format!("tiny.toml {options}")).ends_with(0);
    results(&project)
}

fn results(project: &Project) -> (Vec<u8>, Vec<(u64, f64)>) {
    let run = project.the_run();
    (exported(&run.join("export")), losses(&run))
}

/// Child processes of `parent`, in rank order.
fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
}

/// Waits until `happened` returns true.
#[track_caller]
fn wait_until(what: &str, happened: impl Fn() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < 2 * SOON, "timed out waiting for {what}");
        thread::sleep(Duration::from_millis(3));
    }
}

fn steps_logged(project: &Project) -> usize {
    let runs = project.runs();
    let metrics = runs.first().and_then(|run| fs::read_to_string(run.join("metrics.jsonl")).ok());
    metrics.map_or(0, |text| text.lines().filter(|line| line.contains("\"loss\"")).count())
}

/// Starts a run on `ranks` ranks and waits until it has taken `steps` steps; also returns the ranks' process ids.
fn start(project: &Project, options: &str, ranks: usize, steps: usize) -> (Started, Vec<u32>) {
    let started = project.start(options);
    wait_until("the steps", || steps_logged(project) >= steps);
    let pids = children(started.pid());
    assert_eq!(pids.len(), ranks);
    (started, pids)
}

fn unfinished_folders(run: &Path) -> Vec<String> {
    let names = fs::read_dir(run.join("checkpoints")).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("step-") || name.contains('.'))
        .collect()
}

#[test]
fn a_killed_rank_ends_the_others_and_the_run_can_be_resumed() {
    // The rank is likely to be killed in the phase in which it spends most of its time.
    let phases: [(&str, &[&str]); 4] = [
        ("forward and backward", &[]),
        ("save", &["checkpoint.every_steps = 1"]),
        ("background save", &["checkpoint.every_steps = 1", "checkpoint.background = true"]),
        ("evaluate", &["evaluate.every_steps = 1", "evaluate.max_tokens = 2000"]),
    ];
    for (number, (phase, values)) in phases.into_iter().enumerate() {
        let options = on("fsdp", 3);
        let project = long(values);
        let (started, pids) = start(&project, &format!("tiny.toml {options}"), 3, 4 + 3 * number);
        thread::sleep(Duration::from_millis(7 * number as u64));
        let killed = number % 3;
        signal("KILL", pids[killed]);
        let since = Instant::now();
        let ended = started.end().ends_with(1);
        assert!(since.elapsed() < SOON, "{phase}: {:?}", since.elapsed());
        assert!(
            ended.stderr.contains(&format!("rank {killed} was killed by SIGKILL")),
            "{phase}: {}",
            ended.stderr
        );
        assert!(pids.iter().all(|pid| !is_alive(*pid)), "{phase}: a rank is still alive");
        project.oss_run("resume last").ends_with(0);
        assert!(results(&project) == undisturbed(values, &options), "{phase}: the results differ");
        assert_eq!(unfinished_folders(&project.the_run()), Vec::<String>::new(), "{phase}");
    }
}

#[test]
fn a_hanging_rank_is_reported_with_what_the_others_waited_for() {
    // Only steps, so that the rank hangs in one.
    let project = long(&[
        "sharding.timeout_seconds = 3",
        "checkpoint.every_steps = 60",
        "evaluate.every_steps = 0",
        "sample.every_steps = 0",
    ]);
    let (started, pids) = start(&project, &format!("tiny.toml {}", on("fsdp", 2)), 2, 3);
    signal("STOP", pids[1]);
    let since = Instant::now();
    let ended = started.end().ends_with(1);
    assert!(since.elapsed() < SOON);
    assert!(ended.stderr.contains("rank 0, step ") && ended.stderr.contains(": the "), "{}", ended.stderr);
    assert!(ended.stderr.contains("raise sharding.timeout_seconds"), "{}", ended.stderr);
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn a_stop_request_to_any_process_stops_all_ranks() {
    let options = on("fsdp", 3);
    let whole = undisturbed(&[], &options);
    // The launcher first, then two of the ranks.
    for whom in [None, Some(0), Some(2)] {
        let project = long(&[]);
        let (started, pids) = start(&project, &format!("tiny.toml {options}"), 3, 5);
        let steps_before = steps_logged(&project);
        signal("TERM", whom.map_or(started.pid(), |rank| pids[rank]));
        let ended = started.end().ends_with(75);
        assert!(ended.stderr.contains("resume with `oss-run resume "), "{}", ended.stderr);
        let newest = newest_checkpoint(&project.the_run());
        let step = newest.file_name().unwrap().to_str().unwrap().strip_prefix("step-").unwrap().to_owned();
        let step: usize = step.parse().unwrap();
        // The signal may have arrived during a step when the next was about to begin.
        assert!((steps_before..=steps_before + 2).contains(&step), "{step} after {steps_before}");
        assert!(pids.iter().all(|pid| !is_alive(*pid)));
        project.oss_run("resume last").ends_with(0);
        assert!(results(&project) == whole, "{whom:?}");
    }
}

#[test]
fn no_rank_outlives_the_launcher() {
    let project = long(&[]);
    let (started, pids) = start(&project, &format!("tiny.toml {}", on("ddp", 2)), 2, 3);
    signal("KILL", started.pid());
    started.end().ends_with(-1);
    wait_until("the ranks' end", || pids.iter().all(|pid| !is_alive(*pid)));
    project.oss_run("resume last").ends_with(0);
}

#[test]
fn ranks_are_restarted_as_often_as_allowed() {
    let options = on("fsdp", 2);
    let project = long(&[]);
    let (started, pids) =
        start(&project, &format!("tiny.toml {options} --set sharding.max_restarts=1"), 2, 7);
    signal("KILL", pids[1]);
    let ended = started.end().ends_with(0);
    assert!(ended.stderr.contains("rank 1 was killed by SIGKILL"), "{}", ended.stderr);
    assert!(results(&project) == undisturbed(&[], &options));
}
