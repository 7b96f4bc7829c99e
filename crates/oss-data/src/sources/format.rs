//! File formats, determined by extension.

use std::path::Path;

use anyhow::{Result, bail};
use oss_config::error::UserError;
use serde::{Deserialize, Serialize};

/// How the bytes of a file become documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// Plain text; documents are separated by separator lines.
    #[serde(rename = "txt")]
    Text(Compression),
    /// One JSON object per line.
    #[serde(rename = "jsonl")]
    Jsonl(Compression),
    /// A JSON list of objects, or objects one after the other.
    #[serde(rename = "json")]
    Json(Compression),
    /// A header and rows of comma-separated values.
    #[serde(rename = "csv")]
    Csv(Compression),
    /// A header and rows of tab-separated values.
    #[serde(rename = "tsv")]
    Tsv(Compression),
    /// Columnar data.
    #[serde(rename = "parquet")]
    Parquet,
}

/// Compression of a text file as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Uncompressed.
    None,
    /// gzip, with one member or several.
    Gzip,
    /// Zstandard, with one frame or several.
    Zstd,
}

impl Compression {
    /// Name shown in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "Zstandard",
        }
    }
}

/// The supported extensions, for messages.
pub const SUPPORTED: &str = ".txt, .jsonl, .json, .csv, .tsv (each also with .gz or .zst) or .parquet";

impl Format {
    /// The format indicated by the file extension, in any case.
    ///
    /// # Errors
    /// If the extension is not supported; the message lists those that are.
    pub fn of_path(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let (stem, compression) = if let Some(stem) = name.strip_suffix(".gz") {
            (stem, Compression::Gzip)
        } else if let Some(stem) = name.strip_suffix(".zst") {
            (stem, Compression::Zstd)
        } else {
            (name.as_str(), Compression::None)
        };
        let of_text = [
            (".txt", Self::Text(compression)),
            (".jsonl", Self::Jsonl(compression)),
            (".json", Self::Json(compression)),
            (".csv", Self::Csv(compression)),
            (".tsv", Self::Tsv(compression)),
        ];
        if let Some((_, format)) = of_text.into_iter().find(|(extension, _)| stem.ends_with(extension)) {
            Ok(format)
        } else if name.ends_with(".parquet") {
            Ok(Self::Parquet)
        } else {
            bail!(
                UserError::failed(format!("{}: this format is not supported", path.display()))
                    .hint(format!("use files that end in {SUPPORTED}"))
            )
        }
    }
}

/// Formats other than text by their first bytes, each with a hint.
const OTHER_FORMATS: [(&[u8], &str, &str); 12] = [
    (b"\x1f\x8b", "gzip data", "rename it to end in .gz"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data", "rename it to end in .zst"),
    (b"PAR1", "a Parquet file", "rename it to end in .parquet"),
    (b"\xff\xfe", "UTF-16 text", "convert it with `iconv -f UTF-16 -t UTF-8`"),
    (b"\xfe\xff", "UTF-16 text", "convert it with `iconv -f UTF-16 -t UTF-8`"),
    (b"\xfd7zXZ\0", "xz data", "unpack it with `xz -d`"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (b"%PDF-", "a PDF", "extract its text"),
    (b"ARROW1\0\0", "an Arrow file", "convert it to Parquet"),
    (b"\x93NUMPY", "a NumPy array", "use the text that it was made from"),
    (b"SQLite format 3\0", "an SQLite database", "export its texts as JSON Lines"),
];

/// Where a tar archive has its magic number.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;

/// Number of control characters that say nothing about a short text.
const FEW_CONTROLS: usize = 8;

/// Detects a format other than plain text from the first kilobytes of a file, with a hint. Text may contain a few
/// control characters, NUL included, as crawled text does.
pub fn other_format(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let known = OTHER_FORMATS.iter().find(|(magic, ..)| head.starts_with(magic));
    if let Some((_, name, hint)) = known {
        return Some((name, hint));
    }
    if head.get(TAR_MAGIC) == Some(b"ustar") {
        return Some(("a tar archive", "unpack it"));
    }
    if head.starts_with(b"BZh") && head.get(4..10) == Some(b"1AY&SY") {
        return Some(("bzip2 data", "unpack it with `bzip2 -d`"));
    }
    let controls = head.iter().filter(|byte| matches!(byte, 0..=8 | 14..=26 | 28..=31)).count();
    (controls > FEW_CONTROLS && 4 * controls > head.len()).then_some(("binary data", "use text in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::error::ErrorReport;

    #[test]
    fn extensions_determine_the_format() {
        let of = |name: &str| Format::of_path(Path::new(name));
        assert_eq!(of("a/b.txt").unwrap(), Format::Text(Compression::None));
        assert_eq!(of("b.TXT.GZ").unwrap(), Format::Text(Compression::Gzip));
        assert_eq!(of("b.jsonl").unwrap(), Format::Jsonl(Compression::None));
        assert_eq!(of("b.jsonl.zst").unwrap(), Format::Jsonl(Compression::Zstd));
        assert_eq!(of("b.json.gz").unwrap(), Format::Json(Compression::Gzip));
        assert_eq!(of("b.csv").unwrap(), Format::Csv(Compression::None));
        assert_eq!(of("b.tsv.zst").unwrap(), Format::Tsv(Compression::Zstd));
        assert_eq!(of("b.parquet").unwrap(), Format::Parquet);
        for name in ["b.arrow", "b", "txt", "b.parquet.gz", "b.jsonlines", ".gz"] {
            let message = ErrorReport::of(of(name).unwrap_err()).to_string();
            assert!(message.contains(".jsonl") && message.contains(name), "{message}");
        }
    }

    #[test]
    fn a_few_control_characters_are_text() {
        assert_eq!(other_format(b"good\nb\0d\n"), None);
        assert_eq!(other_format("\u{1b}[1mbold\u{1b}[0m\t\r\n\u{c}".as_bytes()), None);
        assert_eq!(other_format(b""), None);
        let utf_16: Vec<u8> = "no byte order mark".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(other_format(&utf_16).unwrap().0, "binary data");
        let mut tar = vec![b' '; 512];
        tar[TAR_MAGIC].copy_from_slice(b"ustar");
        assert_eq!(other_format(&tar).unwrap().0, "a tar archive");
    }
}
