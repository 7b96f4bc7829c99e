//! Round trips with any split, faults at every disk call, and damage to every byte.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::{rank_file::write_rank_with, *};
use oss_config::error::ErrorReport;
use oss_runs::storage::{Disk, Fault, Faults, Sibling};

mod ranks;

fn values(step: u64, numel: i64, kind: Kind) -> Tensor {
    (Tensor::arange(numel, (Kind::Float, Device::Cpu)) + step as f64).to_kind(kind)
}

fn entries(step: u64) -> Vec<Entry> {
    vec![
        Entry::whole("model.norm.weight", &values(step, 5, Kind::BFloat16)),
        Entry::whole("lm_head.weight", &values(step, 12, Kind::Float).reshape([3, 4])),
        Entry::whole("optimizer.exp_avg/lm_head.weight", &values(step, 12, Kind::Float).reshape([3, 4])),
    ]
}

fn assert_holds(checkpoint: &Checkpoint, step: u64) {
    assert_eq!(checkpoint.step(), step);
    assert_eq!(checkpoint.state(), &json!({ "seen": step, "rate": 0.1 }));
    for Entry { name, shape, tensor, .. } in entries(step) {
        let loaded = checkpoint.load(&name).unwrap();
        assert_eq!(loaded.size(), shape);
        assert_eq!(loaded.kind(), tensor.kind());
        assert!(loaded.equal(&tensor), "{name} of step {step}");
    }
}

/// Saves the checkpoint of a single rank.
fn save(dir: &Path, step: u64, entries: &[Entry], state: &Value) -> Result<PathBuf> {
    save_with(&Disk::default(), dir, step, entries, state)
}

fn save_with(disk: &Disk, dir: &Path, step: u64, entries: &[Entry], state: &Value) -> Result<PathBuf> {
    let writer = Writer::begin_with(disk, dir, step, bytes_needed(entries)?)?;
    let rank = write_rank_with(disk, writer.folder(), 0, 1, entries, &Default::default())?;
    writer.commit(vec![Ok(rank)], state)
}

/// The checkpoint that a single rank resumes from.
fn latest(dir: &Path) -> Result<Option<Checkpoint>> {
    newest_whole(dir, &candidates(dir), (0, 1), Ok)
}

fn save_step(dir: &Path, step: u64) {
    save(dir, step, &entries(step), &json!({ "seen": step, "rate": 0.1 })).unwrap();
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn finds_the_latest_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    assert!(latest(&dir.path().join("none yet")).unwrap().is_none());
    for step in [5, 100, 20] {
        save_step(dir.path(), step);
    }
    assert_eq!(list(dir.path()).iter().map(|(step, _)| *step).collect::<Vec<_>>(), [5, 20, 100]);
    assert_holds(&latest(dir.path()).unwrap().unwrap(), 100);
    let checkpoint = Checkpoint::open(&dir.path().join("step-00000020")).unwrap();
    assert_holds(&checkpoint, 20);
    assert_eq!(checkpoint.names().count(), 3);
    let names = ["manifest.json", "rank-00000-of-00001.safetensors"];
    assert_eq!(names_in(checkpoint.path()), names);
}

#[test]
fn weights_digest_depends_on_the_weights_only() {
    let dir = tempfile::tempdir().unwrap();
    let digest = |step: u64, change: &dyn Fn(&mut Vec<Entry>)| {
        let mut entries = entries(1);
        change(&mut entries);
        let path = save(dir.path(), step, &entries, &json!(step)).unwrap();
        Checkpoint::open(&path).unwrap().weights_digest().to_owned()
    };
    let original = digest(1, &|_| ());
    assert_eq!(original, digest(2, &|e| e[2].tensor = Tensor::zeros([12], (Kind::Float, Device::Cpu))));
    assert_ne!(original, digest(3, &|e| e[1].tensor = Tensor::zeros([12], (Kind::Float, Device::Cpu))));
}

#[test]
fn files_are_not_private_and_readable_as_safetensors() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    save_step(dir.path(), 3);
    let path = dir.path().join("step-00000003/rank-00000-of-00001.safetensors");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o600, 0o600);
    assert_ne!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("lm_head.weight").unwrap().shape(), [3, 4]);
}

