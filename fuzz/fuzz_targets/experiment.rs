//! An experiment in layers: the file, the file that it may extend or sweep over, and `--set` and `--unset` arguments,
//! one per line; `#----` lines separate the layers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oss_config::{Experiment, Overrides, load, load_trial};
use oss_run::sweep::trials;
use oss_run_fuzz::Scratch;

const PARTING: &str = "\n#----\n";

fuzz_target!(|data: &[u8]| {
    thread_local!(static SCRATCH: Scratch = Scratch::new());
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split(PARTING);
    let mut next = || parts.next().unwrap_or_default();
    let (file, base) = (next(), next());
    let mut arguments = || next().lines().map(str::to_owned).collect();
    let overrides = Overrides { set: arguments(), unset: arguments(), environment: false };
    let path = SCRATCH.with(|scratch| {
        scratch.write("base.toml", base.as_bytes());
        scratch.write("experiment.toml", file.as_bytes())
    });
    let resolved = match load(&path, &overrides) {
        Ok(resolved) => resolved,
        Err(errors) => {
            assert!(!errors.problems().is_empty());
            errors.render(true, 110);
            errors.to_string();
            return;
        }
    };
    let written = resolved.experiment.to_toml().expect("an experiment can be serialized");
    let read = Experiment::from_toml_str("written", &written).expect("a serialized experiment can be read");
    assert_eq!(read, resolved.experiment);
    let Some(sweep) = resolved.sweep else { return };
    for values in trials(&sweep).unwrap_or_default().iter().take(8) {
        if let Err(errors) = load_trial(&path, &overrides, values) {
            errors.render(true, 110);
        }
    }
});
