//! Several ranks, simulated by threads: a rank that fails at any call, misplaced files, and agreement on a checkpoint.

use oss_config::error::ErrorReport;
use std::{
    path::PathBuf,
    sync::{Barrier, Mutex},
    thread,
};

use super::*;

/// The pieces of [`entries`] on rank `rank` of `ranks`, some of them empty.
fn held(step: u64, rank: usize, ranks: usize) -> Vec<Entry> {
    let part = |Entry { name, shape, tensor, .. }: Entry| {
        let numel = tensor.numel() as i64;
        // Rounded up, so that with many ranks, the last ones have no elements of a small tensor.
        let each = (numel as u64).div_ceil(ranks as u64) as i64;
        let at = |rank: usize| (rank as i64 * each).min(numel);
        let range = at(rank)..at(rank + 1);
        let tensor = tensor.flatten(0, -1).narrow(0, range.start, range.end - range.start);
        Entry { name, shape, range, tensor }
    };
    entries(step).into_iter().map(part).collect()
}

fn state(step: u64) -> serde_json::Value {
    json!({ "seen": step, "rate": 0.1 })
}

/// Saves with one rank per disk. The first rank is the leader; reports are sent as JSON.
fn save_on(disks: &[Disk], dir: &Path, step: u64) -> Result<PathBuf> {
    let ranks = disks.len();
    let needed = (0..ranks).map(|rank| bytes_needed(&held(step, rank, ranks)).unwrap()).sum();
    let writer = Writer::begin_with(&disks[0], dir, step, needed)?;
    let folder = writer.folder();
    let reports = thread::scope(|scope| {
        let write = |(rank, disk)| {
            let entries = held(step, rank, ranks);
            scope.spawn(move || write_rank_with(disk, folder, rank, ranks, &entries, &Default::default()))
        };
        let threads: Vec<_> = disks.iter().enumerate().map(write).collect();
        let report = |written: Result<RankFile>| {
            let report = written.map_err(|error| ErrorReport::of(error).summary());
            serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap()
        };
        threads.into_iter().map(|thread| report(thread.join().unwrap())).collect()
    });
    writer.commit(reports, &state(step))
}

fn good_disks(ranks: usize) -> Vec<Disk> {
    vec![Disk::default(); ranks]
}

/// Saves repeatedly on three ranks, with a fault at the first, second, third... disk call of rank `rank`, until the
/// fault is no longer reached. After each fault, only that save may be lost.
fn survive_a_rank(rank: usize, fault: Fault) -> usize {
    for number in 1.. {
        let dir = tempfile::tempdir().unwrap();
        save_step(dir.path(), 1);
        let mut disks = good_disks(3);
        disks[rank] = Disk::failing(Faults::at(number, fault));
        let saved = save_on(&disks, dir.path(), 2);
        let (reached, is_saved) = (disks[rank].has_failed(), saved.is_ok());
        if let Err(error) = saved {
            let error = ErrorReport::of(error).to_string();
            assert!(reached, "{error}");
            assert!(rank == 0 || error.contains(&format!("rank {rank}: ")), "call {number}: {error}");
            assert_eq!(error.contains("rank 2"), rank == 2, "only failed ranks are named: {error}");
        }
        let whole = list(dir.path());
        assert!(whole.len() > is_saved.into(), "call {number}: {:?}", names_in(dir.path()));
        for (step, path) in whole {
            let checkpoint = Checkpoint::open(&path).unwrap();
            checkpoint.verify().unwrap();
            assert_holds(&checkpoint, step);
        }
        if fault != Fault::Killed {
            assert!(names_in(dir.path()).iter().all(|name| !name.contains(".tmp-")), "call {number}");
        }
        save_on(&good_disks(2), dir.path(), 2).unwrap();
        assert_holds(&latest(dir.path()).unwrap().unwrap(), 2);
        assert_eq!(names_in(dir.path()), ["step-00000001", "step-00000002"], "after call {number}");
        if !reached {
            assert!(is_saved);
            return number;
        }
    }
    unreachable!("every save has a last call")
}

#[test]
fn a_rank_that_fails_at_any_call_is_named_and_only_that_checkpoint_is_lost() {
    // The leader, and one of the others, which all behave alike.
    for (rank, fault) in [(0, Fault::Once), (0, Fault::Killed), (2, Fault::Full), (2, Fault::Killed)] {
        assert!(survive_a_rank(rank, fault) > 5);
    }
}

