//! Parquet: one string column, read page by page.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use parquet::basic::{LogicalType, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::bad_rows::ReadError;
use super::jsonl::within_limit;
use crate::Document;
use crate::caught::caught;
use oss_config::error::UserError;

/// Number of rows decoded at a time; small, because a row is a whole document.
const BATCH_ROWS: usize = 64;

/// The documents in one column of a Parquet file.
pub struct ParquetDocuments {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    column: usize,
    /// The definition level of a text; at a lower one, the column or a struct around it is null.
    text_level: i16,
    max_document_bytes: usize,
    bytes_read: Arc<AtomicU64>,
    next_group: usize,
    group: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Rows that are decoded but not yet returned; `None` is a null.
    rows: VecDeque<Option<ByteArray>>,
    /// Rows of the current group that are not yet decoded.
    left_in_group: u64,
    row: u64,
}

impl ParquetDocuments {
    /// Opens `path` and finds the column `column` in its schema. The compressed size of the column in each row group is
    /// added to `bytes_read` when the group is started.
    ///
    /// # Errors
    /// If the file is not valid Parquet, or there is no such column (the message lists the existing ones), or it does
    /// not contain strings.
    pub fn open(
        path: &Path,
        column: &str,
        max_document_bytes: usize,
        bytes_read: Arc<AtomicU64>,
    ) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let reader = sound(|| SerializedFileReader::new(file)).map_err(|error| {
            anyhow!(
                UserError::failed(format!("{}: truncated, or not a Parquet file ({error})", path.display()))
                    .hint("download it again")
            )
        })?;
        let (column, text_level) = find_column(reader.metadata(), column).map_err(|(problem, hint)| {
            UserError::failed(format!("{}: {problem}", path.display())).hint(hint)
        })?;
        Ok(Self {
            path: path.into(),
            reader,
            column,
            text_level,
            max_document_bytes,
            bytes_read,
            next_group: 0,
            group: None,
            rows: VecDeque::new(),
            left_in_group: 0,
            row: 0,
        })
    }

    /// The text of the next row; `None` after the last row.
    ///
    /// # Errors
    /// A damaged page; a null, or text that is not UTF-8 or exceeds the limit, is a bad row. Each has its 1-based row.
    pub fn next(&mut self) -> Result<Option<Document>, ReadError> {
        while self.rows.is_empty() {
            if self.left_in_group > 0 {
                self.decode()?;
            } else if !self.start_group()? {
                return Ok(None);
            }
        }
        let Some(value) = self.rows.pop_front() else { return Ok(None) };
        self.row += 1;
        let place = self.place();
        let bad =
            |problem: &str, hint| ReadError::Row(UserError::failed(format!("{place}: {problem}")).hint(hint));
        let Some(value) = value else {
            let hint = "remove such rows, or set dataset.text_field to another column";
            return Err(bad("the text is null", hint));
        };
        match str::from_utf8(value.data()) {
            Ok(text) => within_limit(text.to_owned(), place, self.max_document_bytes).map(Some),
            Err(error) => {
                let problem = format!("the text is not UTF-8 (its byte {})", error.valid_up_to());
                Err(bad(&problem, "fix the row, or set dataset.text_field to a text column"))
            }
        }
    }

    fn place(&self) -> String {
        format!("{} row {}", self.path.display(), self.row)
    }

    fn start_group(&mut self) -> Result<bool> {
        if self.next_group == self.reader.num_row_groups() {
            return Ok(false);
        }
        let damaged = |error| self.damaged(error);
        let group = sound(|| self.reader.get_row_group(self.next_group)).map_err(damaged)?;
        let metadata = group.metadata();
        let rows = u64::try_from(metadata.num_rows()).unwrap_or(0);
        let bytes = u64::try_from(metadata.compressed_size()).unwrap_or(0);
        let ColumnReader::ByteArrayColumnReader(column) =
            sound(|| group.get_column_reader(self.column)).map_err(damaged)?
        else {
            bail!(
                UserError::failed(format!(
                    "{}: the column's type changes between row groups",
                    self.path.display()
                ))
                .hint("write the file again")
            );
        };
        drop(group);
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        self.group = Some(column);
        self.left_in_group = rows;
        self.next_group += 1;
        Ok(true)
    }

    fn decode(&mut self) -> Result<()> {
        let Some(column) = self.group.as_mut() else { return Ok(()) };
        let mut values = Vec::with_capacity(BATCH_ROWS);
        let mut levels = Vec::with_capacity(BATCH_ROWS);
        let wanted = BATCH_ROWS.min(usize::try_from(self.left_in_group).unwrap_or(BATCH_ROWS));
        let is_nullable = self.text_level > 0;
        let read =
            sound(|| column.read_records(wanted, is_nullable.then_some(&mut levels), None, &mut values));
        let (rows, _, _) = read.map_err(|error| self.damaged(error))?;
        if rows == 0 {
            let missing = self.left_in_group;
            bail!(
                UserError::failed(format!("{}: {missing} rows are missing after this one", self.place()))
                    .hint("download the file again")
            );
        }
        self.left_in_group -= rows as u64;
        let mut values = values.into_iter();
        if is_nullable {
            let text_level = self.text_level;
            self.rows
                .extend(levels.iter().map(|level| if *level < text_level { None } else { values.next() }));
        } else {
            self.rows.extend(values.map(Some));
        }
        Ok(())
    }

    fn damaged(&self, error: ParquetError) -> anyhow::Error {
        anyhow!(
            UserError::failed(format!("{}: damaged after this row ({error})", self.place()))
                .hint("download the file again")
        )
    }
}

/// Calls the crate, which panics on some damaged files.
fn sound<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    caught(read).unwrap_or_else(|panic| Err(ParquetError::General(panic)))
}

/// Index of the column among the leaves, and the definition level of its texts. A column inside structs is named with
/// dots, unless a column with the dots in its own name exists.
fn find_column(metadata: &ParquetMetaData, wanted: &str) -> Result<(usize, i16), (String, &'static str)> {
    let columns = metadata.file_metadata().schema_descr().columns();
    let named = |index: &usize| columns[*index].path().string() == wanted;
    let is_flat = |index: &usize| columns[*index].path().parts().len() == 1;
    let found = (0..columns.len()).filter(named);
    let Some(index) = found.clone().find(is_flat).or_else(|| found.clone().next()) else {
        let names: Vec<_> = columns.iter().map(|c| c.path().string()).collect();
        return Err((
            format!("no column `{wanted}` (found: {})", names.join(", ")),
            "set dataset.text_field to the one with the text",
        ));
    };
    let column = &columns[index];
    let textual = match column.logical_type_ref() {
        None | Some(LogicalType::String | LogicalType::Json | LogicalType::Enum) => true,
        Some(_) => false,
    };
    if column.physical_type() != Type::BYTE_ARRAY || column.max_rep_level() > 0 || !textual {
        return Err((
            format!(
                "the column `{wanted}` does not contain one string per row (its type is {}{})",
                if column.max_rep_level() > 0 { "a list of " } else { "" },
                column.physical_type()
            ),
            "set dataset.text_field to one that does",
        ));
    }
    Ok((index, column.max_def_level()))
}
