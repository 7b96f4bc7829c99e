//! Runs that are killed, resumed, or split across ranks, compared bit for bit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use oss_config::{Experiment, Model, Overrides, Preset, load};
use oss_data::sources::Watch;
use oss_data::{Batches, TokenFile};
use oss_run::plan::{NetworkAccess, complete};
use oss_runs::run_dir::RunsDir;
use oss_train::checkpoint::Checkpoint;
use oss_train::distributed::Mesh;
use oss_train::model::{BlockParameter, Initial, Parameter, WeightSource};
use oss_train::train::{Flags, GlobalBatch, Trainer};
use serde_json::Value;
use tch::Device;

use crate::check;
use crate::svg::{Scale, Svg};

const STEPS: u64 = 60;
const CHECKPOINT: u64 = 30;

const EXPERIMENT: &str = r#"
[run]
name = "repeat"
seed = 1

[dataset]
builtin = "stories"
tokenizer = "bytes"

[model]
preset = "tiny"

[optimizer]
lr = 4e-3

[schedule]
kind = "constant"
warmup_steps = 5

[train]
steps = 60
global_batch_size = 8
micro_batch_size = 2
sequence_length = 128
device = "cpu"
threads = 1

[checkpoint]
every_steps = 30

[evaluate]
every_steps = 0

[sample]
every_steps = 0

[log]
every_steps = 1
"#;

/// The program with these arguments, run in `dir`.
fn oss_run(dir: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oss-run"));
    command.args(arguments.split_whitespace()).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The directory of the only run.
fn the_run(dir: &Path) -> Option<PathBuf> {
    Some(fs::read_dir(dir.join("runs/repeat")).ok()?.next()?.ok()?.path())
}

fn checkpoint(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoints/step-{step:08}"))
}

/// The loss of each logged step.
fn losses(run: &Path) -> Vec<(u64, f64)> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        Some((line["step"].as_u64()?, line["loss"].as_f64()?))
    };
    text.lines().filter_map(line).collect()
}

/// A project whose run was trained to the end.
fn trained(options: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("repeat.toml"), EXPERIMENT).unwrap();
    let command = format!("repeat.toml --until train {options}");
    assert!(oss_run(dir.path(), &command).status().unwrap().success(), "{command}");
    let run = the_run(dir.path()).unwrap();
    (dir, run)
}

/// A project whose run was killed by SIGKILL between its checkpoint and its end, and resumed.
fn killed_and_resumed() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("repeat.toml"), EXPERIMENT).unwrap();
    let mut child = oss_run(dir.path(), "repeat.toml --until train").spawn().unwrap();
    let is_past_checkpoint = || {
        let run = the_run(dir.path())?;
        checkpoint(&run, CHECKPOINT)
            .exists()
            .then(|| losses(&run).last().is_some_and(|last| last.0 > CHECKPOINT))
    };
    while is_past_checkpoint() != Some(true) {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be killed");
        sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    let run = the_run(dir.path()).unwrap();
    assert!(!checkpoint(&run, STEPS).exists(), "the run was not killed before its end");
    assert!(oss_run(dir.path(), "resume last --until train").status().unwrap().success());
    (dir, run)
}

/// What the resumed run forgets.
#[derive(Clone, Copy, PartialEq)]
enum Forgets {
    Nothing,
    Moments,
    DataPosition,
}

