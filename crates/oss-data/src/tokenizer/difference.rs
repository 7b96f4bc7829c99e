//! Whether weights trained with one tokenizer can be used with another.

use std::collections::BTreeMap;
use std::fmt;

use super::{Kind, Tokenizer, TokenizerError, byte_level};

/// Tokenizers with the same vocabulary but other rules divide this text differently: letter case, contractions, runs of
/// digits, white space, punctuation, accents (composed and not), scripts and emoji.
const PROBE: &str = "The QUICK brown fox's 1234567 tokens, DON'T they'll I'm\n\n\tif (x != 0) { return a[i]; }  \r\n\
                     naïve A\u{30a}ngstro\u{308}m \u{ff21} 東京都 привет مرحبا 🙂👩\u{200d}👧   e-mail: a_b@c.d/e?f=1&g\u{a0} end.";

/// How two tokenizers differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Tokens that both should have.
    Vocabulary {
        /// Their number.
        count: usize,
        /// The first of them.
        id: u32,
        /// Its spelling in the first tokenizer; `None` if it does not have this token.
        ours: Option<String>,
        /// Its spelling in the second.
        theirs: String,
    },
    /// The same vocabulary, but other rules of dividing text into tokens.
    Rules,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vocabulary { count, id, ours, theirs } => {
                match ours {
                    Some(ours) => write!(f, "token {id} is {ours:?} instead of {theirs:?}")?,
                    None => write!(f, "token {id}, {theirs:?}, is missing")?,
                }
                match count - 1 {
                    0 => Ok(()),
                    more => write!(f, ", and {more} more differ"),
                }
            }
            Self::Rules => f.write_str("it has the same tokens, but divides text differently"),
        }
    }
}

impl Tokenizer {
    /// How the tokens of a text differ from those that `theirs` gives; `None` if they do not. Special tokens are not
    /// compared, and this tokenizer may have more tokens than `theirs`: neither changes what the others mean. Loads the
    /// large tables.
    ///
    /// # Errors
    /// As for [`Self::encode`].
    pub fn difference(&self, theirs: &Self) -> Result<Option<Difference>, TokenizerError> {
        if self.digest() == theirs.digest() {
            return Ok(None);
        }
        let (mine, others) = (self.spellings(), theirs.spellings());
        let mut different = others.iter().filter(|&(id, theirs)| mine.get(id) != Some(theirs));
        if let Some((&id, theirs)) = different.next() {
            let (ours, theirs) = (mine.get(&id).cloned(), theirs.clone());
            return Ok(Some(Difference::Vocabulary { count: 1 + different.count(), id, ours, theirs }));
        }
        Ok((self.encode(PROBE)? != theirs.encode(PROBE)?).then_some(Difference::Rules))
    }

    /// The spelling in a `tokenizer.json` of each token that is not special, by ID.
    fn spellings(&self) -> BTreeMap<u32, String> {
        match &self.kind {
            Kind::Tiktoken(encoding) => encoding.spellings(),
            Kind::Bytes => (0..=u8::MAX).map(|byte| (byte.into(), byte_level::text(&[byte]))).collect(),
            Kind::HuggingFace(tokenizer) => tokenizer.spellings(),
        }
    }
}

#[cfg(test)]
mod tests;
