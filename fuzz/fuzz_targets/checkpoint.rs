//! A checkpoint of one rank: its `manifest.json` (with a recomputed digest), a 0xFF byte, which cannot occur in JSON,
//! and its tensor file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oss_train::checkpoint::Checkpoint;
use oss_run_fuzz::Scratch;

/// The text before and after the digest.
const DIGEST_OPEN: &[u8] = b",\"digest\":\"";
const DIGEST_CLOSE: &[u8] = b"\"}\n";

fuzz_target!(|data: &[u8]| {
    thread_local!(static SCRATCH: Scratch = Scratch::new());
    let Some(end) = data.iter().position(|byte| *byte == 0xff) else { return };
    let (manifest, tensors) = (&data[..end], &data[end + 1..]);
    SCRATCH.with(|scratch| {
        scratch.write("rank-00000-of-00001.safetensors", tensors);
        let end = manifest.windows(DIGEST_OPEN.len()).rposition(|window| window == DIGEST_OPEN);
        let body = &manifest[..end.unwrap_or(manifest.len())];
        let digest = blake3::hash(body).to_hex();
        scratch.write("manifest.json", &[body, DIGEST_OPEN, digest.as_bytes(), DIGEST_CLOSE].concat());
        let Ok(checkpoint) = Checkpoint::open(scratch.path()) else { return };
        let _ = checkpoint.verify();
        for name in checkpoint.names() {
            if let Ok(tensor) = checkpoint.load(name) {
                assert_eq!(Some(tensor.size().as_slice()), checkpoint.shape(name));
            }
        }
    });
});
