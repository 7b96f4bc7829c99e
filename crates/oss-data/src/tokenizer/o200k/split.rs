//! Splits text like the `o200k` pattern, without a regex engine.
//!
//! The alternatives of the pattern, of which the first match is taken, as in a backtracking engine:
//!
//! | alternative | here |
//! |---|---|
//! | `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s\|'t\|'re\|'ve\|'m\|'ll\|'d)?` | [`Splitter::small`] |
//! | `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s\|'t\|'re\|'ve\|'m\|'ll\|'d)?` | [`Splitter::word`] |
//! | `\p{N}{1,3}` | [`Splitter::number`] |
//! | ` ?[^\s\p{L}\p{N}]+[\r\n/]*` | [`Splitter::marks`] |
//! | `\s*[\r\n]+`, `\s+(?!\S)`, `\s+` | [`Splitter::white_space`] |

use regex_syntax::hir::{Class, HirKind};

/// The character classes of the pattern, as bits.
mod class {
    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
    pub(super) const CAPITAL: u8 = 1;
    /// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
    pub(super) const SMALL: u8 = 1 << 1;
    /// `\p{L}`
    pub(super) const LETTER: u8 = 1 << 2;
    /// `\p{N}`
    pub(super) const NUMBER: u8 = 1 << 3;
    /// `\s`
    pub(super) const SPACE: u8 = 1 << 4;
    /// `[\r\n]`
    pub(super) const NEWLINE: u8 = 1 << 5;
    /// `[\r\n/]`
    pub(super) const NEWLINE_OR_SLASH: u8 = 1 << 6;
    /// `[^\s\p{L}\p{N}]`
    pub(super) const MARK: u8 = 1 << 7;
}

