//! A well-behaved Hub: pinning, the cache layout, resuming, sharing, and offline use.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use oss_config::error::ErrorReport;
use oss_config::{Hub as HubOrigin, Origin, TokenizerChoice};
use oss_data::Tokenizer;
use oss_data::sources::hub::{Hub, Pinned, Repository};
use oss_data::sources::{Activity, HubConfig, Identity, ReadOptions, SourceFiles, Watch};

use crate::fake_hub::{CANARY, COMMIT, FakeHub, Request};
use crate::options;

pub fn pin(config: &HubConfig) -> anyhow::Result<Pinned> {
    let repository = Repository::dataset("ann/tales", "main")?;
    Hub::new(config.clone())?.pin(&repository, None, Watch::quiet())
}

pub fn large() -> Vec<u8> {
    (0..3_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn every_file(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(every_file(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn files_land_in_the_shared_layout() {
    let hub = FakeHub::start(&[("data/small.txt", b"a tale"), ("big.bin", &large())]);
    let home = tempfile::tempdir().unwrap();
    let pinned = pin(&hub.config(home.path())).unwrap();
    assert_eq!(pinned.commit(), COMMIT);
    let small = pinned.fetch("data/small.txt", Watch::quiet()).unwrap();
    let big = pinned.fetch("big.bin", Watch::quiet()).unwrap();
    let repository = home.path().join("hub/datasets--ann--tales");
    assert_eq!(small, repository.join("snapshots").join(COMMIT).join("data/small.txt"));
    assert_eq!(fs::read(&small).unwrap(), b"a tale");
    assert_eq!(fs::read(&big).unwrap(), large());
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    // Relative links to blobs named by their tags, so that the cache can be moved.
    let target = fs::read_link(&small).unwrap();
    assert!(target.starts_with("../../../blobs"), "{target:?}");
    assert_eq!(target.file_name().unwrap().len(), 40);
    assert_eq!(fs::read_link(&big).unwrap().file_name().unwrap().len(), 64);
    // The second time, no request is sent.
    let asked = hub.now().requests.len();
    pinned.fetch("big.bin", Watch::quiet()).unwrap();
    assert_eq!(hub.now().requests.len(), asked);
}

#[test]
fn the_token_is_sent_only_to_the_hub() {
    let hub = FakeHub::start(&[("small.txt", b"a tale"), ("big.bin", &large())]);
    let home = tempfile::tempdir().unwrap();
    let pinned = pin(&hub.config(home.path())).unwrap();
    pinned.fetch("big.bin", Watch::quiet()).unwrap();
    pinned.fetch("small.txt", Watch::quiet()).unwrap();
    let bearer = Some(format!("Bearer {CANARY}"));
    assert!(hub.now().requests.iter().all(|request| request.token == bearer));
    let stored = hub.storage.lock().unwrap();
    assert!(!stored.is_empty() && stored.iter().all(|request| request.token.is_none()));
    assert!(!format!("{pinned:?}").contains(CANARY));
    for path in every_file(home.path()) {
        let bytes = fs::read(&path).unwrap();
        let found = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
        assert!(!found, "the token is in {}", path.display());
    }
}

#[test]
fn a_full_commit_needs_no_request() {
    let hub = FakeHub::start(&[("small.txt", b"a tale")]);
    let home = tempfile::tempdir().unwrap();
    let repository = Repository::dataset("ann/tales", COMMIT).unwrap();
    let pinned = Hub::new(hub.config(home.path())).unwrap().pin(&repository, None, Watch::quiet()).unwrap();
    assert_eq!(pinned.commit(), COMMIT);
    assert!(hub.now().requests.is_empty());
    pinned.fetch("small.txt", Watch::quiet()).unwrap();
}

#[test]
fn a_mirror_without_revisions_still_names_the_commit() {
    let hub = FakeHub::start(&[("small.txt", b"a tale")]);
    hub.now().without_api = true;
    let home = tempfile::tempdir().unwrap();
    let repository = Repository::dataset("ann/tales", "main").unwrap();
    let hub = Hub::new(hub.config(home.path())).unwrap();
    let pinned = hub.pin(&repository, Some("small.txt"), Watch::quiet()).unwrap();
    assert_eq!(pinned.commit(), COMMIT);
}

#[test]
fn a_broken_download_resumes_where_it_stopped() {
    let hub = FakeHub::start(&[("big.bin", &large())]);
    hub.now().cuts.extend([1_000_000, 500_000]);
    let home = tempfile::tempdir().unwrap();
    let path = pin(&hub.config(home.path())).unwrap().fetch("big.bin", Watch::quiet()).unwrap();
    assert_eq!(fs::read(path).unwrap(), large());
    let ranges: Vec<_> = hub.storage.lock().unwrap().iter().map(|request| request.range.clone()).collect();
    assert_eq!(ranges, [None, Some("bytes=1000000-".into()), Some("bytes=1500000-".into())]);
}

#[test]
fn a_later_process_resumes_what_an_earlier_one_left() {
    let hub = FakeHub::start(&[("big.bin", &large())]);
    let home = tempfile::tempdir().unwrap();
    let config = HubConfig { retries: 0, ..hub.config(home.path()) };
    hub.now().cuts.push_back(700_000);
    let error = pin(&config).unwrap().fetch("big.bin", Watch::quiet()).unwrap_err();
    let hints = ErrorReport::of(error).hints.join("; ");
    assert!(hints.contains("run again") && hints.contains("resume the download"), "{hints}");
    hub.storage.lock().unwrap().clear();
    let path = pin(&config).unwrap().fetch("big.bin", Watch::quiet()).unwrap();
    assert_eq!(fs::read(path).unwrap(), large());
    let expected = Request { path: "/blob/big.bin".into(), range: Some("bytes=700000-".into()), token: None };
    assert_eq!(*hub.storage.lock().unwrap(), [expected]);
    let unfinished = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "incomplete");
    assert!(!every_file(home.path()).iter().any(unfinished));
}

#[test]
fn a_hub_that_cannot_resume_sends_everything_again() {
    let hub = FakeHub::start(&[("big.bin", &large())]);
    hub.now().cuts.push_back(1_000_000);
    hub.now().ignores_ranges = true;
    let home = tempfile::tempdir().unwrap();
    let path = pin(&hub.config(home.path())).unwrap().fetch("big.bin", Watch::quiet()).unwrap();
    assert_eq!(fs::read(path).unwrap(), large());
}

#[test]
fn a_corrupted_partial_file_is_downloaded_again() {
    let hub = FakeHub::start(&[("big.bin", &large())]);
    let home = tempfile::tempdir().unwrap();
    let config = HubConfig { retries: 0, ..hub.config(home.path()) };
    hub.now().cuts.push_back(700_000);
    let pinned = pin(&config).unwrap();
    pinned.fetch("big.bin", Watch::quiet()).unwrap_err();
    let partial = every_file(home.path())
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "incomplete"))
        .unwrap();
    let mut bytes = fs::read(&partial).unwrap();
    bytes[10] ^= 1;
    fs::write(&partial, &bytes).unwrap();
    let path = pinned.fetch("big.bin", Watch::quiet()).unwrap();
    assert_eq!(fs::read(path).unwrap(), large());
    // Longer than the file, so it cannot be a part of it.
    fs::remove_dir_all(home.path().join("hub")).unwrap();
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    fs::write(&partial, vec![0; 4_000_000]).unwrap();
    let path = pinned.fetch("big.bin", Watch::quiet()).unwrap();
    assert_eq!(fs::read(path).unwrap(), large());
}

#[test]
fn a_stopped_download_is_kept_and_its_error_passed_through() {
    let hub = FakeHub::start(&[("big.bin", &large())]);
    let home = tempfile::tempdir().unwrap();
    let pinned = pin(&hub.config(home.path())).unwrap();
    let done = Mutex::new(0);
    let progress = |activity: Activity<'_>| *done.lock().unwrap() = activity.done_bytes;
    let keep_going = || {
        if *done.lock().unwrap() > 500_000 {
            anyhow::bail!("stop it")
        }
        Ok(())
    };
    let watch = Watch { keep_going: &keep_going, progress: &progress };
    assert_eq!(pinned.fetch("big.bin", watch).unwrap_err().to_string(), "stop it");
    hub.storage.lock().unwrap().clear();
    pinned.fetch("big.bin", Watch::quiet()).unwrap();
    assert!(hub.storage.lock().unwrap()[0].range.is_some());
}

#[test]
fn several_processes_download_once() {
    let hub = FakeHub::start(&[("big.bin", &large())]);
    let home = tempfile::tempdir().unwrap();
    let config = hub.config(home.path());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| pin(&config).unwrap().fetch("big.bin", Watch::quiet()).unwrap());
        }
    });
    assert_eq!(hub.storage.lock().unwrap().len(), 1);
}

