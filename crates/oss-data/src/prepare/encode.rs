//! From documents to tokens.

use anyhow::{Result, ensure};
use oss_config::error::UserError;

use super::Batch;
use super::split::{Split, fraction};
use crate::document_digests::digest;
use crate::sources::BadRows;
use crate::{Document, Tokenizer};

/// The tokens of one side of the split, with end-of-text after each document.
#[derive(Default)]
pub(super) struct Tokens {
    pub(super) tokens: Vec<u32>,
    /// The digest of each document.
    pub(super) digests: Vec<u64>,
    pub(super) text_bytes: u64,
}

/// The tokens of a batch.
#[derive(Default)]
pub(super) struct Encoded {
    pub(super) train: Tokens,
    pub(super) validation: Tokens,
}

/// Encodes documents and decides which are held out.
pub(super) struct Encoder<'a> {
    pub(super) tokenizer: &'a Tokenizer,
    /// Fraction of the documents to hold out.
    pub(super) share: f64,
    pub(super) bad_rows: &'a BadRows,
}

impl Tokens {
    pub(super) fn documents(&self) -> u64 {
        self.digests.len() as u64
    }
}

impl Encoder<'_> {
    /// The tokens of consecutive documents; the hash of each decides its side.
    pub(super) fn batch(&self, batch: Batch) -> Result<Encoded> {
        let mut encoded = Encoded::default();
        for Document { text, place } in batch {
            let digest = digest(&text);
            let held_out = fraction(digest) < self.share;
            let side = if held_out { &mut encoded.validation } else { &mut encoded.train };
            self.document(&text, digest, &place, side)?;
        }
        Ok(encoded)
    }

    /// The last document, whose end is held out if no other document is.
    pub(super) fn last(&self, last: &Document, others: &Split) -> Result<Encoded> {
        let (train, validation) = others.last(&last.text, self.share);
        let mut encoded = Encoded::default();
        for (text, side) in [(train, &mut encoded.train), (validation, &mut encoded.validation)] {
            if !text.is_empty() {
                self.document(text, digest(text), &last.place, side)?;
            }
        }
        Ok(encoded)
    }

    fn document(&self, text: &str, digest: u64, place: &str, side: &mut Tokens) -> Result<()> {
        let tokens = match self.tokenizer.encode(text) {
            Ok(tokens) => tokens,
            Err(error) => {
                let error = UserError::from(error);
                let placed = UserError::failed(format!("{place}: {error}"));
                let hints = error.hints().iter();
                return self.bad_rows.skip(hints.fold(placed, |placed, hint| placed.hint(hint)));
            }
        };
        let largest = tokens.iter().max().copied().unwrap_or_default();
        ensure!(
            i64::from(largest) < self.tokenizer.vocab_size(),
            UserError::failed(format!(
                "{place}: the tokenizer returned ID {largest}, outside its vocabulary of {}",
                self.tokenizer.vocab_size()
            ))
            .hint("choose another dataset.tokenizer")
        );
        side.tokens.extend_from_slice(&tokens);
        side.tokens.push(self.tokenizer.end_of_text());
        side.digests.push(digest);
        side.text_bytes += text.len() as u64;
        Ok(())
    }
}