/// Sorted random cuts, as fractions of a tensor, that split it into `ranks` ranges, some of them empty.
fn splits(ranks: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(0.0..=1.0f64, ranks - 1).prop_map(|mut cuts| {
        cuts.sort_by(f64::total_cmp);
        cuts
    })
}

fn tensors() -> impl Strategy<Value = Vec<(Vec<i64>, Kind)>> {
    let kinds = [Kind::Float, Kind::BFloat16, Kind::Half, Kind::Int64, Kind::Uint8, Kind::Bool, Kind::Double];
    prop::collection::vec((prop::collection::vec(0..6i64, 0..4), prop::sample::select(kinds.to_vec())), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn numbers_in_the_state_round_trip_bit_for_bit(bits in any::<u64>()) {
        let number = f64::from_bits(bits);
        prop_assume!(number.is_finite());
        let dir = tempfile::tempdir().unwrap();
        let path = save(dir.path(), 1, &[], &json!(number)).unwrap();
        let state = Checkpoint::open(&path).unwrap().state().as_f64().unwrap();
        prop_assert_eq!(state.to_bits(), bits);
    }

    #[test]
    fn any_range_can_be_read_from_any_split(
        tensors in tensors(),
        cuts in (1..5usize).prop_flat_map(splits),
        window in (0.0..=1.0f64, 0.0..=1.0f64),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let ranks = cuts.len() + 1;
        let whole: Vec<Tensor> =
            tensors.iter().map(|(shape, kind)| values(1, shape.iter().product(), *kind)).collect();
        let writer = Writer::begin(dir.path(), 7, 1000).unwrap();
        let files = (0..ranks).map(|rank| {
            let held = tensors.iter().zip(&whole).enumerate().map(|(i, ((shape, _), tensor))| {
                let at = |cut: f64| (cut * tensor.numel() as f64) as i64;
                let start = if rank == 0 { 0 } else { at(cuts[rank - 1]) };
                let end = if rank + 1 == ranks { tensor.numel() as i64 } else { at(cuts[rank]) };
                let piece = tensor.narrow(0, start, end - start);
                Entry { name: format!("t{i}"), shape: shape.clone(), range: start..end, tensor: piece }
            });
            Ok(write_rank(writer.folder(), rank, ranks, &held.collect::<Vec<_>>()).unwrap())
        });
        let files = files.collect();
        let path = writer.commit(files, &json!(null)).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        checkpoint.verify().unwrap();
        for (i, ((shape, kind), tensor)) in tensors.iter().zip(&whole).enumerate() {
            let name = format!("t{i}");
            let loaded = checkpoint.load(&name).unwrap();
            prop_assert_eq!(&loaded.size(), shape);
            prop_assert_eq!(loaded.kind(), *kind);
            prop_assert!(loaded.flatten(0, -1).equal(tensor));
            let at = |share: f64| (share * tensor.numel() as f64) as i64;
            let (start, end) = (at(window.0.min(window.1)), at(window.0.max(window.1)));
            let part = checkpoint.read(&name, start..end).unwrap();
            prop_assert!(part.equal(&tensor.narrow(0, start, end - start)));
        }
    }
}

#[test]
fn pieces_that_do_not_make_up_whole_tensors_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let piece = |range: std::ops::Range<i64>| Entry {
        name: "w".into(),
        shape: vec![10],
        tensor: values(0, range.end - range.start, Kind::Float),
        range,
    };
    for (pieces, message) in [
        (vec![piece(0..4), piece(5..10)], "a hole at elements 4..5"),
        (vec![piece(0..6), piece(5..10)], "an overlap at elements 5..6"),
        (vec![piece(0..6)], "6 of its 10 elements"),
        (vec![piece(0..4), piece(0..4)], "occurs twice"),
        (vec![Entry { range: 0..9, ..piece(0..4) }], "4 elements for 0..9"),
    ] {
        let error = ErrorReport::of(save(dir.path(), 1, &pieces, &json!(0)).unwrap_err()).to_string();
        assert!(error.contains(message), "{error}");
    }
    assert_eq!(names_in(dir.path()), [""; 0]);
}

