//! `metrics.jsonl`: read in full, read from the end, and opened to resume.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oss_runs::monitor::{MetricsLog, MetricsTail};
use oss_run_fuzz::Scratch;

fuzz_target!(|data: &[u8]| {
    thread_local!(static SCRATCH: Scratch = Scratch::new());
    let path = SCRATCH.with(|scratch| scratch.write("metrics.jsonl", data));
    let whole = MetricsLog::read(&path);
    let tail = MetricsTail::read(&path, &["loss", "val_loss"]).expect("the file can be read");
    if let Ok(lines) = &whole {
        assert_eq!(tail.step, lines.last().map(|line| line.step));
    }
    drop(MetricsLog::open(&path, Some(10)).expect("damaged lines are dropped"));
    let kept = MetricsLog::read(&path).expect("the remaining lines are complete");
    assert!(kept.iter().all(|line| line.step <= 10));
    if let Ok(lines) = whole {
        assert!(kept.iter().eq(lines.iter().filter(|line| line.step <= 10)));
    }
});