#[test]
fn invalid_reports_are_refused_by_rank() {
    let dir = tempfile::tempdir().unwrap();
    let write = |writer: &Writer, rank, ranks| {
        write_rank(writer.folder(), rank, ranks, &held(1, rank, ranks))
            .map_err(|error| ErrorReport::of(error).summary())
    };
    let refused = |reports: &dyn Fn(&Writer) -> Vec<Result<RankFile, String>>| {
        let writer = Writer::begin(dir.path(), 1, 0).unwrap();
        let reports = reports(&writer);
        let error = ErrorReport::of(writer.commit(reports, &state(1)).unwrap_err()).to_string();
        assert_eq!(names_in(dir.path()), [""; 0]);
        error
    };
    let error = refused(&|writer| vec![write(writer, 0, 2), Err("no space".into())]);
    assert!(error.contains("rank 1: no space") && !error.contains("rank 0"), "{error}");
    let error = refused(&|writer| vec![write(writer, 1, 2), write(writer, 0, 2)]);
    assert!(error.contains("rank 0: wrote rank-00001-of-00002"), "{error}");
    let error = refused(&|writer| {
        let reports = vec![write(writer, 0, 2), write(writer, 1, 2)];
        fs::remove_file(writer.folder().join("rank-00001-of-00002.safetensors")).unwrap();
        reports
    });
    assert!(error.contains("rank 1: ") && error.contains("file system that all ranks share"), "{error}");
    assert!(write_rank(dir.path(), 0, 1, &[]).is_err(), "not a writer's folder");
}

#[test]
fn ranks_without_elements_of_a_tensor_omit_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = save_on(&good_disks(8), dir.path(), 3).unwrap();
    // Of 5 elements on 8 ranks, the last three have none; of 12, the last two.
    for (rank, tensors) in [(0, 3), (4, 3), (5, 2), (6, 0), (7, 0)] {
        let bytes = fs::read(path.join(format!("rank-{rank:05}-of-00008.safetensors"))).unwrap();
        assert_eq!(safetensors::SafeTensors::deserialize(&bytes).unwrap().len(), tensors, "rank {rank}");
    }
    assert_holds(&Checkpoint::open(&path).unwrap(), 3);
}

#[test]
fn all_ranks_together_verify_every_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = save_on(&good_disks(5), dir.path(), 1).unwrap();
    for damaged in 0..3 {
        let file = path.join(format!("rank-{damaged:05}-of-00005.safetensors"));
        let good = fs::read(&file).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        fs::write(&file, bad).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        for ranks in 1..=7 {
            for rank in 0..ranks {
                let found = checkpoint.verify_part(rank, ranks);
                assert_eq!(found.is_err(), damaged % ranks == rank, "file {damaged}, rank {rank} of {ranks}");
            }
        }
        fs::write(&file, good).unwrap();
    }
}

/// Lets threads exchange the problems that they found.
struct Meeting {
    barrier: Barrier,
    complaints: Mutex<Vec<Option<String>>>,
}

impl Meeting {
    fn of(ranks: usize) -> Self {
        Self { barrier: Barrier::new(ranks), complaints: Mutex::new(vec![None; ranks]) }
    }

    /// The complaint of the first rank that has one.
    fn agree(&self, rank: usize, complaint: Option<String>) -> Option<String> {
        self.complaints.lock().unwrap()[rank] = complaint;
        self.barrier.wait();
        let first = self.complaints.lock().unwrap().iter().flatten().next().cloned();
        self.barrier.wait();
        first
    }
}

