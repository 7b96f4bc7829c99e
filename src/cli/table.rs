//! Text tables that fit the terminal.

mod widths;

use console::{Alignment, Term, pad_str, truncate_str};
use textwrap::core::display_width;
use textwrap::{Options, WordSeparator, WordSplitter};

use widths::widths;

/// The gap between columns.
const GAP: usize = 2;

/// A table to lay out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout<'a> {
    /// Column headers; none for a table without a header line.
    pub header: &'a [&'a str],
    /// Right-aligned columns.
    pub right: &'a [usize],
    /// Columns to leave out of a narrow terminal, the least important first.
    pub optional: &'a [usize],
    /// Columns whose cells may end in an ellipsis: those with values, not with names.
    pub elastic: &'a [usize],
    /// Whether a long cell of the first column may have a line of its own, above the rest of its row.
    pub overhang: bool,
    /// Whether the last column is text, which is wrapped between words.
    pub text: bool,
}

/// The layout of keys with their values and origins.
pub const VALUES: Layout<'static> = Layout {
    header: &["value", "", "set by"],
    right: &[],
    optional: &[2],
    elastic: &[1],
    overhang: true,
    text: true,
};

/// A table without a header that fits the terminal, with text in its last column. The columns in `right` are
/// right-aligned.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    Layout { right, text: true, ..Layout::default() }.to_terminal(rows)
}

impl Layout<'_> {
    /// The text of `rows` for the terminal, or as wide as it is for a pipe. Says which columns were left out.
    pub fn to_terminal(self, rows: &[Vec<String>]) -> String {
        let terminal = Some(Term::stdout()).filter(Term::is_term).and_then(|term| term.size_checked());
        let (text, hidden) = self.fit(rows, terminal.map(|(_, width)| usize::from(width)));
        if !hidden.is_empty() {
            let names: Vec<&str> = hidden.iter().map(|&column| self.header[column]).collect();
            tracing::info!("left out of this narrow terminal: {}", names.join(", "));
        }
        text
    }

    /// The text of `rows` in `width` columns of a terminal, and the columns with content that were left out.
    ///
    /// Only text is wrapped, since that would break an id or a key apart: columns are left out instead, and elastic ones
    /// shortened.
    pub fn fit(&self, rows: &[Vec<String>], width: Option<usize>) -> (String, Vec<usize>) {
        let rows = &in_one_line(rows);
        let columns = widths(self, rows, width);
        let is_hidden = |column: &usize| columns.iter().all(|(shown, _)| shown != column);
        let has_content = |column: &usize| rows.iter().any(|row| !cell(row, *column).is_empty());
        let hidden = self.optional.iter().copied().filter(is_hidden).filter(has_content).collect();
        let mut lines = Vec::new();
        if !self.header.is_empty() {
            let name = |&(column, width): &(usize, usize)| {
                self.padded(column, &without_beginning(self.header[column], width), width)
            };
            lines.push(joined(&columns.iter().map(name).collect::<Vec<_>>()));
        }
        for row in rows {
            self.row(row, &columns, &mut lines);
        }
        (lines.iter().map(|line| line.trim_end().to_owned() + "\n").collect(), hidden)
    }

    /// Adds the lines of a row.
    fn row(&self, row: &[String], columns: &[(usize, usize)], lines: &mut Vec<String>) {
        let (text, others) = match columns.split_last() {
            Some((last, others)) if self.text => (Some(last), others),
            _ => (None, columns),
        };
        let mut cells: Vec<String> = Vec::new();
        for &(column, width) in others {
            let content = cell(row, column);
            if self.overhang && column == 0 && display_width(content) > width {
                lines.push(content.to_owned());
                cells.push(" ".repeat(width));
            } else if self.elastic.contains(&column) {
                cells.push(self.padded(column, &truncate_str(content, width, "…"), width));
            } else {
                cells.push(self.padded(column, content, width));
            }
        }
        let Some(&(column, width)) = text else {
            lines.push(joined(&cells));
            return;
        };
        let blank: Vec<String> = others.iter().map(|&(_, width)| " ".repeat(width)).collect();
        for line in wrapped(cell(row, column), width) {
            let excess = display_width(&line).saturating_sub(width);
            let is_blank = cells.iter().all(|cell| cell.trim().is_empty());
            if excess == 0 {
                cells.push(line);
                lines.push(joined(&cells));
            } else {
                // A word that is wider than its column, such as a path, has a line of its own.
                lines.extend((!is_blank).then(|| joined(&cells)));
                let indent = blank.iter().map(|cell| cell.len() + GAP).sum::<usize>();
                lines.push(" ".repeat(indent.saturating_sub(excess)) + &line);
            }
            cells.clone_from(&blank);
        }
    }

    fn padded(&self, column: usize, text: &str, width: usize) -> String {
        let side = if self.right.contains(&column) { Alignment::Right } else { Alignment::Left };
        pad_str(text, width, side, None).into_owned()
    }
}

