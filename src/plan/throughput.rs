//! Throughput of a run, and the estimated remaining time.

use serde::Serialize;

use oss_runs::monitor::MetricsLog;
use oss_runs::run_dir::RunDir;

/// Number of logged steps used for the estimate.
const RECENT_LINES: usize = 20;

/// Throughput of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Throughput {
    /// Tokens per second, the median over the newest logged steps.
    pub tokens_per_second: f64,
    /// Estimated seconds for the remaining steps.
    pub secs_left: f64,
}

impl Throughput {
    /// The throughput of `run` with `tokens_left` remaining; `None` before its first logged step.
    pub fn of(run: &RunDir, tokens_left: u64) -> Option<Self> {
        let lines = MetricsLog::read(&run.metrics()).ok()?;
        let speed = |line: &oss_runs::monitor::MetricsLine| line.fields.get("tokens_per_second")?.as_f64();
        let mut recent: Vec<f64> =
            lines.iter().rev().filter_map(speed).filter(|speed| *speed > 0.0).take(RECENT_LINES).collect();
        recent.sort_by(f64::total_cmp);
        let tokens_per_second = *recent.get(recent.len() / 2)?;
        Some(Self { tokens_per_second, secs_left: tokens_left as f64 / tokens_per_second })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_the_median_of_recent_steps() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path());
        assert_eq!(Throughput::of(&run, 100), None);
        let lines = ["{\"step\":1,\"tokens_per_second\":1}", "{\"step\":2,\"tokens_per_second\":50}"];
        let lines: String =
            lines.into_iter().chain(["{\"step\":2,\"val_loss\":3}"]).map(|l| format!("{l}\n")).collect();
        std::fs::write(run.metrics(), lines).unwrap();
        let throughput = Throughput::of(&run, 100).unwrap();
        assert_eq!((throughput.tokens_per_second, throughput.secs_left), (50.0, 2.0));
    }
}