/// Saves repeatedly, with a fault at the first, second, third... call, until the fault is no longer reached. After each
/// save, the previous checkpoint and an old or new version of the step itself must be intact.
fn survive_faults(fault: Fault, replacing: bool, exchange: bool) -> usize {
    for number in 1.. {
        let dir = tempfile::tempdir().unwrap();
        save_step(dir.path(), 1);
        if replacing {
            save(dir.path(), 2, &entries(1), &json!({ "seen": 1, "rate": 0.1 })).unwrap();
        }
        let faults = Faults::at(number, fault);
        let disk = Disk::failing(if exchange { faults } else { faults.without_exchange() });
        let saved = save_with(&disk, dir.path(), 2, &entries(2), &json!({ "seen": 2, "rate": 0.1 }));
        let found = latest(dir.path()).unwrap().unwrap();
        let current = found.load("lm_head.weight").unwrap().equal(&entries(2)[1].tensor);
        assert!(saved.is_err() || current, "call {number}: the save succeeded without saving");
        if replacing {
            assert_eq!(found.step(), 2, "call {number}: {:?}", names_in(dir.path()));
            found.verify().unwrap();
        } else {
            assert_holds(&found, found.step());
        }
        let before = Checkpoint::open(&dir.path().join("step-00000001")).unwrap();
        before.verify().unwrap();
        assert_holds(&before, 1);
        if fault != Fault::Killed {
            let tidy = names_in(dir.path()).iter().all(|name| !name.contains(".tmp-"));
            assert!(tidy, "call {number} left {:?}", names_in(dir.path()));
        }
        drop((found, before));

        // Whatever was left, the next save succeeds and removes it.
        save_step(dir.path(), 2);
        assert_holds(&latest(dir.path()).unwrap().unwrap(), 2);
        assert_eq!(names_in(dir.path()), ["step-00000001", "step-00000002"], "after call {number}");
        if !disk.has_failed() {
            assert!(saved.is_ok());
            return number;
        }
    }
    unreachable!("every save has a last call")
}

#[test]
fn a_fault_at_any_call_leaves_earlier_checkpoints_intact() {
    for replacing in [false, true] {
        for fault in [Fault::Once, Fault::Full, Fault::Killed] {
            for exchange in [true, false] {
                assert!(survive_faults(fault, replacing, exchange) > 8);
            }
        }
    }
}

#[test]
fn a_full_disk_is_reported_before_and_while_writing() {
    let dir = tempfile::tempdir().unwrap();
    let error = Writer::begin(dir.path(), 1, u64::MAX / 2).unwrap_err();
    assert!(matches!(error, Error::NoRoom { .. }), "{error:?}");
    assert!(ErrorReport::of(error).hints[0].contains("lower checkpoint.keep_last"));
    // Calls: directory, file, header.
    let disk = Disk::failing(Faults::at(3, Fault::Full));
    let error = save_with(&disk, dir.path(), 1, &entries(1), &json!(0)).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert_eq!(names_in(dir.path()), [""; 0]);
}

#[test]
fn any_flipped_byte_or_truncation_is_detected_and_the_previous_checkpoint_is_used() {
    let dir = tempfile::tempdir().unwrap();
    save_step(dir.path(), 1);
    save_step(dir.path(), 2);
    let newest = dir.path().join("step-00000002");
    for name in ["manifest.json", "rank-00000-of-00001.safetensors"] {
        let path = newest.join(name);
        let good = fs::read(&path).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1 << (position % 8);
            fs::write(&path, &bad).unwrap();
            assert_eq!(latest(dir.path()).unwrap().unwrap().step(), 1, "{name}, byte {position}");
        }
        for length in [0, 1, 7, 8, 9, good.len() / 2, good.len() - 1] {
            fs::write(&path, &good[..length]).unwrap();
            assert_eq!(latest(dir.path()).unwrap().unwrap().step(), 1, "{name} truncated to {length} bytes");
        }
        fs::write(&path, [&good[..], b"x"].concat()).unwrap();
        assert_eq!(latest(dir.path()).unwrap().unwrap().step(), 1, "{name} with an extra byte");
        fs::remove_file(&path).unwrap();
        let error = ErrorReport::of(Checkpoint::open(&newest).unwrap_err()).to_string();
        assert!(error.contains("step-00000002 is damaged") && error.contains(name), "{error}");
        assert_eq!(latest(dir.path()).unwrap().unwrap().step(), 1, "{name} deleted");
        fs::write(&path, good).unwrap();
    }
    assert_holds(&latest(dir.path()).unwrap().unwrap(), 2);
}

