//! Which external tokenizers can encode a long text in parts: those that split it at every boundary of
//! [`super::segments`], whatever stands on either side.
//!
//! Nothing may look across a boundary. A split pattern must not match across one, which is argued beside the patterns
//! and tested with them; a normalizer must not combine the two characters; an added token must not contain one.

use serde_json::Value;

use super::segments::is_boundary;
use super::tiktoken;

/// Llama 3, and `cl100k_base` in most conversions to a `tokenizer.json`.
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
    r"|\s+(?!\S)|\s+"
);

/// Qwen 2, 2.5 and 3.
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
    r"|\s+(?!\S)|\s+"
);

/// Mistral's Tekken.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Patterns that split at every boundary by themselves: [`is_boundary`] says why.
const PATTERNS: [&str; 6] = [tiktoken::R50K, tiktoken::CL100K, tiktoken::O200K, LLAMA3, QWEN2, TEKKEN];

/// DeepSeek V3 and R1, three patterns in turn. The first isolates digits, and the second the characters of Chinese and
/// Japanese, which leaves the boundaries before a space and after a letter to the third. A space begins a match there,
/// since one alternative takes any; and no alternative takes a punctuation mark after a letter.
const DEEPSEEK3: [&str; 3] = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"##,
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
];

/// Whether the tokenizer encodes a text as it encodes the segments.
pub(super) fn is_divisible(tokenizer: &Value) -> bool {
    keeps_boundaries(&tokenizer["normalizer"])
        && splits_at_boundaries(&tokenizer["pre_tokenizer"])
        && tokenizer["added_tokens"].as_array().is_none_or(|added| added.iter().all(stays_within_segments))
}

/// Whether normalizing the parts is normalizing the whole. NFC is such a normalizer: it combines a character only with
/// marks that follow it, and what follows a boundary is no mark; and it makes no white space of anything else.
fn keeps_boundaries(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        None => normalizer.is_null(),
        Some("NFC") => true,
        Some("Sequence") => {
            normalizer["normalizers"].as_array().is_some_and(|all| all.iter().all(keeps_boundaries))
        }
        Some(_) => false,
    }
}

fn splits_at_boundaries(pre_tokenizer: &Value) -> bool {
    let steps = match pre_tokenizer["pretokenizers"].as_array() {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(pre_tokenizer),
    };
    let Some((last, first)) = steps.split_last() else { return false };
    if last["type"] != "ByteLevel" || last["add_prefix_space"] != false {
        return false;
    }
    if last["use_regex"] != false {
        // GPT-2's pattern, after the digits are isolated in StarCoder and SmolLM.
        return first.iter().all(|step| step["type"] == "Digits");
    }
    let patterns: Option<Vec<String>> = first.iter().map(split_pattern).collect();
    let patterns = patterns.unwrap_or_default();
    matches!(patterns.as_slice(), [only] if PATTERNS.contains(&only.as_str())) || patterns == DEEPSEEK3
}

/// The pattern whose matches become pieces. Files write the ends of lines in it as escapes or as themselves.
fn split_pattern(step: &Value) -> Option<String> {
    let isolates = step["behavior"] == "Isolated" && step["invert"] != true;
    let removes_others = step["behavior"] == "Removed" && step["invert"] == true;
    let pattern = step["pattern"]["Regex"].as_str().filter(|_| step["type"] == "Split")?;
    (isolates || removes_others).then(|| pattern.replace('\r', r"\r").replace('\n', r"\n"))
}

/// Whether no boundary lies within an added token, or depends on what is around it. Special ones are ordinary text
/// here.
fn stays_within_segments(token: &Value) -> bool {
    let content = token["content"].as_str().unwrap_or_default();
    let looks_around = ["lstrip", "rstrip", "single_word"].iter().any(|flag| token[flag] == true);
    let pairs = content.chars().zip(content.chars().skip(1));
    token["special"] == true
        || !looks_around && !pairs.into_iter().any(|(left, right)| is_boundary(left, right))
}

#[cfg(test)]
mod tests;