/// The steps after the checkpoint of `run`, executed in this process by a resume that forgets something.
fn resumed_here(dir: &Path, run: &Path, forgets: Forgets) -> Vec<(u64, f64)> {
    let resolved = load(&run.join("experiment.toml"), &Overrides::default()).unwrap();
    let (runs, local) = (RunsDir::new(dir.join("runs")), NetworkAccess::Local(Watch::quiet()));
    let experiment = complete(&resolved, &runs, local).unwrap().experiment;
    let prepared = fs::read_dir(dir.join("runs/.prepared")).unwrap().map(|entry| entry.unwrap().path());
    let tokens = prepared.map(|folder| folder.join("train.bin")).find(|file| file.exists()).unwrap();
    let tokens = TokenFile::open(&tokens, fs::metadata(&tokens).unwrap().len() / 4).unwrap();
    let length = experiment.train.sequence_length as usize;
    let batches = Batches::new(vec![(1.0, Arc::new(tokens))], experiment.run.seed, length).unwrap();

    tch::set_num_threads(1);
    let mesh = Mesh::alone(Device::Cpu);
    let mut saved = Checkpoint::open(&checkpoint(run, CHECKPOINT)).unwrap();
    let mut trainer = match forgets {
        Forgets::Moments => {
            let progress = serde_json::from_value(saved.state().clone()).unwrap();
            let mut trainer = Trainer::new(&experiment, &mut saved, true, &mesh).unwrap();
            trainer.progress = progress;
            trainer
        }
        _ => Trainer::resume(&experiment, saved, true, &mesh).unwrap(),
    };
    (CHECKPOINT..STEPS)
        .map(|step| {
            let read = if forgets == Forgets::DataPosition { step - CHECKPOINT } else { step };
            let batch = GlobalBatch::of_step(&batches, &experiment.train, read);
            let batch = batch.staged(&experiment.train, None, Device::Cpu).unwrap();
            (step + 1, trainer.step(&batch, Flags::default).unwrap().loss)
        })
        .collect()
}

/// Differences below this count as zero on the logarithmic axis.
const ZERO: f64 = 1e-9;

#[test]
fn killed_and_resumed_bit_for_bit() {
    let (_whole_dir, whole) = trained("");
    let (dir, resumed) = killed_and_resumed();
    let (_ranks_dir, ranks) = trained("--set sharding.strategy=fsdp --set sharding.ranks=2");
    let forgot_moments = resumed_here(dir.path(), &resumed, Forgets::Moments);
    let forgot_data = resumed_here(dir.path(), &resumed, Forgets::DataPosition);

    let one = losses(&whole);
    assert_eq!(one.len() as u64, STEPS);
    assert_eq!(losses(&resumed), one, "not bit-identical");
    assert_eq!(resumed_here(dir.path(), &resumed, Forgets::Nothing), one[CHECKPOINT as usize..]);
    let digest = |run: &Path| Checkpoint::open(&checkpoint(run, STEPS)).unwrap().weights_digest().to_owned();
    assert_eq!(digest(&resumed), digest(&whole));
    let two = losses(&ranks);
    assert_ne!(two, one);
    let differences = |other: &[(u64, f64)]| -> Vec<(u64, f64)> {
        other.iter().map(|(step, loss)| (*step, (loss - one[*step as usize - 1].1).abs())).collect()
    };
    assert!(differences(&two).iter().all(|(_, difference)| *difference < 1e-4));

    let mut svg =
        Svg::new(830.0, 590.0, "Loss of a run that was killed and resumed, and of resumes that forget");
    let (left, right) = (70.0, 640.0);
    let x = Scale { values: (0.0, STEPS as f64), pixels: (left, right), log: false };
    let y = Scale { values: (1.5, 6.0), pixels: (250.0, 46.0), log: false };
    let points = |scale: Scale, values: &[(u64, f64)]| -> Vec<(f64, f64)> {
        values.iter().map(|(step, value)| (x.at(*step as f64), scale.at(*value))).collect()
    };
    svg.text("h", 16.0, 28.0, "Training loss, nats per token");
    for tick in [2.0, 3.0, 4.0, 5.0, 6.0] {
        svg.line("grid", (left, y.at(tick)), (right, y.at(tick)));
        svg.text("end small dim", left - 8.0, y.at(tick) + 4.0, &format!("{tick}"));
    }
    svg.line("mark", (x.at(CHECKPOINT as f64), 46.0), (x.at(CHECKPOINT as f64), 540.0));
    svg.text("mid small dim", x.at(CHECKPOINT as f64), 40.0, "checkpoint; killed by SIGKILL later");
    svg.path("line wide l0", &points(y, &one));
    svg.path("line thin l1", &points(y, &forgot_moments));
    svg.path("line thin l2", &points(y, &forgot_data));
    svg.path("line thin l0", &points(y, &losses(&resumed)));
    let mut key = |row: usize, class: &str, words: &str| {
        let at = 70.0 + 24.0 * row as f64;
        svg.line(&format!("line {class}"), (right + 12.0, at - 4.0), (right + 32.0, at - 4.0));
        svg.text("small", right + 38.0, at, words);
    };
    key(0, "wide l0", "uninterrupted");
    key(1, "thin l0", "killed, resumed");
    key(2, "thin l1", "resumed without moments");
    key(3, "thin l2", "data restarted");
    key(4, "thin l4", "two ranks, uninterrupted");

    let log = Scale { values: (1e-8, 3.0), pixels: (500.0, 306.0), log: true };
    let zero = 530.0;
    svg.text("h", 16.0, 290.0, "Distance from the uninterrupted run");
    for (tick, words) in [(1.0, "1"), (1e-2, "0.01"), (1e-4, "1e-4"), (1e-6, "1e-6"), (1e-8, "1e-8")] {
        svg.line("grid", (left, log.at(tick)), (right, log.at(tick)));
        svg.text("end small dim", left - 8.0, log.at(tick) + 4.0, words);
    }
    svg.line("axis", (left, zero), (right, zero));
    svg.text("end small b", left - 8.0, zero + 4.0, "0");
    let place = |values: &[(u64, f64)]| -> Vec<(f64, f64)> {
        let at = |difference: f64| if difference < ZERO { zero } else { log.at(difference) };
        values.iter().map(|(step, value)| (x.at(*step as f64), at(*value))).collect()
    };
    svg.path("noise line thin l4", &place(&differences(&two)));
    svg.path("line thin l1", &place(&differences(&forgot_moments)));
    svg.path("line thin l2", &place(&differences(&forgot_data)));
    for point in place(&differences(&losses(&resumed))) {
        svg.dot("s0", point, 2.5);
    }
    svg.text("small b", right + 12.0, zero + 4.0, "resumed: bit-identical");
    svg.text("small", right + 12.0, log.at(3e-7), "two ranks: rounding");
    svg.text("small", right + 12.0, log.at(1e-1), "resumes that forget");
    for step in [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0] {
        svg.text("mid small dim", x.at(step), zero + 20.0, &format!("{step}"));
    }
    svg.text("mid small dim", (left + right) / 2.0, zero + 38.0, "step");
    check("repeatable-resume.svg", &svg.finish());
}

