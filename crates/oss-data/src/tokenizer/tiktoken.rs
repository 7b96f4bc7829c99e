//! OpenAI's published encodings, from the tables in `tiktoken-rs`.

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;
use serde_json::{Map, Value, json};
use tiktoken_rs::CoreBPE;

use super::{TokenizerError, byte_level, o200k, segments::segments};

/// The split pattern of `r50k_base` and `p50k_base`, in the syntax of Hugging Face's regex engine.
pub(super) const R50K: &str = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+\z|\s+(?!\S)|\s";

/// The split pattern of `cl100k_base`, likewise: there, `{1,3}+` would repeat the group, and `$` would match inside the
/// text.
pub(super) const CL100K: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+\z|\s*[\r\n]",
    r"|\s+(?!\S)|\s"
);

/// The split pattern of the `o200k` encodings, also used for trained tokenizers.
pub(super) const O200K: &str = tiktoken_rs::O200K_BASE_PAT_STR;

/// A published encoding.
pub(super) struct Encoding {
    pub(super) name: &'static str,
    table: fn() -> &'static CoreBPE,
    /// Pattern that splits the text before pairs are merged, for Hugging Face.
    pattern: &'static str,
    /// One more than the largest ID.
    pub(super) vocab_size: u32,
    /// The token that ends a document.
    pub(super) end_of_text: u32,
    /// BLAKE3 hash of [`Encoding::definition`], pinned so that planning need not load the table.
    pub(super) digest: &'static str,
}

/// A special token under another name than in the table of `tiktoken-rs`. Its name does not change the tokens of a
/// text, so it is no part of the digest.
struct Renamed {
    id: u32,
    in_table: &'static str,
    name: &'static str,
}

/// `o200k_harmony` keeps this token of `o200k_base`, among IDs that are otherwise reserved.
const END_OF_PROMPT: Renamed =
    Renamed { id: 200_018, in_table: "<|reserved_200018|>", name: "<|endofprompt|>" };

/// The published encodings that an experiment can name.
pub(super) static ENCODINGS: [Encoding; 5] = [
    Encoding {
        name: "o200k_harmony",
        table: tiktoken_rs::o200k_harmony_singleton,
        pattern: O200K,
        vocab_size: 201_088,
        end_of_text: 199_999,
        digest: "396b01eed776c59481b280206190a6694284fc81ead2f57ae5a54a0ec2042d95",
    },
    Encoding {
        name: "o200k_base",
        table: tiktoken_rs::o200k_base_singleton,
        pattern: O200K,
        vocab_size: 200_019,
        end_of_text: 199_999,
        digest: "2a0e4eb23ff7ce5f59e5e118ad1ef75e93c6264ad3aa1216d03125ec0d7be6f1",
    },
    Encoding {
        name: "cl100k_base",
        table: tiktoken_rs::cl100k_base_singleton,
        pattern: CL100K,
        vocab_size: 100_277,
        end_of_text: 100_257,
        digest: "8611e68e36671158b68db8d8bf3104cc55132d72a6778aec76a8fc02941c45ff",
    },
    Encoding {
        name: "p50k_base",
        table: tiktoken_rs::p50k_base_singleton,
        pattern: R50K,
        vocab_size: 50_281,
        end_of_text: 50_256,
        digest: "10889fc95de6a2133667c6a27ad615f538fbf4174c8b7971049663a64817ad9f",
    },
    Encoding {
        name: "r50k_base",
        table: tiktoken_rs::r50k_base_singleton,
        pattern: R50K,
        vocab_size: 50_257,
        end_of_text: 50_256,
        digest: "308d754230d38d65af18d1735931f5fd7cb10dfa270a267778e17adde128ca38",
    },
];

/// The encoding of that name.
pub(super) fn find(name: &str) -> Option<&'static Encoding> {
    ENCODINGS.iter().find(|encoding| encoding.name == name)
}

