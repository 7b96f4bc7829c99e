//! Checkpoints written by real processes: killed at arbitrary moments, resharded across ranks, and exported.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    io::{BufRead, BufReader},
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use oss_config::{
    Experiment, ExportDtype, Model, ParamDtype, Precision, Preset, StateDtype, Strategy, Update,
};
use oss_train::checkpoint::{self, Checkpoint, Entry, Writer};
use oss_train::distributed::Mesh;
use oss_train::hf_format::{ExportOptions, HfDirectory, TokenizerFiles, export};
use oss_train::model::{Initial, Parameter, WeightSource, num_units, parameters, unit_parameters};
use oss_train::train::{Flags, GlobalBatch, Trainer};
use serde_json::json;
use tch::{Device, Kind, Tensor};

/// Set in the process that [`saves_until_killed`] starts.
const DIRECTORY: &str = "OSS_RUN_TEST_CHECKPOINTS";

fn entries(step: u64) -> Vec<Entry> {
    let tensor = Tensor::full([300, 1000], step as i64, (Kind::Float, Device::Cpu));
    vec![Entry::whole("lm_head.weight", &tensor), Entry::whole("optimizer.exp_avg/lm_head.weight", &tensor)]
}

/// A checkpoint of a single rank.
fn save(dir: &Path, step: u64, entries: &[Entry]) -> PathBuf {
    let writer = Writer::begin(dir, step, checkpoint::bytes_needed(entries).unwrap()).unwrap();
    let rank = checkpoint::write_rank(writer.folder(), 0, 1, entries).unwrap();
    writer.commit(vec![Ok(rank)], &json!({ "step": step })).unwrap()
}

/// The checkpoint from which a single rank resumes.
fn latest(dir: &Path) -> Option<Checkpoint> {
    let found: Result<_, checkpoint::Error> =
        checkpoint::newest_whole(dir, &checkpoint::candidates(dir), (0, 1), Ok);
    found.unwrap()
}

/// Not a test in itself: the process that is killed. It saves at every step, at some of them twice.
#[test]
fn saves_until_killed() {
    let Ok(dir) = std::env::var(DIRECTORY) else { return };
    let dir = Path::new(&dir);
    let first = latest(dir).map_or(1, |found| found.step() + 1);
    for step in first.. {
        for _ in 0..=step % 2 {
            save(dir, step, &entries(step));
            println!("saved {step}");
        }
        let policy = oss_config::Checkpoint::default();
        checkpoint::prune(dir, &policy, None, &[]).unwrap();
    }
}

#[test]
fn a_process_killed_at_any_moment_leaves_its_last_checkpoint_intact() {
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
        // Spread over the duration of one save.
        std::thread::sleep(Duration::from_micros(1500 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        while let Some(step) = saved() {
            promised = step;
        }
        let found = latest(dir.path()).unwrap();
        assert!(found.step() >= promised, "step {} was reported as saved", promised);
        let [expected, _] = &entries(found.step())[..] else { unreachable!() };
        assert!(found.load("lm_head.weight").unwrap().equal(&expected.tensor));
        assert_eq!(found.state(), &json!({ "step": found.step() }));
    }
    // The next process cleans up whatever killed ones left behind.
    let last = latest(dir.path()).unwrap().step() + 1;
    save(dir.path(), last, &entries(last));
    let policy = oss_config::Checkpoint { keep_last: 1, ..Default::default() };
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
    let path = save(&dir.path().join("checkpoints"), 9, &entries);
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
        assert!(exported.load(spec.parameter).unwrap().equal(&expected), "{}", spec.name);
    }
}

/// A unit's region as ranks store it: one flat buffer, padded so that every rank has an equal slice.
struct Region {
    /// Name, shape and offset of each tensor; offsets are multiples of 64 elements.
    slots: Vec<(String, Vec<i64>, i64)>,
    /// Number of elements before padding.
    len: i64,
}

