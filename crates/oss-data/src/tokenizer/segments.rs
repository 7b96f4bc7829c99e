//! Splits a long text at places where every pre-tokenizer pattern of this program splits anyway.
//!
//! Pre-tokenizer patterns run on backtracking engines with bounded stacks and step counts: a run of a million spaces
//! makes one of them fail and another panic. Splitting first keeps each match short, lets one long document use every
//! core, and bounds the memory needed to encode it. It does not change the tokens: see [`is_boundary`].

/// Bytes after which a segment ends at the next boundary.
const TARGET: usize = 32 * 1024;

/// Bytes after which a segment ends even without a boundary. Only text without any space, punctuation or digit reaches
/// this; such text has no well-defined tokens, because the reference encoders fail on it.
const LONGEST: usize = 512 * 1024;

/// Splits `text` into consecutive segments of about 32 KiB whose concatenated encodings are the encoding of the whole.
pub(super) fn segments(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (segment, after) = rest.split_at(first_cut(rest));
        rest = after;
        Some(segment)
    })
}

fn first_cut(text: &str) -> usize {
    if text.len() <= TARGET {
        return text.len();
    }
    let start = text.floor_char_boundary(TARGET);
    let mut previous = None;
    for (offset, next) in text[start..].char_indices() {
        let at = start + offset;
        if previous.is_some_and(|previous| is_boundary(previous, next)) || at >= LONGEST {
            return at;
        }
        previous = Some(next);
    }
    text.len()
}

/// Whether all known patterns (GPT-2's, `r50k`, `p50k`, `cl100k`, `o200k`, those of [`super::divisible`]) always split
/// between these two characters.
///
/// None of their alternatives matches a space after anything but whitespace, a letter after a digit, or one of these
/// marks after a letter or digit. They have no lookbehind, and they look ahead only after whitespace, which the left
/// character never is, so both sides match separately as they do together.
pub(super) fn is_boundary(previous: char, next: char) -> bool {
    let alphanumeric = previous.is_ascii_alphanumeric() || is_cjk(previous);
    (next == ' ' && !previous.is_whitespace())
        || (previous.is_ascii_digit() && next.is_ascii_alphabetic())
        || (alphanumeric && matches!(next, ',' | '.' | ';' | ':' | '!' | '?' | '"' | '，' | '。' | '、'))
}

/// Chinese characters and kana letters, all of which are in Unicode's class of letters.
fn is_cjk(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{4e00}'..='\u{9fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_join_to_the_text_and_stay_short() {
        let spaced = "The cat sat.\n".repeat(20_000);
        let solid = "é".repeat(1_000_000);
        for text in [spaced.as_str(), solid.as_str(), "short", ""] {
            assert_eq!(segments(text).collect::<String>(), text);
            assert!(segments(text).all(|segment| !segment.is_empty() && segment.len() <= LONGEST + 4));
        }
        assert!(segments(&spaced).all(|segment| segment.len() < TARGET + 20));
    }
}
