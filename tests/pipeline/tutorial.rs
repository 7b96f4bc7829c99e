//! Runs the tutorial's commands in order, each in a shell as a reader would type it, with a tiny model.

use std::path::Path;
use std::process::Command;

use crate::project::Project;

const TUTORIAL: &str = include_str!("../../docs/tutorial.md");

/// End-of-line marker of a command that needs the network, a browser, or another program.
const BY_HAND: &str = "# by hand";

/// Settings that make the tutorial's experiments quick. Variables override the file and are overridden by the
/// tutorial's own `--set`.
const QUICK: [(&str, &str); 9] = [
    ("OSS_RUN__DATASET__TOKENIZER", "bytes"),
    ("OSS_RUN__MODEL__PRESET", "tiny"),
    ("OSS_RUN__MODEL__HIDDEN_SIZE", "16"),
    ("OSS_RUN__TRAIN__GLOBAL_BATCH_SIZE", "1"),
    ("OSS_RUN__TRAIN__MICRO_BATCH_SIZE", "1"),
    ("OSS_RUN__TRAIN__SEQUENCE_LENGTH", "16"),
    ("OSS_RUN__TRAIN__THREADS", "1"),
    ("OSS_RUN__EVALUATE__MAX_TOKENS", "64"),
    ("OSS_RUN__SAMPLE__MAX_NEW_TOKENS", "4"),
];

/// The commands of the page's shell blocks.
fn commands() -> Vec<&'static str> {
    let blocks = TUTORIAL.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.flat_map(str::lines).filter(|line| !line.is_empty() && !line.ends_with(BY_HAND)).collect()
}

/// The files that the page shows in full: their first line is a comment with their name.
fn files() -> Vec<(&'static str, &'static str)> {
    let blocks = TUTORIAL.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.filter_map(|text| Some((text.lines().next()?.strip_prefix("# ")?, text))).collect()
}

#[test]
fn the_tutorial_can_be_followed() {
    let project = Project::new();
    for (name, text) in files() {
        project.write(name, text);
    }
    let program = Path::new(env!("CARGO_BIN_EXE_oss-run"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let commands = commands();
    assert!(commands.len() >= 10, "{commands:?}");
    let mut stopped = 0;
    for line in commands {
        assert!(line.starts_with("oss-run "), "mark it `{BY_HAND}`, or remove it: {line}");
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(project.path("")).env("PATH", &path);
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", project.path("hub")).envs(QUICK);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(75) if line.contains("--stop-at-step") => stopped += 1,
            status => assert_eq!(status, Some(0), "{line}\n{said}"),
        }
    }
    assert_eq!(stopped, 1, "the tutorial stops once");
    assert!(project.path("story-teller/model.safetensors").exists());
}
