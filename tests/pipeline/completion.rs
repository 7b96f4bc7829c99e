//! Tab completion, in a real bash.

use std::fs;
use std::path::Path;
use std::process::Command;

use oss_runs::run_dir::{Manifest, RunsDir};
use serde_json::Value;

use crate::project::{Ended, Project};
use crate::terminal::Terminal;

const VARIABLE: &str = "_OSS_RUN_COMPLETE";

/// A project with runs and experiments.
fn project() -> Project {
    let project = Project::new();
    let runs = RunsDir::new(project.path("runs"));
    for (name, id) in [("tiny", "a1b2c3d4e5"), ("tiny", "a1ffffffff"), ("quickstart", "0123456789")] {
        let run = runs.run(name, id);
        run.create().unwrap();
        Manifest::new(id, name, Value::Null).save(&run).unwrap();
    }
    fs::create_dir(project.path("runs/tiny/sweep")).unwrap();
    project.write("runs/tiny/sweep/ledger.jsonl", "");
    fs::create_dir(project.path("experiments")).unwrap();
    project.write("experiments/quickstart.toml", "");
    project
}

/// What `shell` is told about the last of `words`.
fn told(project: &Project, shell: &str, words: &[&str]) -> Vec<String> {
    let mut command = project.command("--");
    command.env(VARIABLE, shell).args(words);
    Ended::of(&mut command).ends_with(0).stdout.lines().map(str::to_owned).collect()
}

fn bash(project: &Project, line: &str) -> Vec<String> {
    told(project, "bash", &line.split(' ').collect::<Vec<_>>())
}

#[test]
fn each_argument_is_completed() {
    let project = project();
    for (line, expected) in [
        ("oss-run pl", &["plan"][..]),
        ("oss-run tin", &["tiny.toml"]),
        ("oss-run run tin", &["tiny.toml"]),
        ("oss-run plan ex", &["experiments/"]),
        ("oss-run plan experiments/", &["experiments/quickstart.toml"]),
        ("oss-run tiny.toml --stop", &["--stop-at-step"]),
        ("oss-run tiny.toml --runs", &["--runs-dir"]),
        ("oss-run run tiny.toml --until tr", &["train"]),
        ("oss-run run tiny.toml --until=tr", &["--until=train"]),
        ("oss-run show ", &["last", "quickstart", "tiny"]),
        ("oss-run show a1", &["a1b2c3d4e5", "a1ffffffff"]),
        ("oss-run diff last tiny/", &["tiny/a1b2c3d4e5", "tiny/a1ffffffff"]),
        ("oss-run rm tiny qu", &["quickstart"]),
        ("oss-run show --runs-dir elsewhere ti", &[]),
        ("oss-run report --sweep ", &["tiny"]),
        ("oss-run ls --state un", &["untrained"]),
        ("oss-run ls --columns id,na", &["id,name"]),
        ("oss-run ls --sort val_", &["val_loss"]),
        ("oss-run plan tiny.toml --set optim", &["optimizer."]),
        ("oss-run tiny.toml --set optimizer.l", &["optimizer.lr="]),
        ("oss-run resume last --set train.param_dtype=b", &["train.param_dtype=bf16"]),
        ("oss-run plan tiny.toml --set model.preset=2", &["model.preset=20b"]),
        ("oss-run plan tiny.toml --unset optimizer.l", &["optimizer.lr"]),
        ("oss-run export last --dtype f", &["f32", "f16"]),
        ("oss-run init mine --template st", &["stories"]),
        ("oss-run completions z", &["zsh"]),
    ] {
        assert_eq!(bash(&project, line), expected, "{line}");
    }
    let with_dash = bash(&project, "oss-run show -");
    assert!(
        with_dash.contains(&"--json".to_owned()) && !with_dash.contains(&"last".to_owned()),
        "{with_dash:?}"
    );
}

#[test]
fn words_that_readline_splits_are_completed_in_part() {
    let project = project();
    let set = ["oss-run", "tiny.toml", "--set", "train.param_dtype", "=", "b"];
    assert_eq!(told(&project, "bash", &set), ["bf16"]);
    let until = ["oss-run", "tiny.toml", "--until", "=", "tr"];
    assert_eq!(told(&project, "bash", &until), ["train"]);
    let dir = ["oss-run", "show", "--runs-dir", "=", "runs", "qu"];
    assert_eq!(told(&project, "bash", &dir), ["quickstart"]);
}

#[test]
fn zsh_and_fish_are_told_the_meanings() {
    let project = project();
    let zsh = told(&project, "zsh", &["oss-run", "show", "a1b"]);
    assert_eq!(zsh, ["a1b2c3d4e5:tiny"]);
    let fish = told(&project, "fish", &["oss-run", "tiny.toml", "--set", "optimizer.l"]);
    assert!(fish[0].starts_with("optimizer.lr=\tPeak learning rate"), "{fish:?}");
}

#[test]
fn every_shell_has_a_script() {
    let project = Project::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = project.oss_run(&format!("completions {shell}")).ends_with(0).stdout;
        assert!(script.contains(VARIABLE) && script.contains("oss-run"), "{shell}: {script}");
    }
}

/// A bash that completes `oss-run` as the documentation says.
fn interactive_bash(project: &Project) -> Terminal {
    let program = Path::new(env!("CARGO_BIN_EXE_oss-run"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("bash");
    shell.args(["--noprofile", "--norc", "-i"]).current_dir(project.path("")).env("PATH", path);
    shell.env("PS1", "$ ").env("INPUTRC", "/dev/null").env_remove("OSS_RUN_RUNS_DIR");
    let mut terminal = Terminal::start(shell, 120);
    terminal.press("source <(oss-run completions bash); echo \"ready: $?\"\r");
    terminal.wait_for("ready: 0");
    terminal
}

#[test]
fn tab_completes_in_bash() {
    let project = project();
    let mut bash = interactive_bash(&project);
    for (typed, completed) in [
        ("oss-run sho\tqu\t--json", "oss-run show quickstart --json"),
        ("oss-run tiny.toml --stop\t3", "oss-run tiny.toml --stop-at-step 3"),
        ("oss-run tiny.toml --set opt\tl\t1e-3", "oss-run tiny.toml --set optimizer.lr=1e-3"),
        ("oss-run plan tiny.toml --set train.param_dtype=b\t-q", "--set train.param_dtype=bf16 -q"),
        ("oss-run plan exp\tq\t--explain", "oss-run plan experiments/quickstart.toml --explain"),
        ("oss-run tiny.toml --until=tr\t-q", "oss-run tiny.toml --until=train -q"),
        ("oss-run diff tiny/a1b\tlast", "oss-run diff tiny/a1b2c3d4e5 last"),
    ] {
        bash.press(typed);
        bash.wait_for(completed);
        // Ctrl-U discards the line.
        bash.press("\u{15}");
    }
}