const WINDOWS: u64 = 20;
const BATCH: u64 = 8;

#[test]
fn batches_and_weights_do_not_depend_on_the_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.bin");
    let mut experiment = Experiment::default();
    (experiment.train.global_batch_size, experiment.train.sequence_length) = (BATCH as i64, 4);
    let tokens: Vec<u32> = (0..=WINDOWS as u32 * 4).collect();
    fs::write(&path, bytemuck::cast_slice(&tokens)).unwrap();
    let file = TokenFile::open(&path, tokens.len() as u64).unwrap();
    let batches = Batches::new(vec![(1.0, Arc::new(file))], 1, 4).unwrap();
    // Token i has the value i, so that a sample's first token identifies its window.
    let window = |index: u64| batches.sample(index)[0] as u64 / 4;

    let mut svg = Svg::new(830.0, 640.0, "Batches and first weights on one, two and four ranks");
    let (left, right, top, bottom) = (120.0, 800.0, 62.0, 262.0);
    let samples = 2 * WINDOWS;
    let x = Scale { values: (0.0, samples as f64), pixels: (left, right), log: false };
    let y = Scale { values: (0.0, WINDOWS as f64), pixels: (top, bottom), log: false };
    svg.text("h", 16.0, 28.0, "Which window is sample i of the run?");
    svg.text("small dim", left, 52.0, "epoch 0");
    svg.text("small dim", x.at(WINDOWS as f64) + 4.0, 52.0, "epoch 1: another permutation");
    const STEP: u64 = 3;
    for step in 0..samples / BATCH {
        let from = x.at((step * BATCH) as f64);
        let class = if step == STEP {
            "s4 faint"
        } else if step % 2 == 0 {
            "none"
        } else {
            "page"
        };
        svg.rect(class, [from, top, x.at(((step + 1) * BATCH) as f64) - from, bottom - top]);
        let words = format!("step {step}");
        svg.text("mid small dim", x.at((step * BATCH + BATCH / 2) as f64), bottom + 16.0, &words);
    }
    for epoch in 0..samples / WINDOWS {
        let mut seen: Vec<u64> = (epoch * WINDOWS..(epoch + 1) * WINDOWS).map(window).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..WINDOWS), "an epoch must contain every window once");
    }
    for index in 0..samples {
        svg.dot("s0", (x.at(index as f64 + 0.5), y.at(window(index) as f64 + 0.5)), 4.0);
    }
    svg.line("mark", (x.at(WINDOWS as f64), top), (x.at(WINDOWS as f64), bottom));
    svg.text("end small dim", left - 8.0, top + 10.0, "window 0");
    svg.text("end small dim", left - 8.0, bottom - 2.0, &format!("window {}", WINDOWS - 1));

    let colors = ["s0", "s1", "s2", "s3"];
    svg.text("h", 16.0, 312.0, "Step 3 on one, two and four ranks: the same windows in the same order");
    let whole: Vec<Vec<i64>> = GlobalBatch::of_step(&batches, &experiment.train, STEP).into_rows();
    for (row, ranks) in [1, 2, 4].into_iter().enumerate() {
        let at = 326.0 + 32.0 * row as f64;
        svg.text(
            "end small",
            left - 8.0,
            at + 16.0,
            &format!("{ranks} rank{}", if ranks == 1 { "" } else { "s" }),
        );
        let shares = (0..ranks).map(|rank| {
            GlobalBatch::rank_slice(&batches, &experiment.train, STEP, (rank, ranks)).into_rows()
        });
        let shares: Vec<Vec<Vec<i64>>> = shares.collect();
        assert_eq!(shares.concat(), whole);
        let dealt =
            shares.iter().enumerate().flat_map(|(rank, rows)| rows.iter().map(move |tokens| (rank, tokens)));
        for (index, (rank, tokens)) in dealt.enumerate() {
            let place = left + 85.0 * index as f64;
            svg.rect(colors[rank], [place, at, 81.0, 24.0]);
            svg.text("on mid", place + 40.5, at + 16.0, &format!("window {}", tokens[0] / 4));
        }
    }

    let mut key = left;
    for (rank, color) in colors.into_iter().enumerate() {
        key = svg.key(color, key, 440.0, &format!("rank {rank}"));
    }

    svg.text(
        "h",
        16.0,
        480.0,
        "First weights: 128 elements of one matrix, as initialized by one rank and by three",
    );
    let parameter = Parameter::Block { layer: 0, parameter: BlockParameter::QWeight };
    let model = Model { vocab_size: Some(40), ..Preset::Tiny.model() };
    let read = |range: std::ops::Range<i64>| -> Vec<f32> {
        let tensor = Initial::new(&model, 1).read(parameter, range).unwrap();
        Vec::try_from(tensor).unwrap()
    };
    let elements = 128;
    let all = read(0..elements);
    for (row, cuts) in [vec![0, elements], vec![0, 43, 86, elements]].into_iter().enumerate() {
        let middle = 522.0 + 62.0 * row as f64;
        svg.text("end small", left - 8.0, middle + 4.0, if row == 0 { "1 rank" } else { "3 ranks" });
        svg.line("grid", (left, middle), (right, middle));
        let mut made = Vec::new();
        for (rank, cut) in cuts.windows(2).enumerate() {
            for value in read(cut[0]..cut[1]) {
                let height = f64::from(value) / 0.05 * 18.0;
                let place = left + (right - left) / elements as f64 * made.len() as f64;
                svg.rect(colors[rank], [place, middle - height.max(0.0), 4.2, height.abs()]);
                made.push(value);
            }
        }
        assert_eq!(made, all, "not bit-identical");
    }
    let words = format!("{}, seed 1: bar i is a function of (seed, name, i) alone.", parameter.name());
    svg.text("small dim", left, 628.0, &words);
    check("repeatable-inputs.svg", &svg.finish());
}
