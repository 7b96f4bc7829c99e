//! `model.safetensors` beside the `config.json` of a small model: opened, and every parameter read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oss_run::hf_format::HfDirectory;
use oss_run::model::{WeightSource, parameters};
use oss_run_fuzz::Scratch;

const CONFIG: &[u8] = include_bytes!("../seeds/hf_config/exported.json");

fuzz_target!(|data: &[u8]| {
    thread_local!(static SCRATCH: Scratch = {
        let scratch = Scratch::new();
        scratch.write("config.json", CONFIG);
        scratch
    });
    SCRATCH.with(|scratch| {
        scratch.write("model.safetensors", data);
        let Ok(mut directory) = HfDirectory::open(scratch.path()) else { return };
        let model = directory.model().clone();
        for spec in parameters(&model) {
            if let Ok(tensor) = directory.load(&spec.name) {
                assert_eq!(tensor.size(), spec.shape);
            }
        }
    });
});
