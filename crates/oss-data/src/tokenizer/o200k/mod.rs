//! The `o200k` encodings without a regex engine: the same tokens as `tiktoken-rs` gives, an order of magnitude sooner.
//!
//! [`Splitter`] cuts text where the published pattern cuts it, [`Vocabulary`] knows the pieces that are tokens as they
//! are, and [`merge`] puts the others together from pairs. A cache of fixed size, one a thread, remembers both.

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

/// Splitter and vocabulary that `o200k_base` and `o200k_harmony` share; only their special tokens differ.
static ENCODER: LazyLock<Encoder> = LazyLock::new(|| {
    let table = tiktoken_rs::o200k_base_singleton();
    let ordinary = (0..NUM_ORDINARY).filter_map(|id| Some((table.decode_bytes(&[id]).ok()?, id)));
    Encoder { splitter: Splitter::new(), vocabulary: Vocabulary::new(ordinary) }
});

/// Tokens that stand for text; the ids above are special.
const NUM_ORDINARY: u32 = 199_998;

thread_local! {
    // All threads cache words of the one vocabulary there is.
    static CACHE: RefCell<Cache> = RefCell::new(Cache::new());
}

struct Encoder {
    splitter: Splitter,
    vocabulary: Vocabulary,
}

/// Tokens of `text`, whose special-token strings are ordinary text.
pub(super) fn encode(text: &str) -> Vec<u32> {
    // English has a token for every four to five bytes.
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
