//! `.txt`, `.jsonl`, `.json`, `.csv` and `.tsv`, plain, `.gz` and `.zst`: the first bytes of the input select the
//! compression.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oss_run_fuzz::{Scratch, read_documents};

fuzz_target!(|data: &[u8]| {
    thread_local!(static SCRATCH: Scratch = Scratch::new());
    let compression = match data {
        [0x1f, 0x8b, ..] => ".gz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ".zst",
        _ => "",
    };
    SCRATCH.with(|scratch| {
        for format in ["txt", "jsonl", "json", "csv", "tsv"] {
            read_documents(&scratch.write(&format!("input.{format}{compression}"), data));
        }
    });
});
