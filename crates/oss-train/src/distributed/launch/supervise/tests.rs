//! Ranks here are small shell scripts, or this test program re-executed in another role.

use std::env;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::distributed::exit_with_parent;
use oss_runs::interrupt;

/// Short enough for a test.
const PATIENCE: GracePeriod =
    GracePeriod { cause: Duration::from_millis(300), order: Duration::from_millis(300) };

/// The role that this program plays for a test.
const ROLE: &str = "OSS_RUN_TEST_ROLE";
/// The directory in which ranks write their pids.
const PLACE: &str = "OSS_RUN_TEST_PLACE";

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn outcome(scripts: &[&str]) -> Outcome {
    supervise(scripts.iter().map(|script| shell(script)).collect(), PATIENCE, || false).unwrap()
}

fn failed(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

/// Re-executes this program as `role`.
fn as_role(role: &str, place: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    // A test is selected by its path inside the crate.
    let (_, module) = module_path!().split_once("::").unwrap();
    command.args(["--exact", &format!("{module}::plays_a_role"), "--nocapture", "--quiet"]);
    command.env(ROLE, role).env(PLACE, place).stdout(Stdio::null());
    command
}

#[test]
fn plays_a_role() {
    let Ok(role) = env::var(ROLE) else { return };
    let place = env::var_os(PLACE).unwrap();
    let place = Path::new(&place);
    match role.as_str() {
        // One rank that notices the end of its input, and one that also requests the parent-death signal.
        "launcher" => {
            let watcher = format!("echo $$ > {}/watcher; cat > {0}/input", place.display());
            let commands = vec![shell(&watcher), as_role("rank", place)];
            supervise(commands, PATIENCE, || false).unwrap();
        }
        "rank" => {
            exit_with_parent().unwrap();
            fs::write(place.join("rank"), std::process::id().to_string()).unwrap();
            thread::sleep(Duration::from_secs(60));
        }
        "stopping rank" => {
            exit_with_parent().unwrap();
            while !interrupt::requested() {
                thread::sleep(PAUSE);
            }
            std::process::exit(75);
        }
        other => panic!("no role {other}"),
    }
}

/// Waits for the pid that a process writes to `file`.
fn told(file: &Path) -> i32 {
    let start = Instant::now();
    loop {
        let number = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
        match number {
            Some(number) => return number,
            None => assert!(start.elapsed() < Duration::from_secs(20), "nothing in {}", file.display()),
        }
        thread::sleep(PAUSE);
    }
}

/// Whether a process exists and is running; zombies do not count.
fn runs(process: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The process name, in parentheses, may contain anything.
    stat.rsplit_once(')').is_some_and(|(_, after)| !after.trim_start().starts_with(['Z', 'X']))
}

fn ends_within(process: i32, limit: Duration) -> bool {
    let start = Instant::now();
    while runs(process) && start.elapsed() < limit {
        thread::sleep(PAUSE);
    }
    !runs(process)
}

#[test]
fn exit_statuses_determine_the_outcome() {
    assert_eq!(outcome(&["exit 0", "exit 0", "sleep 0.1"]), Outcome::Done);
    assert_eq!(outcome(&["exit 75", "sleep 0.1; exit 75"]), Outcome::Stopped);
    assert_eq!(outcome(&["exit 0", "sleep 0.3; exit 75"]), Outcome::Stopped);
    let wrong = Failure { rank: 1, how: ExitReason::Status(2), last_lines: vec!["no such key".into()] };
    assert_eq!(outcome(&["sleep 60", "echo no such key >&2; exit 2"]), Outcome::Wrong(wrong));
}

#[test]
fn the_first_failure_is_reported_with_its_last_lines() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("number");
    // The pid of the first rank to fail exists until the launcher has noticed that it has ended.
    let second = format!(
        "{}; while kill -0 $(cat {}) 2> /dev/null; do :; done; exit 1",
        wait_for(&file),
        file.display()
    );
    let first =
        format!("for line in $(seq 30); do echo line $line >&2; done; echo $$ > {}; exit 3", file.display());
    let failure = failed(outcome(&[&second, &first, "sleep 60"]));
    assert_eq!((failure.rank, failure.how), (1, ExitReason::Status(3)));
    let expected: Vec<String> = (11..=30).map(|line| format!("line {line}")).collect();
    assert_eq!(failure.last_lines, expected);
}

