//! Which documents are held out for validation.

use super::encode::Encoded;
use crate::document_digests::digest;

/// A number in [0, 1) for the digest of a document: the document is held out if it is less than the fraction.
pub(super) fn fraction(digest: u64) -> f64 {
    let bits = digest >> (u64::BITS - f64::MANTISSA_DIGITS);
    bits as f64 / (1_u64 << f64::MANTISSA_DIGITS) as f64
}

/// The documents on each side so far.
#[derive(Default)]
pub(super) struct Split {
    train_documents: u64,
    validation_documents: u64,
    text_bytes: u64,
}

impl Split {
    pub(super) fn add(&mut self, encoded: &Encoded) {
        self.train_documents += encoded.train.documents();
        self.validation_documents += encoded.validation.documents();
        self.text_bytes += encoded.train.text_bytes + encoded.validation.text_bytes;
    }

    /// The parts of the last document, `text`, for training and validation; all documents before it are in `self`.
    ///
    /// With few documents, hashes may leave one side empty. The end of the text is then held out: `share` of all text,
    /// but at most the last document, or part of it if it is the only one.
    pub(super) fn last<'t>(&self, text: &'t str, share: f64) -> (&'t str, &'t str) {
        let is_held_out = fraction(digest(text)) < share;
        let is_split = 0.0 < share && share < 1.0;
        let all_train = self.validation_documents == 0 && !is_held_out;
        let all_validation = self.train_documents == 0 && is_held_out;
        let is_only = self.train_documents + self.validation_documents == 0;
        if is_split && (all_train || is_only) {
            let wanted = (share * (self.text_bytes + text.len() as u64) as f64).ceil() as usize;
            let cut = text.floor_char_boundary(text.len().saturating_sub(wanted));
            if cut > 0 || !is_only {
                tracing::info!(
                    "no document is held out by its hash, so the last {} bytes of the text are",
                    text.len() - cut
                );
            }
            return if cut == 0 && is_only { (text, "") } else { text.split_at(cut) };
        }
        if is_split && all_validation || !is_held_out { (text, "") } else { ("", text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(train_documents: u64, validation_documents: u64, text_bytes: u64) -> Split {
        Split { train_documents, validation_documents, text_bytes }
    }

    #[test]
    fn the_end_of_a_single_document_is_held_out() {
        let text = "word ".repeat(200);
        let (train, validation) = before(0, 0, 0).last(&text, 0.01);
        assert_eq!((train.len(), validation), (990, "word word "));
        assert_eq!(before(0, 0, 0).last(&text, 0.0), (&*text, ""));
        assert_eq!(before(0, 0, 0).last(&text, 1.0), ("", &*text));
        // Characters stay whole, and something is left to train on.
        assert_eq!(before(0, 0, 0).last("aé", 0.1), ("a", "é"));
        assert_eq!(before(0, 0, 0).last("é", 0.5), ("é", ""));
    }

    #[test]
    fn the_last_of_few_documents_is_held_out_if_none_is() {
        assert!(fraction(digest("the last one")) > 0.05, "chosen to be on the side of training");
        assert_eq!(before(3, 0, 28).last("the last one", 0.05), ("the last o", "ne"));
        assert_eq!(before(3, 0, 1000).last("the last one", 0.05), ("", "the last one"));
        assert_eq!(before(3, 1, 28).last("the last one", 0.05), ("the last one", ""));
        // The other way around: the last one is left to train on.
        let held = (0..).map(|number| number.to_string()).find(|text| fraction(digest(text)) < 0.5).unwrap();
        assert_eq!(before(0, 1, 28).last(&held, 0.5), (&*held, ""));
        assert_eq!(before(1, 0, 28).last(&held, 0.5), ("", &*held));
    }
}