impl Region {
    /// Two regions for every unit, the matrices and the rest, and for each of them two more for the optimizer state.
    fn all(model: &Model) -> Vec<Self> {
        let mut regions = Vec::new();
        for unit in 0..num_units(model) {
            for matrices in [true, false] {
                for prefix in ["", "optimizer.exp_avg/", "optimizer.exp_avg_sq/"] {
                    let mut region = Self { slots: Vec::new(), len: 0 };
                    let specs = unit_parameters(model, unit);
                    for spec in specs.into_iter().filter(|spec| spec.role().is_matrix() == matrices) {
                        region.slots.push((format!("{prefix}{}", spec.name), spec.shape.clone(), region.len));
                        region.len += (spec.numel() + 63) / 64 * 64;
                    }
                    regions.push(region);
                }
            }
        }
        regions
    }

    /// Tensors in a rank's slice: name, shape, range of the tensor's elements, and their offset in the slice.
    fn held(&self, rank: usize, ranks: usize) -> impl Iterator<Item = (&str, &[i64], Range<i64>, i64)> {
        let slice = self.slice_len(ranks);
        let mine = rank as i64 * slice..(rank as i64 + 1) * slice;
        self.slots.iter().map(move |(name, shape, offset)| {
            let numel: i64 = shape.iter().product();
            let start = (mine.start - offset).clamp(0, numel);
            let end = (mine.end - offset).clamp(0, numel);
            (name.as_str(), shape.as_slice(), start..end, (offset + start - mine.start).clamp(0, slice))
        })
    }

    fn slice_len(&self, ranks: usize) -> i64 {
        let blocks = self.len / 64;
        (blocks + ranks as i64 - 1) / ranks as i64 * 64
    }

    fn flat(&self, ranks: usize) -> Tensor {
        Tensor::zeros([self.slice_len(ranks) * ranks as i64], (Kind::Float, Device::Cpu))
    }
}

/// Saves a checkpoint from `ranks` ranks, each on a thread, with regions whose tensors are given by `truth`.
fn save_by(dir: &Path, ranks: usize, regions: &[Region], truth: &dyn Fn(&str) -> Tensor) -> PathBuf {
    let writer = checkpoint::Writer::begin(dir, 7, 0).unwrap();
    let slices: Vec<Vec<Entry>> = (0..ranks)
        .map(|rank| {
            let held = regions.iter().flat_map(|region| region.held(rank, ranks));
            held.map(|(name, shape, range, _)| Entry {
                name: name.to_owned(),
                shape: shape.to_vec(),
                tensor: truth(name).flatten(0, -1).narrow(0, range.start, range.end - range.start),
                range,
            })
            .collect()
        })
        .collect();
    let folder = writer.folder();
    let reports = std::thread::scope(|scope| {
        let write = |(rank, slice): (usize, Vec<Entry>)| {
            scope.spawn(move || checkpoint::write_rank(folder, rank, ranks, &slice))
        };
        let threads: Vec<_> = slices.into_iter().enumerate().map(write).collect();
        threads.into_iter().map(|thread| Ok(thread.join().unwrap().unwrap())).collect()
    });
    writer.commit(reports, &json!({ "step": 7 })).unwrap()
}

