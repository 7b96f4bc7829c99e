//! Text tables that fit the terminal.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use textwrap::{Options, WordSeparator, WordSplitter};

/// Width of the gap between columns.
const GAP: usize = 2;

/// The last column is wrapped to no less than this.
const MIN_LAST: usize = 16;

/// A table to lay out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout<'a> {
    /// Column headers; none for a table without a header line.
    pub header: &'a [&'a str],
    /// Right-aligned columns.
    pub right: &'a [usize],
    /// Columns to leave out of a narrow terminal, the least important first.
    pub optional: &'a [usize],
}

/// A table without borders that fits the terminal. The columns in `right` are right-aligned.
pub fn table(header: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> String {
    Layout { header, right, optional: &[] }.to_terminal(rows)
}

impl Layout<'_> {
    /// The text of `rows` for the terminal, or as wide as it is for a pipe. Says which columns were left out.
    pub fn to_terminal(self, rows: Vec<Vec<String>>) -> String {
        let (text, hidden) = self.fit(rows, Table::new().width().map(usize::from));
        if !hidden.is_empty() {
            let names: Vec<&str> = hidden.iter().map(|&column| self.header[column]).collect();
            tracing::info!("left out of this narrow terminal: {}", names.join(", "));
        }
        text
    }

    /// The text of `rows` in `width` columns of a terminal, and the columns with content that were left out. In the last column, text
    /// is wrapped between words; no other cell is wrapped, since that would break an id or a key apart.
    pub fn fit(&self, mut rows: Vec<Vec<String>>, width: Option<usize>) -> (String, Vec<usize>) {
        let columns = rows.iter().map(Vec::len).chain([self.header.len()]).max().unwrap_or(0);
        let mut shown: Vec<usize> = (0..columns).collect();
        let mut hidden = Vec::new();
        if let Some(width) = width {
            let widths: Vec<usize> = (0..columns).map(|column| self.natural_width(&rows, column)).collect();
            let total = |shown: &[usize]| {
                shown.iter().map(|&column| widths[column]).sum::<usize>()
                    + GAP * shown.len().saturating_sub(1)
            };
            for &column in self.optional {
                if total(&shown) > width {
                    shown.retain(|&other| other != column);
                    let is_empty = |row: &Vec<String>| row.get(column).is_none_or(String::is_empty);
                    if !rows.iter().all(is_empty) {
                        hidden.push(column);
                    }
                }
            }
            if let Some((&last, others)) = shown.split_last()
                && total(&shown) > width
            {
                let left = width.saturating_sub(total(others) + GAP).max(MIN_LAST);
                for cell in rows.iter_mut().filter_map(|row| row.get_mut(last)) {
                    *cell = wrapped(cell, left);
                }
            }
        }
        (self.render(&rows, &shown), hidden)
    }

    fn natural_width(&self, rows: &[Vec<String>], column: usize) -> usize {
        let header = self.header.get(column).map_or(0, |name| textwrap::core::display_width(name));
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| textwrap::core::display_width(cell)).max().unwrap_or(0).max(header)
    }

    fn render(&self, rows: &[Vec<String>], shown: &[usize]) -> String {
        let mut table = Table::new();
        table.load_preset(NOTHING);
        if !self.header.is_empty() {
            table.set_header(shown.iter().map(|&column| self.header[column]));
        }
        let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
        table.add_rows(
            rows.iter().map(|row| shown.iter().map(|&column| cell(row, column)).collect::<Vec<_>>()),
        );
        for (place, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, GAP as u16));
            if self.right.contains(&shown[place]) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        // Remove trailing padding.
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n") + "\n"
    }
}

/// `text` wrapped between words; a word longer than `width` stays whole.
fn wrapped(text: &str, width: usize) -> String {
    let options = Options::new(width)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation);
    textwrap::fill(text, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs() -> Vec<Vec<String>> {
        let row = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
        vec![
            row(["acc7238694", "quickstart", "600/600", "0.3929", "team=speech owner=ann"]),
            row(["4e4ac9a00d", "tiny", "30/30", "3.2903", ""]),
        ]
    }

    #[test]
    fn columns_are_left_out_before_any_cell_is_broken() {
        let header = ["id", "name", "step", "val_loss", "labels"];
        let layout = Layout { header: &header, right: &[2, 3], optional: &[4, 2] };
        let (text, hidden) = layout.fit(runs(), Some(80));
        assert!(hidden.is_empty());
        insta::assert_snapshot!(text, @r"
        id          name           step  val_loss  labels
        acc7238694  quickstart  600/600    0.3929  team=speech owner=ann
        4e4ac9a00d  tiny          30/30    3.2903
        ");
        let (text, hidden) = layout.fit(runs(), Some(40));
        assert_eq!(hidden, [4, 2]);
        insta::assert_snapshot!(text, @r"
        id          name        val_loss
        acc7238694  quickstart    0.3929
        4e4ac9a00d  tiny          3.2903
        ");
    }

    #[test]
    fn the_last_column_wraps_between_words() {
        let rows =
            vec![vec!["savings".into(), "train.activation_checkpointing=true or a smaller batch".into()]];
        insta::assert_snapshot!(Layout::default().fit(rows, Some(30)).0, @r"
        savings  train.activation_checkpointing=true
                 or a smaller batch
        ");
    }

    #[test]
    fn a_pipe_has_no_width() {
        let text = Layout::default().fit(vec![vec!["x".repeat(300), "y".repeat(300)]], None).0;
        assert_eq!(text.lines().count(), 1);
    }
}