fn joined(cells: &[String]) -> String {
    cells.join(&" ".repeat(GAP))
}

/// The rows with line breaks only in their last cells.
fn in_one_line(rows: &[Vec<String>]) -> Vec<Vec<String>> {
    let mut rows = rows.to_vec();
    for cell in rows.iter_mut().filter_map(|row| row.split_last_mut()).flat_map(|(_, others)| others) {
        *cell = cell.replace('\n', " ");
    }
    rows
}

fn cell(row: &[String], column: usize) -> &str {
    row.get(column).map_or("", String::as_str)
}

/// A name that fits into `width`: the end of a key says more than its section.
fn without_beginning(name: &str, width: usize) -> String {
    let excess = (display_width(name) + 1).saturating_sub(width);
    match display_width(name) <= width {
        true => name.to_owned(),
        false => std::iter::once('…').chain(name.chars().skip(excess)).collect(),
    }
}

/// The lines of `text`, wrapped between words; a word longer than `width` stays whole.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let options = Options::new(width)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation);
    textwrap::wrap(text, options).into_iter().map(|line| line.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows<const COLUMNS: usize>(cells: &[[&str; COLUMNS]]) -> Vec<Vec<String>> {
        cells.iter().map(|row| row.map(str::to_owned).to_vec()).collect()
    }

    #[test]
    fn columns_are_left_out_before_any_cell_is_broken() {
        let runs = rows(&[
            ["acc7238694", "quickstart", "600/600", "0.3929", "team=speech owner=ann"],
            ["4e4ac9a00d", "tiny", "30/30", "3.2903", ""],
        ]);
        let header = ["id", "name", "step", "val_loss", "labels"];
        let layout = Layout { header: &header, right: &[2, 3], optional: &[4, 2], ..Layout::default() };
        let (text, hidden) = layout.fit(&runs, Some(80));
        assert!(hidden.is_empty());
        insta::assert_snapshot!(text, @r"
        id          name           step  val_loss  labels
        acc7238694  quickstart  600/600    0.3929  team=speech owner=ann
        4e4ac9a00d  tiny          30/30    3.2903
        ");
        let (text, hidden) = layout.fit(&runs, Some(40));
        assert_eq!(hidden, [4, 2]);
        insta::assert_snapshot!(text, @r"
        id          name        val_loss
        acc7238694  quickstart    0.3929
        4e4ac9a00d  tiny          3.2903
        ");
    }

    #[test]
    fn the_last_column_wraps_between_words() {
        let rows = rows(&[
            ["savings", "train.activation_checkpointing=true or a smaller batch, such as half of this one"],
            ["path", "runs/tiny/0123456789/samples/final.txt"],
        ]);
        let layout = Layout { text: true, ..Layout::default() };
        insta::assert_snapshot!(layout.fit(&rows, Some(40)).0, @r"
        savings
             train.activation_checkpointing=true
                 or a smaller batch, such as
                 half of this one
        path
          runs/tiny/0123456789/samples/final.txt
        ");
    }

    #[test]
    fn values_are_shortened_and_keys_are_not() {
        let rows = rows(&[
            ["model.head_dim", "16", "preset tiny"],
            ["model.rope_scaling.original_max_position_embeddings", "4096", "preset tiny"],
            ["run.seed", "0", "default"],
            ["sample.prompts", "[\"Once upon a time\", \"One day\"]", "experiments/mine.toml:12:11"],
        ]);
        insta::assert_snapshot!(VALUES.fit(&rows, Some(80)).0, @r#"
        value                                                set by
        model.head_dim                16                     preset tiny
        model.rope_scaling.original_max_position_embeddings
                                      4096                   preset tiny
        run.seed                      0                      default
        sample.prompts                ["Once upon a time",…  experiments/mine.toml:12:11
        "#);
        let (text, hidden) = VALUES.fit(&rows, Some(52));
        assert_eq!(hidden, [2]);
        insta::assert_snapshot!(text, @r#"
        value
        model.head_dim                16
        model.rope_scaling.original_max_position_embeddings
                                      4096
        run.seed                      0
        sample.prompts                ["Once upon a time",
                                      "One day"]
        "#);
    }

    #[test]
    fn a_name_keeps_its_end() {
        let rows = rows(&[["1", "4", "0.001", "done"]]);
        let header = ["trial", "train.global_batch_size", "optimizer.lr", "state"];
        let layout = Layout { header: &header, right: &[0, 1, 2], elastic: &[1, 2], ..Layout::default() };
        insta::assert_snapshot!(layout.fit(&rows, Some(40)).0, @r"
        trial  …_batch_size  optimizer.lr  state
            1             4         0.001  done
        ");
    }

    #[test]
    fn a_pipe_has_no_width() {
        let text = Layout::default().fit(&rows(&[[&"x".repeat(300), &"y".repeat(300)]]), None).0;
        assert_eq!(text.lines().count(), 1);
    }
}
