//! `model.safetensors` beside the `config.json` of a small model: opens it and reads every parameter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oss_train::hf_format::HfDirectory;
use oss_train::model::{WeightSource, parameters};
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
            if let Ok(tensor) = directory.load(spec.parameter) {
                assert_eq!(tensor.size(), spec.shape);
            }
        }
    });
});