#[test]
fn an_empty_file_is_a_file() {
    let hub = FakeHub::start(&[("none.txt", b"")]);
    let home = tempfile::tempdir().unwrap();
    let path = pin(&hub.config(home.path())).unwrap().fetch("none.txt", Watch::quiet()).unwrap();
    assert_eq!(fs::read(path).unwrap(), b"");
}

#[test]
fn a_tokenizer_comes_with_what_declares_its_end_of_text() {
    let bytes = Tokenizer::load(&TokenizerChoice::Named("bytes".into()), None).unwrap().hugging_face_json();
    let hub = FakeHub::start(&[
        ("tokenizer.json", bytes.as_bytes()),
        ("tokenizer_config.json", br#"{ "eos_token": "!" }"#),
        ("model.safetensors", &large()),
    ]);
    let home = tempfile::tempdir().unwrap();
    let pinned = pin(&hub.config(home.path())).unwrap();
    Tokenizer::download(&pinned, Watch::quiet()).unwrap();
    let tokenizer = Tokenizer::from_file(&pinned.snapshot(), None).unwrap();
    assert_eq!(tokenizer.end_of_text_token().token, "!");
    assert!(!pinned.snapshot().join("model.safetensors").exists());
    // The second time, no request is sent.
    let asked = hub.now().requests.len();
    Tokenizer::download(&pinned, Watch::quiet()).unwrap();
    assert_eq!(hub.now().requests.len(), asked);

    let hub = FakeHub::start(&[("tokenizer.model", b"sentencepiece")]);
    let home = tempfile::tempdir().unwrap();
    let error = Tokenizer::download(&pin(&hub.config(home.path())).unwrap(), Watch::quiet()).unwrap_err();
    let error = ErrorReport::from(&error).to_string();
    assert!(error.contains("no tokenizer.json") && error.contains("set dataset.tokenizer"), "{error}");
}

#[test]
fn a_hub_repository_is_a_source_online_and_offline() {
    let hub = FakeHub::start(&[
        ("data/b.txt", b"two\n<|endoftext|>\nthree"),
        ("data/a.txt", b"one"),
        ("data/deep/c.txt", b"no"),
        ("README.md", b"no"),
    ]);
    let home = tempfile::tempdir().unwrap();
    let online = ReadOptions { hub: hub.config(home.path()), ..options(home.path()) };
    let wanted =
        HubOrigin { repo: "ann/tales".into(), revision: "main".into(), files: vec!["data/*.txt".into()] };
    let read = |options: &ReadOptions| {
        let source = SourceFiles::resolve(&Origin::Hub(&wanted), options, Watch::quiet())?;
        let texts = source.documents(Watch::quiet())?.map(|document| Ok(document?.text.trim().to_string()));
        Ok((source.identity(), texts.collect::<anyhow::Result<Vec<_>>>()?))
    };
    let (identity, texts) = read(&online).unwrap();
    assert_eq!(texts, ["one", "two", "three"]);
    let files = vec!["data/a.txt".into(), "data/b.txt".into()];
    assert_eq!(identity, Identity::Hub { repo: "ann/tales".into(), commit: COMMIT.into(), files });
    // Offline, from the cache alone.
    let asked = hub.now().requests.len();
    let offline = ReadOptions { hub: HubConfig { offline: true, ..online.hub.clone() }, ..online.clone() };
    assert_eq!(read(&offline).unwrap(), (identity, texts));
    assert_eq!(hub.now().requests.len(), asked);
    let elsewhere = tempfile::tempdir().unwrap();
    let empty = HubConfig { cache: elsewhere.path().into(), offline: true, ..online.hub.clone() };
    let error: anyhow::Error = read(&ReadOptions { hub: empty, ..online }).unwrap_err();
    assert!(format!("{error:#}").contains("HF_HUB_OFFLINE"), "{error:#}");
}
