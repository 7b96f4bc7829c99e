//! The `o200k` encodings without a regex engine: the same tokens as `tiktoken-rs`, an order of magnitude faster.
//!
//! [`Splitter`] splits text where the published pattern does, [`Vocabulary`] knows the pieces that are tokens
//! themselves, and [`merge`] builds the others from pairs. A cache of fixed size per thread stores both.

mod cache;
mod merge;
mod split;
mod vocabulary;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::LazyLock;

use self::cache::Cache;
use self::merge::merge;
use self::split::Splitter;
use self::vocabulary::{Key, Vocabulary};

/// The splitter and vocabulary shared by `o200k_base` and `o200k_harmony`, which differ only in their special tokens.
static ENCODER: LazyLock<Encoder> = LazyLock::new(|| {
    let table = tiktoken_rs::o200k_base_singleton();
    let ordinary = (0..NUM_ORDINARY).filter_map(|id| Some((table.decode_bytes(&[id]).ok()?, id)));
    Encoder { splitter: Splitter::new(), vocabulary: Vocabulary::new(ordinary) }
});

/// Number of tokens that represent text; higher IDs are special.
const NUM_ORDINARY: u32 = 199_998;

thread_local! {
    // All threads cache words of the same vocabulary.
    static CACHE: RefCell<Cache> = RefCell::new(Cache::new());
}

struct Encoder {
    splitter: Splitter,
    vocabulary: Vocabulary,
}

/// The tokens of `text`; strings of special tokens are ordinary text.
pub(super) fn encode(text: &str) -> Vec<u32> {
    // English has about one token per four to five bytes.
    let mut tokens = Vec::with_capacity(text.len() / 4 + 4);
    CACHE.with_borrow_mut(|cache| ENCODER.encode(text, cache, &mut tokens));
    tokens
}

impl Encoder {
    fn encode(&self, text: &str, cache: &mut Cache, tokens: &mut Vec<u32>) {
        let mut start = 0;
        while start < text.len() {
            let end = self.splitter.piece_end(text, start);
            match Key::of(text.as_bytes(), start, end) {
                Some(key) => {
                    cache.extend(key, tokens, |tokens| self.make(text.as_bytes(), start..end, tokens))
                }
                None => self.make(text.as_bytes(), start..end, tokens),
            }
            start = end;
        }
    }

    /// Appends the tokens of a piece.
    fn make(&self, text: &[u8], piece: Range<usize>, tokens: &mut Vec<u32>) {
        match self.vocabulary.token(text, piece.start, piece.end) {
            Some(token) => tokens.push(token),
            None => merge(&self.vocabulary, text, piece, tokens),
        }
    }
}

#[cfg(test)]
mod tests;
