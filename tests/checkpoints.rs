//! Checkpoints of real processes: killed at any moment, and exported.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use oss_run::{
    checkpoint::{self, Checkpoint, Entry},
    experiment::{ExportDtype, Model, Preset},
    hf_format::{ExportOptions, HfDirectory, TokenizerFiles, export},
    model::{WeightSource, parameters},
};
use serde_json::json;
use tch::{Device, Kind, Tensor};

/// Set in the process that [`saves_until_killed`] starts.
const DIRECTORY: &str = "OSS_RUN_TEST_CHECKPOINTS";

fn entries(step: u64) -> Vec<Entry> {
    let tensor = Tensor::full([300, 1000], step as i64, (Kind::Float, Device::Cpu));
    vec![Entry::whole("lm_head.weight", &tensor), Entry::whole("optimizer.exp_avg/lm_head.weight", &tensor)]
}

/// Not a test of its own: the process that is killed. It saves step after step, some of them twice.
#[test]
fn saves_until_killed() {
    let Ok(dir) = std::env::var(DIRECTORY) else { return };
    let dir = Path::new(&dir);
    let first = checkpoint::latest(dir).unwrap().map_or(1, |found| found.step() + 1);
    for step in first.. {
        for _ in 0..=step % 2 {
            checkpoint::save(dir, step, &entries(step), &json!({ "step": step })).unwrap();
            println!("saved {step}");
        }
        let policy = oss_run::experiment::Checkpoint::default();
        checkpoint::prune(dir, &policy, None, &[]).unwrap();
    }
}

#[test]
fn a_process_killed_at_any_moment_leaves_its_last_checkpoint_whole() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..6u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "saves_until_killed", "--nocapture"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut saved = || {
            let lines = lines.by_ref().map_while(Result::ok);
            lines.into_iter().find_map(|line| line.split("saved ").nth(1)?.trim().parse::<u64>().ok())
        };
        let mut promised = saved().unwrap();
        // Spread over the time that one save takes.
        std::thread::sleep(Duration::from_micros(1500 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        while let Some(step) = saved() {
            promised = step;
        }
        let found = checkpoint::latest(dir.path()).unwrap().unwrap();
        assert!(found.step() >= promised, "step {} was said to be saved", promised);
        let [expected, _] = &entries(found.step())[..] else { unreachable!() };
        assert!(found.load("lm_head.weight").unwrap().equal(&expected.tensor));
        assert_eq!(found.state(), &json!({ "step": found.step() }));
    }
    // Whatever they left is cleared away by the next one that lives.
    let last = checkpoint::latest(dir.path()).unwrap().unwrap().step() + 1;
    checkpoint::save(dir.path(), last, &entries(last), &json!(null)).unwrap();
    let policy = oss_run::experiment::Checkpoint { keep_last: 1, ..Default::default() };
    checkpoint::prune(dir.path(), &policy, None, &[]).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_checkpoint_is_exported_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model { vocab_size: Some(40), intermediate_size: 96, ..Preset::Tiny.model() };
    let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
    let entries: Vec<_> = parameters(&model)
        .into_iter()
        .map(|spec| Entry::whole(spec.name, &random(&spec.shape)))
        .chain([Entry::whole("optimizer.exp_avg/lm_head.weight", &random(&[40, 64]))])
        .collect();
    let path = checkpoint::save(&dir.path().join("checkpoints"), 9, &entries, &json!(null)).unwrap();
    let mut source = Checkpoint::open(&path).unwrap();
    let tokenizer = TokenizerFiles {
        tokenizer_json: "{}".into(),
        tokenizer_config: json!({}),
        bos_token_id: None,
        eos_token_ids: vec![0],
        pad_token_id: None,
    };
    let options = ExportOptions { dtype: ExportDtype::Bf16, max_shard_bytes: 50_000 };
    let out = dir.path().join("export");
    export(&out, &model, &mut source, &tokenizer, &options).unwrap();
    let mut exported = HfDirectory::open(&out).unwrap();
    for spec in parameters(&model) {
        let expected = source.load(&spec.name).unwrap().to_kind(Kind::BFloat16);
        assert!(exported.load(&spec.name).unwrap().equal(&expected), "{}", spec.name);
    }
}
