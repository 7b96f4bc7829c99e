//! A run's `manifest.json`: as is, and with a recomputed digest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oss_runs::run_dir::{Manifest, RunDir};
use oss_run_fuzz::Scratch;

/// The text before and after the digest.
const DIGEST_OPEN: &[u8] = b",\n  \"digest\": \"";
const DIGEST_CLOSE: &[u8] = b"\"\n}\n";

fuzz_target!(|data: &[u8]| {
    thread_local!(static SCRATCH: Scratch = Scratch::new());
    SCRATCH.with(|scratch| {
        let run = RunDir::new(scratch.path());
        scratch.write("manifest.json", data);
        let _ = Manifest::load(&run);
        let end = data.windows(DIGEST_OPEN.len()).rposition(|window| window == DIGEST_OPEN);
        let body = &data[..end.unwrap_or(data.len())];
        let digest = blake3::hash(body).to_hex();
        scratch.write("manifest.json", &[body, DIGEST_OPEN, digest.as_bytes(), DIGEST_CLOSE].concat());
        let Ok(manifest) = Manifest::load(&run) else { return };
        manifest.save(&run).expect("the temporary directory can be written");
        assert_eq!(Manifest::load(&run).expect("a saved manifest loads"), manifest);
    });
});
