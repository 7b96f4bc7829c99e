//! Human-readable sizes, times and numbers.

use chrono::{DateTime, Local, Utc};
use indicatif::BinaryBytes;

/// `1.21 GiB`.
pub fn bytes(number: u64) -> String {
    BinaryBytes(number).to_string()
}

/// The two largest units: `3d 04h`, `2h 07m`, `3m 05s`, `12s`, `0.3s`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86_400);
    match whole {
        0..10 => format!("{:.1}s", seconds.max(0.0)),
        10..60 => format!("{whole}s"),
        60..3600 => format!("{minutes}m {:02}s", whole % 60),
        3600..86_400 => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

/// Local time to the minute, which is enough to distinguish runs.
pub fn time(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local).format("%Y-%m-%d %H:%M").to_string()
}

/// Five significant digits: more than runs with different seeds have in common.
pub fn number(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return number.to_string().to_lowercase();
    }
    let digits = 4 - number.abs().log10().floor() as i32;
    match digits {
        9.. => format!("{number:.3e}"),
        0..9 => {
            let text = format!("{number:.*}", digits.unsigned_abs() as usize);
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text
            }
        }
        _ => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0.34, "0.3s"),
            (12.0, "12s"),
            (185.0, "3m 05s"),
            (7.0 * 60.0 + 7200.0, "2h 07m"),
            (86_400.0 * 3.0 + 3600.0 * 4.0, "3d 04h"),
            (-1.0, "0.0s"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn numbers_have_five_digits() {
        for (value, text) in [
            (2.345_678, "2.3457"),
            (0.001, "0.001"),
            (3e-5, "3.000e-5"),
            (6785.54, "6785.5"),
            (123_456_789.0, "123456789"),
            (100.0, "100"),
            (0.0, "0"),
            (f64::NAN, "nan"),
            (-1.5, "-1.5"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