#[test]
fn a_killed_rank_is_the_cause_even_if_others_fail_first() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("complained");
    let complains = format!("echo x > {}; exit 1", file.display());
    let dies = format!("{}; kill -9 $$", wait_for(&file));
    let failure = failed(outcome(&[&complains, "exit 0", &dies]));
    assert_eq!((failure.rank, failure.how), (2, ExitReason::Signal(9)));
}

#[test]
fn an_unresponsive_rank_is_killed_with_its_children() {
    let place = tempfile::tempdir().unwrap();
    let inner = place.path().join("inner");
    let stubborn = format!("trap '' TERM; sleep 60 & echo $! > {}; wait; sleep 60", inner.display());
    let start = Instant::now();
    let failure = failed(outcome(&[&format!("{}; exit 1", wait_for(&inner)), &stubborn]));
    assert_eq!((failure.rank, failure.how), (0, ExitReason::Status(1)));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(ends_within(told(&inner), Duration::from_secs(2)));
}

#[test]
fn after_a_failure_the_others_are_asked_to_stop_before_they_are_killed() {
    let place = tempfile::tempdir().unwrap();
    let tidied = place.path().join("tidied");
    let tidy = format!("read word; echo $word > {}; exit 75", tidied.display());
    assert_eq!(failed(outcome(&["exit 1", &tidy])).rank, 0);
    assert_eq!(fs::read_to_string(tidied).unwrap(), "stop\n");
}

/// A script that waits until `file` is not empty.
fn wait_for(file: &Path) -> String {
    format!("until [ -s {} ]; do sleep 0.01; done", file.display())
}

#[test]
fn a_stop_request_is_forwarded_once_to_each_rank() {
    let place = tempfile::tempdir().unwrap();
    // It exits only after the launcher has had time to repeat the request. A shell connects a background command to
    // its standard input only if that is explicitly redirected.
    let rank = |name: &str| {
        let heard = place.path().join(name);
        let listen = format!("while read word; do echo $word >> {}; done", heard.display());
        shell(&format!("exec 3<&0; {listen} <&3 & sleep 0.3; exit 75"))
    };
    let outcome = supervise(vec![rank("a"), rank("b")], PATIENCE, || true);
    assert_eq!(outcome.unwrap(), Outcome::Stopped);
    for name in ["a", "b"] {
        assert_eq!(fs::read_to_string(place.path().join(name)).unwrap(), "stop\n");
    }
}

#[test]
fn a_rank_reacts_to_a_stop_request_and_to_the_exit_of_its_launcher() {
    let place = tempfile::tempdir().unwrap();
    let ranks = vec![as_role("stopping rank", place.path()), as_role("stopping rank", place.path())];
    assert_eq!(supervise(ranks, PATIENCE, || true).unwrap(), Outcome::Stopped);

    let mut rank = as_role("rank", place.path()).stdin(Stdio::piped()).spawn().unwrap();
    told(&place.path().join("rank"));
    drop(rank.stdin.take());
    assert_eq!(rank.wait().unwrap().code(), Some(1));
}

#[test]
fn if_a_command_cannot_start_those_already_started_are_killed() {
    let place = tempfile::tempdir().unwrap();
    let script = format!("echo $$ > {}/first; sleep 60", place.path().display());
    let commands = vec![shell(&script), Command::new("/nowhere/oss-run")];
    assert!(supervise(commands, PATIENCE, || false).is_err());
    // It may have been killed before it wrote its pid.
    if place.path().join("first").exists() {
        assert!(!runs(told(&place.path().join("first"))));
    }
}

#[test]
fn a_killed_launcher_leaves_no_rank_behind() {
    let place = tempfile::tempdir().unwrap();
    let mut launcher = as_role("launcher", place.path()).spawn().unwrap();
    let ranks = ["watcher", "rank"].map(|name| told(&place.path().join(name)));
    assert!(ranks.into_iter().all(runs));
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    for rank in ranks {
        assert!(ends_within(rank, Duration::from_secs(5)), "process {rank} is still running");
    }
}
