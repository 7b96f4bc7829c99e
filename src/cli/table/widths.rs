//! The columns of a table that fit the terminal, and their widths.

use textwrap::core::display_width;

use super::{GAP, Layout, cell};

/// Elastic columns are not shortened to less than this.
const LEAST: usize = 10;

/// Text in the last column is not wrapped to less than this, unless nothing else is left to make room.
const LEAST_TEXT: usize = 16;

/// Each column gets this much, if it needs it, before any gets more.
const USUAL: usize = 28;

/// The columns to show, each with its width, in `terminal` columns, or all of them as wide as they are.
pub(super) fn widths(
    layout: &Layout<'_>,
    rows: &[Vec<String>],
    terminal: Option<usize>,
) -> Vec<(usize, usize)> {
    let columns = rows.iter().map(Vec::len).chain([layout.header.len()]).max().unwrap_or(0);
    let natural: Vec<usize> = (0..columns).map(|column| natural(layout, rows, column)).collect();
    let Some(terminal) = terminal else { return natural.into_iter().enumerate().collect() };
    let is_elastic = |column: usize| layout.elastic.contains(&column);
    let least = |(place, column): (usize, usize), shown: &[usize]| match column {
        _ if is_elastic(column) => natural[column].min(LEAST),
        _ if layout.text && place + 1 == shown.len() => {
            longest_word(layout, rows, column).max(natural[column].min(LEAST_TEXT))
        }
        0 if layout.overhang => usual(layout, rows),
        _ => natural[column],
    };
    let all_least = |shown: &[usize]| -> Vec<usize> {
        shown.iter().copied().enumerate().map(|column| least(column, shown)).collect()
    };
    let mut shown: Vec<usize> = (0..columns).collect();
    for column in layout.optional {
        if total(&all_least(&shown)) > terminal {
            shown.retain(|other| other != column);
        }
    }
    let mut widths = all_least(&shown);
    let places = |test: &dyn Fn(usize) -> bool| -> Vec<usize> {
        (0..shown.len()).filter(|&place| test(place)).collect()
    };
    let first = places(&|place| place == 0);
    let last = places(&|place| layout.text && place + 1 == shown.len() && !is_elastic(shown[place]));
    let elastic = places(&|place| is_elastic(shown[place]));
    for &place in &last {
        let excess = total(&widths).saturating_sub(terminal);
        let word = longest_word(layout, rows, shown[place]).min(LEAST_TEXT);
        widths[place] = widths[place].saturating_sub(excess).max(word);
    }
    let mut left = terminal.saturating_sub(total(&widths));
    for most in [USUAL, usize::MAX] {
        for places in [&last, &first, &elastic] {
            let most: Vec<usize> = shown.iter().map(|&column| natural[column].min(most)).collect();
            grow(&mut widths, places, &most, &mut left);
        }
    }
    shown.into_iter().zip(widths).collect()
}

/// Shares the space that is left evenly among the columns at `places`, up to what each needs at `most`.
fn grow(widths: &mut [usize], places: &[usize], most: &[usize], left: &mut usize) {
    let mut growing = places.to_vec();
    loop {
        growing.retain(|&place| widths[place] < most[place]);
        if growing.is_empty() || *left == 0 {
            return;
        }
        for &place in growing.iter().take(*left) {
            widths[place] += 1;
        }
        *left -= growing.len().min(*left);
    }
}

/// The width of a line.
pub(super) fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

fn header_width(layout: &Layout<'_>, column: usize) -> usize {
    layout.header.get(column).map_or(0, |name| display_width(name))
}

/// The width of the widest cell or header.
fn natural(layout: &Layout<'_>, rows: &[Vec<String>], column: usize) -> usize {
    let cells = rows.iter().flat_map(|row| cell(row, column).lines()).map(display_width);
    cells.max().unwrap_or(0).max(header_width(layout, column))
}

/// The width that a column needs if its text is wrapped between words.
fn longest_word(layout: &Layout<'_>, rows: &[Vec<String>], column: usize) -> usize {
    let words = rows.iter().flat_map(|row| cell(row, column).split_ascii_whitespace()).map(display_width);
    words.max().unwrap_or(0).max(header_width(layout, column))
}

/// The width into which three of four cells of the first column fit.
fn usual(layout: &Layout<'_>, rows: &[Vec<String>]) -> usize {
    let mut widths: Vec<usize> = rows.iter().map(|row| display_width(cell(row, 0))).collect();
    widths.sort_unstable();
    let usual = widths.len().checked_sub(1).map_or(0, |last| widths[last * 3 / 4]);
    usual.max(header_width(layout, 0))
}
