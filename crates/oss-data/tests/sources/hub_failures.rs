//! A Hub that refuses, fails or lies: each message names the request and has a hint, and never shows the token.

use std::fs;
use std::net::TcpListener;

use oss_config::error::ErrorReport;
use oss_config::{Hub as HubOrigin, Origin};
use oss_data::sources::hub::{Hub, Repository, Token};
use oss_data::sources::{HubConfig, SourceFiles, Watch};

use crate::fake_hub::{CANARY, COMMIT, FakeHub};
use crate::hub::{large, pin};
use crate::options;

fn check(error: &anyhow::Error, parts: &[&str]) {
    let message = format!("{} {error:?}", ErrorReport::from(error));
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert!(!message.contains(CANARY), "the token is in {message:?}");
}

#[test]
fn refusals_say_what_to_do() {
    let hub = FakeHub::start(&[("small.txt", b"a tale")]);
    let home = tempfile::tempdir().unwrap();
    let config = hub.config(home.path());
    let refused = |status, code, config: &HubConfig| {
        hub.now().statuses.push_back((status, code));
        pin(config).unwrap_err()
    };
    let without = HubConfig { token: None, ..config.clone() };
    check(&refused(401, "RepoNotFound", &without), &["dataset ann/tales at main", "401", "set HF_TOKEN"]);
    check(&refused(401, "", &config), &["not accepted", "valid token"]);
    check(&refused(403, "GatedRepo", &config), &["accept the license at", "/datasets/ann/tales"]);
    check(&refused(404, "RepoNotFound", &config), &["no dataset ann/tales", "name"]);
    check(&refused(404, "RevisionNotFound", &config), &["no revision main of dataset ann/tales", "branches"]);
    check(&refused(404, "", &config), &["404", "names of the repository and the revision"]);
    check(&refused(418, "", &config), &["418"]);
    let missing = pin(&config).unwrap().fetch("other.txt", Watch::quiet()).unwrap_err();
    check(&missing, &["no file other.txt of dataset ann/tales", COMMIT, "file's name"]);
}

#[test]
fn transient_failures_are_retried() {
    let hub = FakeHub::start(&[("small.txt", b"a tale")]);
    let home = tempfile::tempdir().unwrap();
    let config = hub.config(home.path());
    hub.now().statuses.extend([(429, ""), (503, "")]);
    let pinned = pin(&config).unwrap();
    hub.now().statuses.extend([(500, ""), (500, "")]);
    pinned.fetch("small.txt", Watch::quiet()).unwrap();
    hub.now().statuses.extend([(500, ""); 3]);
    check(&pin(&config).unwrap_err(), &["returned status 500", "tried 3 times", "later"]);
    hub.now().statuses.extend([(429, ""); 3]);
    check(&pin(&config).unwrap_err(), &["returned status 429"]);
}

#[test]
fn wrong_bytes_are_discarded() {
    let hub = FakeHub::start(&[("small.txt", b"a tale"), ("big.bin", &large())]);
    let home = tempfile::tempdir().unwrap();
    let pinned = pin(&hub.config(home.path())).unwrap();
    hub.now().corrupt = true;
    for (name, kind) in [("big.bin", "SHA-256"), ("small.txt", "git blob ID")] {
        let error = pinned.fetch(name, Watch::quiet()).unwrap_err();
        check(&error, &[name, "corrupted in transit", kind, "discarded", "run again"]);
        assert!(!pinned.snapshot().join(name).exists());
    }
    let blobs = home.path().join("hub/datasets--ann--tales/blobs");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 0);
    hub.now().corrupt = false;
    pinned.fetch("big.bin", Watch::quiet()).unwrap();
}

#[test]
fn a_truncated_response_is_an_error() {
    let hub = FakeHub::start(&[("big.bin", &large())]);
    let home = tempfile::tempdir().unwrap();
    let pinned = pin(&hub.config(home.path())).unwrap();
    hub.now().cuts.extend([1_000, 0, 0, 0, 0, 0]);
    let error = pinned.fetch("big.bin", Watch::quiet()).unwrap_err();
    check(&error, &["big.bin", "broke", "resume the download"]);
    assert!(!pinned.snapshot().join("big.bin").exists());
}

#[test]
fn an_unreachable_endpoint() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let hub = FakeHub::start(&[]);
    let home = tempfile::tempdir().unwrap();
    let nobody = HubConfig { endpoint: endpoint.clone(), ..hub.config(home.path()) };
    check(
        &pin(&nobody).unwrap_err(),
        &["cannot reach the Hub", &endpoint, "connection refused", "HF_ENDPOINT"],
    );
    // If the cache has the revision, the message says how to use it.
    pin(&hub.config(home.path())).unwrap();
    check(&pin(&nobody).unwrap_err(), &["HF_HUB_OFFLINE=1", COMMIT]);
}

#[test]
fn invalid_settings() {
    let hub = FakeHub::start(&[]);
    let home = tempfile::tempdir().unwrap();
    let config = hub.config(home.path());
    let with = |endpoint: &str| HubConfig { endpoint: endpoint.into(), ..config.clone() };
    for endpoint in ["", "hub", "ftp://hub", "/x"] {
        check(&pin(&with(endpoint)).unwrap_err(), &["HF_ENDPOINT is not a URL"]);
    }
    let secret = pin(&with("https://user:hunter2@hub")).unwrap_err();
    check(&secret, &["HF_ENDPOINT contains a user name"]);
    assert!(!secret.to_string().contains("hunter2"));
    let token = Token::new(&format!("{CANARY}\nx"));
    check(&pin(&HubConfig { token, ..config }).unwrap_err(), &["HF_TOKEN contains invalid characters"]);
}

#[test]
fn invalid_names_are_rejected_before_any_request() {
    let hub = FakeHub::start(&[("small.txt", b"a tale")]);
    let home = tempfile::tempdir().unwrap();
    let mut options = options(home.path());
    options.hub = hub.config(home.path());
    let resolve = |repo: &str, revision: &str, files: &[&str]| {
        let files = files.iter().map(|file| (*file).to_string()).collect();
        let wanted = HubOrigin { repo: repo.into(), revision: revision.into(), files };
        SourceFiles::resolve(&Origin::Hub(&wanted), &options, Watch::quiet()).unwrap_err()
    };
    check(&resolve("ann/tales", "main", &["a.txt", "../b.txt"]), &["../b.txt", "inside the repository"]);
    check(&resolve("ann/tales", "main", &["/etc/passwd"]), &["/etc/passwd"]);
    check(&resolve("ann/tales", "main", &["a\0.txt"]), &["a\\0.txt"]);
    check(&resolve("ann/tales", "main", &[]), &["hub.files is empty"]);
    check(&resolve("../tales", "main", &["a.txt"]), &["repository", "owner/name"]);
    check(&resolve("ann/ta\0les", "main", &["a.txt"]), &["repository"]);
    check(&resolve("ann/tales", "../main", &["a.txt"]), &["revision"]);
    assert!(hub.now().requests.is_empty());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    check(&resolve("ann/tales", "main", &["*.parquet"]), &["*.parquet", "small.txt", "hub.files"]);
    check(&resolve("ann/tales", "main", &["a.xml"]), &["a.xml", "not supported"]);
    let model = Repository::model("ann/tales", "main").unwrap();
    let pinned = Hub::new(options.hub.clone()).unwrap().pin(&model, None, Watch::quiet());
    check(&pinned.unwrap_err(), &["model ann/tales"]);
}
