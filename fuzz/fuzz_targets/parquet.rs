//! Parquet: footer, page headers and pages of a file with a column `text`.
#![no_main]

use std::panic;

use libfuzzer_sys::fuzz_target;
use oss_run_fuzz::{Scratch, read_documents};

fuzz_target!(
    // The crate `parquet` panics on some damaged files, which the reader turns into an error: only a panic that
    // leaves the reader counts.
    init: panic::set_hook(Box::new(|_| ())),
    |data: &[u8]| {
        thread_local!(static SCRATCH: Scratch = Scratch::new());
        SCRATCH.with(|scratch| read_documents(&scratch.write("input.parquet", data)));
    }
);
