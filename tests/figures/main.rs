//! The figures of `docs/explained/`, drawn from what the program does. `make figures` writes them; without
//! `OSS_RUN_BLESS` each test compares the committed figure with what the code draws now.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod attention;
mod chain;
mod repeatable;
mod svg;

use std::path::Path;
use std::{env, fs};

/// Tolerance for coordinates, in pixels: rounding differs between processors, and losses become coordinates.
const TOLERANCE: f64 = 1.0;

/// Prefix of lines whose coordinates are not compared.
const NOISE: &str = r#"<path class="noise "#;

/// Writes the figure `name`, or compares it with the committed one.
#[track_caller]
fn check(name: &str, drawn: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/explained").join(name);
    if env::var_os("OSS_RUN_BLESS").is_some() {
        fs::write(&path, drawn).unwrap();
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed.lines().count(), drawn.lines().count(), "{name} is out of date; run `make figures`");
    for (number, (was, is)) in committed.lines().zip(drawn.lines()).enumerate() {
        assert!(is_same(was, is), "{name}:{} is out of date; run `make figures`\n{was}\n{is}", number + 1);
    }
}

/// Whether two lines are equal, up to coordinates that differ by less than [`TOLERANCE`].
fn is_same(was: &str, is: &str) -> bool {
    if was == is {
        return true;
    }
    // Rounding noise, which is different on every machine.
    if [was, is].iter().all(|line| line.starts_with(NOISE)) {
        return true;
    }
    let is_number = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
    let words = |line: &str| line.split(is_number).filter(|word| !word.is_empty()).collect::<String>();
    let numbers = |line: &str| -> Vec<f64> {
        line.split(|c| !is_number(c)).filter_map(|number| number.parse().ok()).collect()
    };
    let (before, now) = (numbers(was), numbers(is));
    !was.contains("<text")
        && words(was) == words(is)
        && before.len() == now.len()
        && before.iter().zip(&now).all(|(a, b)| (a - b).abs() <= TOLERANCE)
}

#[test]
fn coordinates_may_differ_by_a_pixel_but_text_may_not() {
    assert!(is_same(r#"<path class="l1" d="M1 2L3 4.5"/>"#, r#"<path class="l1" d="M1.2 2L3 4"/>"#));
    assert!(!is_same(r#"<path class="l1" d="M1 2L3 4.5"/>"#, r#"<path class="l1" d="M3.2 2L3 4"/>"#));
    assert!(!is_same(r#"<path class="lx" d="M1 2"/>"#, r#"<path class="ly" d="M1 2"/>"#));
    assert!(!is_same(r#"<text x="1" y="2">3</text>"#, r#"<text x="1" y="2">4</text>"#));
}
