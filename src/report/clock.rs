//! The time that a run has taken at each step.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::thin::Point;
use oss_runs::monitor::{MetricsLine, TIME};
use oss_runs::run_dir::Segment;

/// Seconds since the first logged step, by step. The pauses between the attempts do not count. `None` if a line has no
/// time: version 0.1.0 did not log it.
pub fn clock(lines: &[MetricsLine], attempts: &[Segment]) -> Option<Vec<Point>> {
    let mut seconds = BTreeMap::new();
    let (mut taken, mut before) = (TimeDelta::zero(), None);
    for line in lines {
        let now = line.fields.get(TIME)?.as_str()?.parse::<DateTime<Utc>>().ok()?;
        if let Some(before) = before {
            // A clock may have been set back.
            taken += (now - before - paused(attempts, before, now)).max(TimeDelta::zero());
        }
        before = Some(now);
        seconds.insert(line.step, taken.as_seconds_f64());
    }
    (!seconds.is_empty()).then(|| seconds.into_iter().collect())
}

/// How long no attempt was running between two moments. One that was killed is taken to have ended at the first.
fn paused(attempts: &[Segment], from: DateTime<Utc>, to: DateTime<Utc>) -> TimeDelta {
    let starts = attempts.windows(2).filter(|pair| pair[1].started > from && pair[1].started <= to);
    starts.map(|pair| pair[1].started - pair[0].finished.unwrap_or(from).max(from)).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(minute: u32) -> DateTime<Utc> {
        format!("2026-01-01T00:{minute:02}:00Z").parse().unwrap()
    }

    fn line(step: u64, minute: u32) -> MetricsLine {
        let fields = json!({ "loss": 1.0, TIME: at(minute).to_rfc3339() });
        MetricsLine { step, fields: fields.as_object().cloned().unwrap_or_default() }
    }

    fn attempt(started: u32, finished: Option<u32>) -> Segment {
        Segment { started: at(started), finished: finished.map(at), ..Segment::default() }
    }

    #[test]
    fn pauses_between_attempts_do_not_count() {
        let lines = [line(1, 1), line(2, 3), line(3, 11), line(3, 12), line(4, 31)];
        // The first was stopped one minute after its last line, the second killed.
        let attempts = [attempt(0, Some(4)), attempt(10, None), attempt(30, None)];
        let expected = [(1, 0.0), (2, 120.0), (3, 300.0), (4, 360.0)];
        assert_eq!(clock(&lines, &attempts).unwrap(), expected);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_lose_time() {
        let lines = [line(1, 5), line(2, 3), line(3, 4)];
        assert_eq!(clock(&lines, &[attempt(0, None)]).unwrap(), [(1, 0.0), (2, 0.0), (3, 60.0)]);
    }

    #[test]
    fn lines_without_times_have_no_clock() {
        let mut lines = [line(1, 1), line(2, 2)];
        lines[0].fields.clear();
        assert_eq!(clock(&lines, &[]), None);
        assert_eq!(clock(&[], &[]), None);
    }
}