#[test]
fn a_checkpoint_can_be_read_by_any_number_of_ranks() {
    let model = Model { vocab_size: Some(40), intermediate_size: 96, ..Preset::Tiny.model() };
    let regions = Region::all(&model);
    let mut weights = Initial::new(&model, 5);
    let truth: std::collections::HashMap<String, Tensor> = regions
        .iter()
        .flat_map(|region| &region.slots)
        .map(|(name, shape, _)| {
            let tensor = match Parameter::from_name(name) {
                Some(parameter) => weights.load(parameter).unwrap(),
                None => Tensor::randn(shape, (Kind::Float, Device::Cpu)),
            };
            (name.clone(), tensor)
        })
        .collect();
    let counts = [1, 2, 3, 4, 8];
    for writers in counts {
        let dir = tempfile::tempdir().unwrap();
        let path = save_by(dir.path(), writers, &regions, &|name| truth[name].shallow_clone());
        let checkpoint = Checkpoint::open(&path).unwrap();
        checkpoint.verify().unwrap();
        assert_eq!(checkpoint.names().count(), truth.len());
        for readers in counts {
            for region in &regions {
                let whole = region.flat(readers);
                for rank in 0..readers {
                    let slice_len = region.slice_len(readers);
                    let slice = whole.narrow(0, rank as i64 * slice_len, slice_len);
                    for (name, _, range, place) in region.held(rank, readers) {
                        let length = range.end - range.start;
                        slice.narrow(0, place, length).copy_(&checkpoint.read(name, range).unwrap());
                    }
                }
                for (name, shape, offset) in &region.slots {
                    let gathered = whole.narrow(0, *offset, shape.iter().product()).view(shape.as_slice());
                    assert!(gathered.equal(&truth[name]), "{name} from {writers} to {readers} ranks");
                }
            }
        }
    }
}

/// A small model in training, with weights and moments in low precision.
fn narrow() -> Experiment {
    let model = Model { vocab_size: Some(40), intermediate_size: 96, ..Preset::Tiny.model() };
    let mut experiment = Experiment { model, ..Experiment::default() };
    let Experiment { optimizer, train, .. } = &mut experiment;
    (optimizer.state_dtype, optimizer.update) = (StateDtype::EightBit, Update::InBackward);
    (train.precision, train.param_dtype) = (Precision::Bf16, ParamDtype::Bf16);
    (train.global_batch_size, train.sequence_length, train.device) = (2, 16, "cpu".to_owned());
    experiment
}

#[test]
fn any_number_of_ranks_restores_the_bits_that_one_saved() {
    let mut experiment = narrow();
    let alone = Mesh::alone(Device::Cpu);
    let mut trainer =
        Trainer::new(&experiment, &mut Initial::new(&experiment.model, 5), true, &alone).unwrap();
    for step in 0..3 {
        let row = |row: i64| (0..17).map(|i| (step * 7 + row * 3 + i * i) % 40).collect();
        let batch = GlobalBatch::from_rows(vec![row(0), row(1)]);
        let batch = batch.staged(&experiment.train, None, Device::Cpu).unwrap();
        trainer.step(&batch, Flags::default).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let entries = trainer.entries();
    let writer = Writer::begin(dir.path(), 3, 0).unwrap();
    let rank = checkpoint::write_rank(writer.folder(), 0, 1, &entries).unwrap();
    let state = serde_json::to_value(&trainer.progress).unwrap();
    let path = writer.commit(vec![Ok(rank)], &state).unwrap();
    let kept = Checkpoint::open(&path).unwrap();
    for ranks in [1, 2, 3, 5] {
        experiment.sharding.strategy = Strategy::Fsdp;
        experiment.sharding.ranks = ranks as u64;
        let mut held = std::collections::HashMap::<String, i64>::new();
        for rank in 0..ranks {
            let mesh = Mesh::simulated(&experiment.sharding, rank, Device::Cpu).unwrap();
            let opened = Checkpoint::open(&path).unwrap();
            let trainer = Trainer::resume(&experiment, opened, true, &mesh).unwrap();
            for Entry { name, shape, range, tensor } in trainer.entries() {
                assert_eq!(shape, kept.shape(&name).unwrap(), "{name}");
                *held.entry(name.clone()).or_default() += range.end - range.start;
                assert!(tensor.equal(&kept.read(&name, range).unwrap()), "{name} on rank {rank} of {ranks}");
            }
        }
        for name in kept.names() {
            assert_eq!(
                held[name],
                kept.shape(name).unwrap().iter().product::<i64>(),
                "{name} on {ranks} ranks"
            );
        }
    }
}