impl Encoding {
    /// The tokens of `text`; strings of special tokens are ordinary text.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        if self.pattern == O200K {
            return Ok(o200k::encode(text));
        }
        let table = (self.table)();
        let none = HashSet::new();
        // Of the crate's encoders, this one returns the errors of its regex engine, where the others panic.
        let encode = |segment: &str| match table.encode(segment, &none) {
            Ok((tokens, _)) => Ok(tokens),
            Err(error) => Err(TokenizerError::Encode { reason: error.to_string() }),
        };
        let parts = segments(text).collect::<Vec<_>>();
        match parts.as_slice() {
            [] => Ok(Vec::new()),
            [only] => encode(only),
            _ => Ok(parts.into_par_iter().map(encode).collect::<Result<Vec<_>, _>>()?.concat()),
        }
    }

    /// The bytes of a token; `None` for an unused ID.
    pub(super) fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        match self.renamed() {
            Some(token) if token.id == id => Some(token.name.into()),
            _ => self.table_bytes(id),
        }
    }

    fn table_bytes(&self, id: u32) -> Option<Vec<u8>> {
        (self.table)().decode_bytes(&[id]).ok()
    }

    /// The special token whose name in the table is not OpenAI's.
    fn renamed(&self) -> Option<&'static Renamed> {
        (self.name == "o200k_harmony").then_some(&END_OF_PROMPT)
    }

    /// The ID of a special token.
    pub(super) fn special_id(&self, content: &str) -> Option<u32> {
        match self.renamed() {
            Some(token) if token.name == content => Some(token.id),
            Some(token) if token.in_table == content => None,
            _ => self.table_id(content),
        }
    }

    fn table_id(&self, content: &str) -> Option<u32> {
        let table = (self.table)();
        let known = table.special_tokens();
        let content = known.get(content).copied()?;
        let (tokens, _) = table.encode(content, &HashSet::from([content])).ok()?;
        tokens.first().copied()
    }

    /// All special tokens with their IDs, ordered by ID.
    fn specials(&self) -> Vec<(u32, String)> {
        let names = (self.table)().special_tokens();
        let names = names.into_iter().chain(self.renamed().map(|token| token.name));
        let mut specials: Vec<_> =
            names.filter_map(|name| Some((self.special_id(name)?, name.to_owned()))).collect();
        specials.sort_unstable();
        specials
    }

    /// The IDs and bytes of the tokens that are not special, ordered by ID.
    fn ordinary(&self, specials: &[(u32, String)]) -> Vec<(u32, Vec<u8>)> {
        let special_ids: HashSet<u32> = specials.iter().map(|&(id, _)| id).collect();
        (0..self.vocab_size)
            .filter(|id| !special_ids.contains(id))
            .filter_map(|id| Some((id, self.token_bytes(id)?)))
            .collect()
    }

    /// The spellings in a `tokenizer.json` of the tokens that are not special.
    pub(super) fn spellings(&self) -> BTreeMap<u32, String> {
        let ordinary = self.ordinary(&self.specials());
        ordinary.into_iter().map(|(id, bytes)| (id, byte_level::text(&bytes))).collect()
    }

    /// Everything that determines the tokens of a text, as bytes: the pattern, then each ID with its bytes in the table.
    #[cfg(test)]
    pub(super) fn definition(&self) -> Vec<u8> {
        let mut definition = format!("{}\n", self.pattern).into_bytes();
        for id in 0..self.vocab_size {
            if let Some(bytes) = self.table_bytes(id) {
                definition.extend(id.to_le_bytes());
                definition.extend((bytes.len() as u32).to_le_bytes());
                definition.extend(bytes);
            }
        }
        definition
    }

    /// The same encoding as a Hugging Face `tokenizer.json`.
    pub(super) fn hugging_face(&self) -> Value {
        let specials = self.specials();
        let ordinary = self.ordinary(&specials);
        let mut vocab: Vec<(u32, String)> =
            ordinary.iter().map(|(id, bytes)| (*id, byte_level::text(bytes))).collect();
        // Also in the model's vocabulary, because Hugging Face numbers other added tokens consecutively, and these may
        // have gaps.
        vocab.extend(specials.iter().cloned());
        vocab.sort_unstable();
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": specials
                .iter()
                .map(|(id, content)| byte_level::special_token(*id, content))
                .collect::<Vec<_>>(),
            "normalizer": null,
            "pre_tokenizer": byte_level::pre_tokenizer(self.pattern),
            "post_processor": null,
            "decoder": byte_level::without_regex(),
            "model": byte_level::model(
                vocab.into_iter().map(|(id, content)| (content, Value::from(id))).collect::<Map<_, _>>(),
                merges(&ordinary),
                true,
            ),
        })
    }
}

/// The merges of a ranked vocabulary, by rank: for each token of several bytes, the two tokens that it is merged from,
/// which are what remains of it after all merges of lower rank.
///
/// When a pair becomes a token inside a longer text, all lower merges within it have been made and none crossed its
/// ends, so its two halves are the ones found here: these merges alone give the same result as the ranks.
fn merges(ordinary: &[(u32, Vec<u8>)]) -> Vec<Value> {
    let mut lower = Default::default();
    let mut merges = Vec::with_capacity(ordinary.len());
    for (id, bytes) in ordinary {
        if bytes.len() > 1
            && let [left, right] = tiktoken_rs::byte_pair_split(bytes, &lower)[..]
        {
            merges.push(json!([byte_level::text(left), byte_level::text(right)]));
        }
        lower.insert(bytes.clone(), *id);
    }
    merges
}