/// The step that each of three ranks resumes from, or its error.
fn found_together(dir: &Path) -> Vec<Result<Option<u64>, String>> {
    let (meeting, candidates) = (Meeting::of(3), candidates(dir));
    thread::scope(|scope| {
        let look = |rank| {
            let (meeting, candidates) = (&meeting, &candidates);
            scope.spawn(move || {
                newest_whole(dir, candidates, (rank, 3), |mine| Ok::<_, Error>(meeting.agree(rank, mine)))
                    .map(|found| found.map(|checkpoint| checkpoint.step()))
                    .map_err(|error| ErrorReport::of(error).summary())
            })
        };
        let threads: Vec<_> = (0..3).map(look).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn ranks_agree_on_the_newest_intact_checkpoint_no_matter_which_rank_detects_damage() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(found_together(dir.path()), vec![Ok(None); 3]);
    let older = save_on(&good_disks(3), dir.path(), 1).unwrap();
    let newer = save_on(&good_disks(3), dir.path(), 2).unwrap();
    assert_eq!(found_together(dir.path()), vec![Ok(Some(2)); 3]);
    let damage = |path: &Path, rank: usize| {
        let file = path.join(format!("rank-{rank:05}-of-00003.safetensors"));
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(file, bytes).unwrap();
    };
    for rank in 0..3 {
        damage(&newer, rank);
        assert_eq!(found_together(dir.path()), vec![Ok(Some(1)); 3], "damage that rank {rank} detects");
        damage(&newer, rank);
    }
    assert_eq!(found_together(dir.path()), vec![Ok(Some(2)); 3]);
    damage(&older, 1);
    damage(&newer, 2);
    let found = found_together(dir.path());
    let error = found[0].as_ref().unwrap_err();
    assert!(error.contains("step-00000001") && error.contains("in rank-00002-of-00003"), "{error}");
    assert!(found.iter().all(|other| other == &found[0]), "{found:?}");
    let lost = newest_whole(dir.path(), &candidates(dir.path()), (0, 3), |_| anyhow::bail!("rank 1 is gone"));
    assert_eq!(lost.unwrap_err().to_string(), "rank 1 is gone");
}

/// Saves a checkpoint of two ranks, with a tensor each, in files of equal size.
fn save_pair(dir: &Path, step: u64) {
    let writer = Writer::begin(dir, step, 0).unwrap();
    let write = |rank: usize| {
        let entry = Entry::whole(["a", "b"][rank], &values(step + rank as u64, 10, Kind::Float));
        Ok(write_rank(writer.folder(), rank, 2, &[entry]).unwrap())
    };
    let reports = vec![write(0), write(1)];
    writer.commit(reports, &state(step)).unwrap();
}

fn file_of_pair(dir: &Path, step: u64, rank: usize) -> PathBuf {
    dir.join(format!("step-{step:08}/rank-{rank:05}-of-00002.safetensors"))
}

#[test]
fn missing_swapped_and_foreign_files_are_reported() {
    let named = |change: &dyn Fn(&Path), expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        (1..=2).for_each(|step| save_pair(dir.path(), step));
        change(dir.path());
        let damaged = dir.path().join("step-00000002");
        let error = ErrorReport::of(Checkpoint::open(&damaged).and_then(|found| found.verify()).unwrap_err())
            .to_string();
        for part in ["step-00000002 is damaged", expected, "delete that directory"] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        assert_eq!(latest(dir.path()).unwrap().unwrap().step(), 1);
        assert_eq!(found_together(dir.path()), vec![Ok(Some(1)); 3]);
    };
    named(
        &|dir| fs::remove_file(file_of_pair(dir, 2, 1)).unwrap(),
        "rank-00001-of-00002.safetensors is missing",
    );
    named(
        &|dir| {
            let (first, second) = (file_of_pair(dir, 2, 0), file_of_pair(dir, 2, 1));
            fs::rename(&first, dir.join("aside")).unwrap();
            fs::rename(&second, &first).unwrap();
            fs::rename(dir.join("aside"), &second).unwrap();
        },
        "rank-00000-of-00002.safetensors was written by rank 1 of 2 at step 2",
    );
    named(
        &|dir| {
            fs::copy(file_of_pair(dir, 1, 1), file_of_pair(dir, 2, 1)).unwrap();
        },
        "rank-00001-of-00002.safetensors was written by rank 1 of 2 at step 1",
    );
    named(
        &|dir| {
            // The same step and rank of another run.
            let writer = Writer::begin(&dir.join("elsewhere"), 2, 0).unwrap();
            let entry = Entry::whole("a", &values(99, 10, Kind::Float));
            write_rank(writer.folder(), 0, 2, &[entry]).unwrap();
            let theirs = writer.folder().join("rank-00000-of-00002.safetensors");
            fs::rename(theirs, file_of_pair(dir, 2, 0)).unwrap();
        },
        "a in rank-00000-of-00002.safetensors does not match its digest",
    );
}

#[test]
fn a_background_write_saves_the_values_at_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Writer::begin(dir.path(), 4, 0).unwrap();
    let started = [0, 1].map(|rank| {
        let mut held = held(4, rank, 2);
        let background = Background::start(writer.folder(), rank, 2, &held).unwrap();
        // The next step changes the weights in place.
        held.iter_mut().for_each(|entry| drop(entry.tensor.fill_(0)));
        background
    });
    let reports = started.map(|file| file.wait().map_err(|error| ErrorReport::of(error).summary()));
    let path = writer.commit(reports.into(), &state(4)).unwrap();
    assert_holds(&Checkpoint::open(&path).unwrap(), 4);
}

#[test]
fn a_background_write_reports_its_failure_and_leaves_nothing_if_dropped() {
    let dir = tempfile::tempdir().unwrap();
    save_step(dir.path(), 1);
    let writer = Writer::begin(dir.path(), 2, 0).unwrap();
    let disk = Disk::failing(Faults::at(3, Fault::Full));
    let background = Background::start_with(disk, writer.folder(), 0, 1, &entries(2)).unwrap();
    let error = background.wait().unwrap_err();
    assert!(matches!(error, Error::Full { step: 2, .. }), "{error:?}");
    drop(writer);

    let writer = Writer::begin(dir.path(), 2, 0).unwrap();
    let background = Background::start(writer.folder(), 0, 1, &entries(2)).unwrap();
    drop((background, writer));
    assert_eq!(names_in(dir.path()), ["step-00000001"]);
    // If the leader dies first, the remains are not listed, and the next save removes them.
    let writer = Writer::begin(dir.path(), 2, 0).unwrap();
    let background = Background::start(writer.folder(), 0, 1, &entries(2)).unwrap();
    while !background.is_finished() {
        thread::yield_now();
    }
    let folder = dir.path().join("left");
    fs::rename(writer.folder(), &folder).unwrap();
    drop((writer, background));
    fs::rename(folder, Sibling::Temporary.of(&dir.path().join("step-00000002"))).unwrap();
    assert_eq!(list(dir.path()).len(), 1);
    assert_eq!(names_in(dir.path()).len(), 2);
    save_step(dir.path(), 3);
    assert_eq!(names_in(dir.path()), ["step-00000001", "step-00000003"]);
}
