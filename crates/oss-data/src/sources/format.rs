//! File formats, told by their extension.

use std::path::Path;

use anyhow::{Result, bail};
use oss_config::error::UserError;
use serde::{Deserialize, Serialize};

/// How a file's bytes become documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// Plain text, documents parted by separator lines.
    #[serde(rename = "txt")]
    Text(Compression),
    /// One JSON object a line.
    #[serde(rename = "jsonl")]
    Jsonl(Compression),
    /// Columns.
    #[serde(rename = "parquet")]
    Parquet,
}

/// Compression of a text file as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As it is.
    None,
    /// gzip, of one member or several.
    Gzip,
    /// Zstandard, of one frame or several.
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

const SUPPORTED: &str = ".txt, .jsonl (each also with .gz or .zst) and .parquet";

impl Format {
    /// The format that the name's extension tells, in either case.
    ///
    /// # Errors
    /// An extension that is none of the supported ones, which the message lists.
    pub fn of_path(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let (stem, compression) = if let Some(stem) = name.strip_suffix(".gz") {
            (stem, Compression::Gzip)
        } else if let Some(stem) = name.strip_suffix(".zst") {
            (stem, Compression::Zstd)
        } else {
            (name.as_str(), Compression::None)
        };
        if stem.ends_with(".txt") {
            Ok(Self::Text(compression))
        } else if stem.ends_with(".jsonl") {
            Ok(Self::Jsonl(compression))
        } else if name.ends_with(".parquet") {
            Ok(Self::Parquet)
        } else {
            bail!(
                UserError::failed(format!("{}: the format is not supported", path.display()))
                    .hint(format!("give files that end in {SUPPORTED}"))
            )
        }
    }
}

/// What a file's first bytes say it is, where that is none of the plain text formats, and what to do about it.
pub fn known_binary(head: &[u8]) -> Option<(&'static str, &'static str)> {
    match head {
        [0x1f, 0x8b, ..] => Some(("gzip data", "let its name end in .gz")),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(("Zstandard data", "let its name end in .zst")),
        [b'P', b'A', b'R', b'1', ..] => Some(("a Parquet file", "let its name end in .parquet")),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            Some(("UTF-16 text", "convert it with `iconv -f UTF-16 -t UTF-8`"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::error::ErrorReport;

    #[test]
    fn extensions_tell_the_format() {
        let of = |name: &str| Format::of_path(Path::new(name));
        assert_eq!(of("a/b.txt").unwrap(), Format::Text(Compression::None));
        assert_eq!(of("b.TXT.GZ").unwrap(), Format::Text(Compression::Gzip));
        assert_eq!(of("b.jsonl").unwrap(), Format::Jsonl(Compression::None));
        assert_eq!(of("b.jsonl.zst").unwrap(), Format::Jsonl(Compression::Zstd));
        assert_eq!(of("b.parquet").unwrap(), Format::Parquet);
        for name in ["b.csv", "b", "txt", "b.parquet.gz", "b.json", ".gz"] {
            let message = ErrorReport::of(of(name).unwrap_err()).to_string();
            assert!(message.contains(".jsonl") && message.contains(name), "{message}");
        }
    }
}
