//! Human-readable numbers and times.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use indicatif::{HumanCount, HumanDuration};

/// Three digits and a unit: `20.9 B`.
pub fn scaled(number: f64) -> String {
    let units = [(1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k")];
    match units.into_iter().find(|(unit, _)| number >= *unit) {
        Some((unit, name)) => format!("{}{name}", digits(number / unit)),
        None => digits(number),
    }
}

fn digits(number: f64) -> String {
    match number {
        number if number >= 100.0 || number.fract() == 0.0 => format!("{number:.0}"),
        number if number >= 10.0 => format!("{number:.1}"),
        number => format!("{number:.2}"),
    }
}

/// All digits, grouped: `20,914,757,184`.
pub fn exact(number: u64) -> String {
    HumanCount(number).to_string()
}

/// In the largest unit that fits: `3 minutes`.
pub fn duration(time: TimeDelta) -> String {
    HumanDuration(time.to_std().unwrap_or(Duration::ZERO)).to_string()
}

/// To the second, in UTC.
pub fn moment(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn human_readable_numbers() {
        let shown = [0.0, 0.25, 7.0, 12.345, 999.4, 1000.0, 34_567.0, 20_914_757_184.0].map(scaled);
        assert_eq!(shown, ["0", "0.25", "7", "12.3", "999", "1 k", "34.6 k", "20.9 B"]);
        assert_eq!(exact(20_914_757_184), "20,914,757,184");
        assert_eq!(duration(TimeDelta::seconds(190)), "3 minutes");
        assert_eq!(moment(DateTime::UNIX_EPOCH), "1970-01-01 00:00:00 UTC");
    }
}
