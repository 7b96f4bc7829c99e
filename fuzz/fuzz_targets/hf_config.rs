//! `config.json` beside the `model.safetensors` of a small model.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oss_train::hf_format::HfDirectory;
use oss_run_fuzz::Scratch;

const WEIGHTS: &[u8] = include_bytes!("../seeds/safetensors/exported.safetensors");

fuzz_target!(|data: &[u8]| {
    thread_local!(static SCRATCH: Scratch = {
        let scratch = Scratch::new();
        scratch.write("model.safetensors", WEIGHTS);
        scratch
    });
    SCRATCH.with(|scratch| {
        scratch.write("config.json", data);
        let _ = HfDirectory::open(scratch.path());
    });
});
