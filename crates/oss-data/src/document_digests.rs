//! Digests of the documents in prepared data, which tell whether a text is in two places.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use crate::Prepared;
use crate::index::{TRAIN_DOCUMENTS, VALIDATION_DOCUMENTS};

/// The first 64 bits of the BLAKE3 hash of a document. Among a billion documents, two different ones have the same
/// digest with a probability of 3 %.
pub(super) fn digest(text: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(text.as_bytes()).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Writes the digests of consecutive documents, in little-endian order.
pub(super) struct DigestWriter(BufWriter<File>);

impl DigestWriter {
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(BufWriter::new(File::create(path)?)))
    }

    pub fn push(&mut self, digests: &[u64]) -> io::Result<()> {
        digests.iter().try_for_each(|digest| self.0.write_all(&digest.to_le_bytes()))
    }

    pub fn sync(&mut self) -> io::Result<()> {
        self.0.flush()?;
        self.0.get_ref().sync_all()
    }
}

/// Calls `each` for every digest in a file.
fn read(path: &Path, mut each: impl FnMut(u64)) -> io::Result<()> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    let mut digest = [0; 8];
    loop {
        match file.read_exact(&mut digest) {
            Ok(()) => each(u64::from_le_bytes(digest)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

impl Prepared {
    /// How many of its validation documents are also training documents of `training`; `None` if an earlier version of
    /// the program prepared one of these without digests.
    pub fn validation_documents_in(&self, training: &[Self]) -> Option<u64> {
        let mut validation = Vec::new();
        read(&self.dir().join(VALIDATION_DOCUMENTS), |digest| validation.push(digest)).ok()?;
        let wanted: HashSet<u64> = validation.iter().copied().collect();
        let mut found = HashSet::new();
        for source in training {
            let path = source.dir().join(TRAIN_DOCUMENTS);
            let keep = |digest| {
                if wanted.contains(&digest) {
                    found.insert(digest);
                }
            };
            read(&path, keep).ok()?;
        }
        Some(validation.iter().filter(|digest| found.contains(digest)).count() as u64)
    }
}