#[test]
fn damage_is_reported_by_tensor_and_detected_on_loading() {
    let dir = tempfile::tempdir().unwrap();
    save_step(dir.path(), 1);
    let path = dir.path().join("step-00000001/rank-00000-of-00001.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open(&dir.path().join("step-00000001")).unwrap();
    let error = ErrorReport::of(checkpoint.verify().unwrap_err()).to_string();
    assert!(error.contains("model.norm.weight in rank-00000"), "{error}");
    assert!(matches!(checkpoint.load("model.norm.weight"), Err(Error::Damaged { .. })));
    assert!(checkpoint.load("lm_head.weight").is_ok());
    let error = ErrorReport::of(latest(dir.path()).unwrap_err()).to_string();
    assert!(error.contains("no usable checkpoint") && error.contains("model.norm.weight"), "{error}");
}

#[test]
fn open_checkpoints_are_not_pruned_and_unfinished_ones_are_not_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let policy = oss_config::Checkpoint { keep_last: 1, ..Default::default() };
    for step in 1..=4 {
        save_step(dir.path(), step);
    }
    let open = Checkpoint::open(&dir.path().join("step-00000002")).unwrap();
    let writer = Writer::begin(dir.path(), 9, 0).unwrap();
    save_step(dir.path(), 5);
    assert!(writer.folder().exists());
    drop(writer);
    assert_eq!(prune(dir.path(), &policy, None, &[3]).unwrap(), [1, 4]);
    assert_holds(&open, 2);
    drop(open);
    assert_eq!(prune(dir.path(), &policy, None, &[]).unwrap(), [2, 3]);
    assert_eq!(names_in(dir.path()), ["step-00000005"]);
}

#[test]
fn a_fault_while_pruning_leaves_the_kept_checkpoints() {
    let policy = oss_config::Checkpoint { keep_last: 1, ..Default::default() };
    for number in 1..=7 {
        let dir = tempfile::tempdir().unwrap();
        (1..=4).for_each(|step| save_step(dir.path(), step));
        let disk = Disk::failing(Faults::at(number, Fault::Killed));
        let pruned = retention::prune_with(&disk, dir.path(), &policy, None, &[]);
        assert_eq!(pruned.is_ok(), !disk.has_failed());
        assert_holds(&latest(dir.path()).unwrap().unwrap(), 4);
        save_step(dir.path(), 5);
        prune(dir.path(), &policy, None, &[]).unwrap();
        assert_eq!(names_in(dir.path()), ["step-00000005"], "after call {number}");
    }
}

/// Saves step 1, replaces `old` with `new` in its manifest, and updates the manifest's digest.
fn with_manifest(dir: &Path, old: &str, new: &str) -> Result<Checkpoint> {
    save_step(dir, 1);
    let path = dir.join("step-00000001");
    let text = fs::read_to_string(path.join("manifest.json")).unwrap();
    let (body, _) = text.rsplit_once(",\"digest\"").unwrap();
    assert!(body.contains(old), "{body}");
    let body = body.replacen(old, new, 1);
    let digest = blake3::hash(body.as_bytes()).to_hex();
    fs::write(path.join("manifest.json"), format!("{body},\"digest\":\"{digest}\"}}\n")).unwrap();
    Checkpoint::open(&path)
}

#[test]
fn a_newer_format_is_reported_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let error = with_manifest(dir.path(), "\"format\":1", "\"format\":99").unwrap_err();
    assert!(matches!(error, Error::Newer { format: 99, .. }), "{error:?}");
}

#[test]
fn an_impossible_shape_is_damage() {
    for shape in ["[-3,-4]", "[4294967296,4294967296]", "[0,-1]"] {
        let dir = tempfile::tempdir().unwrap();
        let error = with_manifest(dir.path(), "\"shape\":[3,4]", &format!("\"shape\":{shape}")).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    }
}
