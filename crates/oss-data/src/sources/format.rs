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

const SUPPORTED: &str = ".txt, .jsonl (each also with .gz or .zst) and .parquet";

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
        if stem.ends_with(".txt") {
            Ok(Self::Text(compression))
        } else if stem.ends_with(".jsonl") {
            Ok(Self::Jsonl(compression))
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

/// Detects a format other than plain text from the first bytes of a file, with a hint.
pub fn known_binary(head: &[u8]) -> Option<(&'static str, &'static str)> {
    match head {
        [0x1f, 0x8b, ..] => Some(("gzip data", "rename it to end in .gz")),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(("Zstandard data", "rename it to end in .zst")),
        [b'P', b'A', b'R', b'1', ..] => Some(("a Parquet file", "rename it to end in .parquet")),
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
    fn extensions_determine_the_format() {
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