/// The classes in regex syntax, for the crate whose engine is the reference.
const CLASSES: [(u8, &str); 8] = [
    (class::CAPITAL, r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"),
    (class::SMALL, r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"),
    (class::LETTER, r"\p{L}"),
    (class::NUMBER, r"\p{N}"),
    (class::SPACE, r"\s"),
    (class::NEWLINE, r"[\r\n]"),
    (class::NEWLINE_OR_SLASH, r"[\r\n/]"),
    (class::MARK, r"[^\s\p{L}\p{N}]"),
];

/// The classes of every character.
pub(super) struct Splitter {
    /// By code point.
    classes: Vec<u8>,
}

impl Splitter {
    pub(super) fn new() -> Self {
        let mut classes = vec![0; char::MAX as usize + 1];
        for (bit, spelling) in CLASSES {
            let parsed =
                regex_syntax::parse(spelling).expect("the spellings are constants, which the tests parse");
            if let HirKind::Class(Class::Unicode(class)) = parsed.kind() {
                for range in class.ranges() {
                    classes[range.start() as usize..=range.end() as usize].iter_mut().for_each(|c| *c |= bit);
                }
            }
        }
        Self { classes }
    }

    /// The end of the piece that starts at byte `start` of `text`, which must be the start of a character.
    #[inline]
    pub(super) fn piece_end(&self, text: &str, start: usize) -> usize {
        self.plain_word(text.as_bytes(), start).unwrap_or_else(|| self.any_piece(text, start))
    }

    /// Handles most pieces of most texts: at most one ASCII character as a prefix, at most one capital, lowercase
    /// letters, and an ASCII character that does not continue the word. Returns `None` for all others.
    #[inline]
    fn plain_word(&self, text: &[u8], start: usize) -> Option<usize> {
        // Sums instead of branches, which would be unpredictable.
        let not_prefix = class::LETTER | class::NUMBER | class::NEWLINE;
        let first = *text.get(start)?;
        let prefixed = usize::from(first.is_ascii() && self.classes[usize::from(first)] & not_prefix == 0);
        let letters_at = start + prefixed;
        let small_at = letters_at + usize::from(text.get(letters_at)?.is_ascii_uppercase());
        let mut end = small_at;
        while let Some(chunk) = text.get(end..).and_then(|rest| rest.first_chunk::<8>()) {
            let run = small_letters(*chunk);
            end += run;
            if run < chunk.len() {
                let next = text[end];
                return (end > small_at && next.is_ascii() && next != b'\'').then_some(end);
            }
        }
        None
    }

    fn any_piece(&self, text: &str, start: usize) -> usize {
        let Some((first, second_at)) = self.class_at(text, start) else { return start };
        if first & class::LETTER != 0 {
            return contraction_end(text, self.word(text, start).unwrap_or(second_at));
        }
        if first & class::NUMBER != 0 {
            return self.number(text, start);
        }
        if first & class::NEWLINE == 0 {
            let prefixed = if first & class::CAPITAL == 0 {
                self.word(text, second_at)
            } else {
                // A combining mark is both a prefix and the start of a word, and a word that ends in a lowercase letter
                // takes precedence over both.
                self.small(text, second_at).or_else(|_| self.small(text, start)).ok()
            };
            if let Some(end) = prefixed {
                return contraction_end(text, end);
            }
        }
        let marks_at = if text.as_bytes()[start] == b' ' { second_at } else { start };
        self.marks(text, marks_at).unwrap_or_else(|| self.white_space(text, start))
    }

    /// The class of the character at `at`, and the start of the next one; `None` at the end.
    #[inline]
    fn class_at(&self, text: &str, at: usize) -> Option<(u8, usize)> {
        let byte = *text.as_bytes().get(at)?;
        if byte.is_ascii() {
            return Some((self.classes[usize::from(byte)], at + 1));
        }
        self.class_beyond_ascii(text, at)
    }

    // In a separate function, so that the loops over `class_at` stay short.
    #[cold]
    fn class_beyond_ascii(&self, text: &str, at: usize) -> Option<(u8, usize)> {
        let character = text[at..].chars().next()?;
        Some((self.classes[character as usize], at + character.len_utf8()))
    }

    /// The end of the characters of `class` that start at `at`.
    #[inline]
    fn run(&self, text: &str, mut at: usize, class: u8) -> usize {
        while let Some((_, next)) = self.class_at(text, at).filter(|(found, _)| found & class != 0) {
            at = next;
        }
        at
    }

    /// Capitals followed by at least one lowercase letter: returns where they end and, if there are none, where the
    /// capitals end.
    #[inline]
    fn small(&self, text: &str, start: usize) -> Result<usize, usize> {
        let (mut at, mut last_small) = (start, None);
        while let Some((found, next)) = self.class_at(text, at) {
            if found & class::CAPITAL == 0 {
                if found & class::SMALL != 0 {
                    return Ok(self.run(text, next, class::SMALL));
                }
                break;
            }
            at = next;
            if found & class::SMALL != 0 {
                last_small = Some(next);
            }
        }
        // The engine backtracks over capitals until one of them can be a lowercase letter: one that is of neither case.
        last_small.ok_or(at)
    }

    /// The end of the letters that form a word, or `None` if there are none.
    #[inline]
    fn word(&self, text: &str, start: usize) -> Option<usize> {
        match self.small(text, start) {
            Ok(end) => Some(end),
            Err(end) => (end > start).then_some(end),
        }
    }

    /// Up to three digits.
    fn number(&self, text: &str, start: usize) -> usize {
        let mut at = start;
        for _ in 0..3 {
            match self.class_at(text, at) {
                Some((found, next)) if found & class::NUMBER != 0 => at = next,
                _ => break,
            }
        }
        at
    }

    /// Punctuation, with the line endings and slashes after it; `None` if there is none.
    fn marks(&self, text: &str, start: usize) -> Option<usize> {
        let end = self.run(text, start, class::MARK);
        (end > start).then(|| self.run(text, end, class::NEWLINE_OR_SLASH))
    }

    /// Whitespace: up to its last line ending; else all of it at the end of the text; else all but the last character,
    /// which belongs to what follows, unless it is the only one.
    fn white_space(&self, text: &str, start: usize) -> usize {
        let (mut at, mut last_at, mut line_end) = (start, start, None);
        while let Some((found, next)) = self.class_at(text, at).filter(|(found, _)| found & class::SPACE != 0)
        {
            (last_at, at) = (at, next);
            if found & class::NEWLINE != 0 {
                line_end = Some(next);
            }
        }
        let leaves_last = at < text.len() && last_at > start;
        line_end.unwrap_or(if leaves_last { last_at } else { at })
    }
}

/// Number of lowercase ASCII letters at the start of `bytes`.
#[inline]
fn small_letters(bytes: [u8; 8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let bytes = u64::from_le_bytes(bytes);
    // The high bit of each byte says whether it is ASCII and, as the sums are then below 256, whether it is at least
    // `a` and beyond `z`.
    let ascii = !bytes;
    let low = bytes & (0x7f * ONES);
    let from_a = low + (0x80 - u64::from(b'a')) * ONES;
    let beyond_z = low + (0x7f - u64::from(b'z')) * ONES;
    let small = ascii & from_a & !beyond_z & (0x80 * ONES);
    ((small ^ (0x80 * ONES)).trailing_zeros() / 8) as usize
}

/// The end of a word after an optional contraction (`'s 't 're 've 'm 'll 'd`) at `at`, in any case; ſ counts as s.
#[inline]
fn contraction_end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    if bytes.get(at) != Some(&b'\'') {
        return at;
    }
    let lower = |offset: usize| bytes.get(at + offset).map_or(0, u8::to_ascii_lowercase);
    match (lower(1), lower(2)) {
        (b's' | b't' | b'm' | b'd', _) => at + 2,
        (b'r' | b'v', b'e') | (b'l', b'l') => at + 3,
        _ if text[at + 1..].starts_with('ſ') => at + 1 + 'ſ'.len_utf8(),
        _ => at,
    }
}
