//! A project on disk: some text, an experiment file, and the program run in it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The smallest experiment that runs every stage.
const EXPERIMENT: &str = r#"
[dataset]
files = ["text.txt"]
tokenizer = "bytes"
validation.fraction = 0.2

[model]
preset = "tiny"
hidden_size = 16
intermediate_size = 16

[schedule]
kind = "constant"
warmup_steps = 2

[train]
steps = 6
global_batch_size = 2
micro_batch_size = 2
sequence_length = 16
device = "cpu"
threads = 1

[checkpoint]
every_steps = 2

[evaluate]
every_steps = 3
max_tokens = 200

[sample]
prompts = ["The cat"]
max_new_tokens = 4
"#;

/// A project in a temporary directory.
pub struct Project {
    dir: TempDir,
}

impl Project {
    /// The smallest project.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let project = Self { dir };
        project.write("text.txt", &text(120));
        project.write("tiny.toml", EXPERIMENT);
        project
    }

    /// The smallest project with values changed: `key = value` lines with full key paths.
    pub fn with(values: &[&str]) -> Self {
        let project = Self::new();
        project.set(values);
        project
    }

    /// Changes values in the experiment file.
    pub fn set(&self, values: &[&str]) {
        let path = self.path("tiny.toml");
        let mut table: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        for line in values {
            let (key, value) = line.split_once('=').unwrap();
            let value: toml::Table = format!("value = {value}").parse().unwrap();
            let mut parts: Vec<&str> = key.trim().split('.').collect();
            let last = parts.pop().unwrap();
            let inner = parts.iter().fold(&mut table, |table, part| {
                let entry = table.entry(*part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
                entry.as_table_mut().unwrap()
            });
            inner.insert(last.to_owned(), value["value"].clone());
        }
        fs::write(path, toml::to_string(&table).unwrap()).unwrap();
    }

    /// A path inside the project.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The program with these arguments, run in the project's directory without any user settings.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oss-run"));
        command
            .args(arguments.split_whitespace())
            .current_dir(self.dir.path())
            .env("HF_HOME", self.path("hub"))
            .env("HF_HUB_OFFLINE", "1")
            .env_remove("HF_TOKEN")
            .env_remove("OSS_RUN_RUNS_DIR");
        command
    }

    /// Runs the program to completion.
    pub fn oss_run(&self, arguments: &str) -> Ended {
        Ended::of(&mut self.command(arguments))
    }

    /// Starts the program, whose messages are then read line by line.
    pub fn start(&self, arguments: &str) -> Started {
        let mut child = self.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let messages = BufReader::new(child.stderr.take().unwrap());
        Started { child, messages, seen: String::new() }
    }

    /// The directories of all runs, in order.
    pub fn runs(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path("runs/tiny")) else { return Vec::new() };
        let mut runs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        runs.sort();
        runs
    }

    /// The directory of the only run.
    pub fn the_run(&self) -> PathBuf {
        let runs = self.runs();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs[0].clone()
    }
}

/// Documents of simple sentences, all different.
pub fn text(documents: usize) -> String {
    let who = ["cat", "dog", "bird", "fox", "girl", "boy", "old man"];
    let what = ["saw", "found", "lost", "wanted", "hid", "made", "carried"];
    let which = ["red", "small", "shiny", "soft", "round", "loud", "heavy"];
    let thing = ["ball", "leaf", "stone", "bell", "cake", "boat", "song"];
    let pick = |words: [&'static str; 7], n: usize| words[n % 7];
    let mut text = String::new();
    for n in 0..documents {
        let (a, b, c, d) = (pick(who, n), pick(what, n / 7), pick(which, n / 3), pick(thing, n / 2));
        writeln!(text, "The {a} {b} a {c} {d} on day {n}. Then it went home.\n<|endoftext|>").unwrap();
    }
    text
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Runs `command`; the status of a process killed by a signal is -1.
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Checks the exit status.
    #[track_caller]
    pub fn ends_with(self, status: i32) -> Self {
        assert_eq!(self.status, status, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The message for each stage, by name: `fresh`, or `stale: ...`.
    pub fn stages(&self) -> BTreeMap<String, String> {
        let names = ["prepare", "train", "evaluate", "sample", "export"];
        let line = |line: &str| {
            let (name, rest) = line.split_once(' ')?;
            let said = rest.trim_start();
            let is_stage =
                names.contains(&name) && (said.starts_with("fresh") || said.starts_with("stale: "));
            is_stage.then(|| (name.to_owned(), said.to_owned()))
        };
        self.stderr.lines().filter_map(line).collect()
    }

    /// The stages that ran, each with the reason.
    pub fn ran(&self) -> Vec<String> {
        let order = ["prepare", "train", "evaluate", "sample", "export"];
        let stages = self.stages();
        order
            .iter()
            .filter_map(|name| {
                let reason = stages.get(*name)?.strip_prefix("stale: ")?;
                Some(format!("{name}: {reason}"))
            })
            .collect()
    }
}

/// A running process.
pub struct Started {
    child: Child,
    messages: BufReader<ChildStderr>,
    seen: String,
}

impl Started {
    /// Waits for a line that contains `words`.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) {
        loop {
            let mut line = String::new();
            let read = self.messages.read_line(&mut line).unwrap();
            assert!(read > 0, "no line contains {words:?}:\n{}", self.seen);
            self.seen.push_str(&line);
            if line.contains(words) {
                return;
            }
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, given by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the process to end.
    pub fn end(mut self) -> Ended {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.messages, &mut rest).unwrap();
        self.seen.push_str(&rest);
        let status = self.child.wait().unwrap().code().unwrap_or(-1);
        Ended { status, stdout: String::new(), stderr: self.seen }
    }
}

/// Reads a JSON file.
pub fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Digest of a run's final weights.
#[track_caller]
pub fn weights(run: &Path) -> String {
    let manifest = json(&run.join("manifest.json"));
    assert_eq!(manifest["stages"]["train"]["state"], "done", "{manifest:#}");
    manifest["stages"]["train"]["outputs"]["weights"].as_str().unwrap().to_owned()
}

/// Step and loss of every training line in a run's metrics.
pub fn losses(run: &Path) -> Vec<(u64, f64)> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        Some((line["step"].as_u64()?, line["loss"].as_f64()?))
    };
    text.lines().filter_map(line).collect()
}
