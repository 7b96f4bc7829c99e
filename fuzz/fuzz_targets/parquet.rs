//! Parquet: the footer, page headers and pages of a file with a `text` column.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oss_run_fuzz::{Scratch, only_escaping_panics_count, read_documents};

fuzz_target!(
    init: only_escaping_panics_count(),
    |data: &[u8]| {
        thread_local!(static SCRATCH: Scratch = Scratch::new());
        SCRATCH.with(|scratch| read_documents(&scratch.write("input.parquet", data)));
    }
);
