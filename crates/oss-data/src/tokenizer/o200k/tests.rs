//! Comparison with `tiktoken-rs`, whose engine and merging are the reference.

use proptest::prelude::*;
use proptest::string::string_regex;

use super::*;

fn reference(text: &str) -> Vec<u32> {
    tiktoken_rs::o200k_harmony_singleton().encode_ordinary(text)
}

fn check(text: &str) {
    assert_eq!(encode(text), reference(text), "{text:?}");
}

#[test]
fn every_character_alone_and_between_others() {
    // All of Unicode in one text would only show that some piece differs.
    for character in ('\0'..=char::MAX).step_by(7).chain('\0'..='\u{24ff}') {
        check(&format!("a{character}A{character}{character} {character}1{character}."));
    }
}

#[test]
fn words_of_every_pair_of_classes() {
    // One of each class: capital, lowercase, title case, modifier, other letter, mark, number, space, line ending,
    // slash, others.
    let classes = [
        "A", "b", "ǅ", "ʰ", "漢", "\u{301}", "5", "²", " ", "\t", "\u{a0}", "\n", "\r", "/", "'s", "'", "ſ",
        "!",
    ];
    for first in classes {
        for second in classes {
            for third in classes {
                for fourth in classes {
                    check(&[first, second, third, fourth].concat());
                }
            }
        }
    }
}

#[test]
fn contractions_in_every_case() {
    for suffix in ["s", "t", "re", "ve", "m", "ll", "d", "ſ", "k", "r", "l", "v", "lL", "Re", "vE", "K", ""]
    {
        for word in ["I", "they", "HE", "漢", "é", "9", "", " "] {
            for after in ["", "s", " x", "'s", "é"] {
                check(&format!("{word}'{suffix}{after}"));
                check(&format!("{word}'{}{after}", suffix.to_uppercase()));
            }
        }
    }
}

#[test]
fn pieces_of_every_length() {
    // Fifteen bytes have a key and sixteen do not; up to 64 pairs are searched linearly, more use the queue.
    for len in (1..150).chain([1000, 4096]) {
        for unit in ["a", "A", " ", "=", "é", "漢", "ab", "xyzzy", "\u{301}"] {
            let piece: String = unit.chars().cycle().take(len).collect();
            check(&piece);
            check(&format!("{piece} b"));
        }
    }
}

#[test]
fn a_million_of_one_character() {
    for unit in ["A", "a", "=", "漢"] {
        let text = unit.repeat(1_000_000);
        // In quadratic time, this would not finish.
        assert_eq!(encode(&text), reference(&text));
    }
}

#[test]
fn cached_tokens_equal_fresh_ones() {
    let words: Vec<String> = (0..40_000).map(|n| format!("qzx{:x}vk", n * 7919)).collect();
    let text = words.join(" ");
    assert_eq!(encode(&text), reference(&text));
    assert_eq!(encode(&text), reference(&text));
}

fn any_text() -> impl Strategy<Value = String> {
    let drawn = |pattern: &str| string_regex(pattern).unwrap();
    prop_oneof![
        drawn(r"\PC{0,80}"),
        drawn(r"[\x00-\u{10ffff}]{0,40}"),
        drawn(r"[ -~\n\t\r]{0,200}"),
        drawn(r"([A-Z]{0,3}[a-z]{0,8}('(s|t|re|VE|m|LL|d|ſ)?)?[ .,!?\n]{0,3}){0,30}"),
        drawn(r"([ \t\r\n\u{a0}\u{2003}\u{85}]{0,6}[a1./]?){0,20}"),
        drawn(r"([0-9]{0,7}[.,:/ ]?){0,12}"),
        drawn(r"[\u{3040}-\u{30ff}\u{4e00}-\u{4fff}，。、A-Ca-c ]{0,60}"),
        drawn(r"[\u{1f300}-\u{1faff}\u{200d}\u{fe0f}\u{1f3fb}-\u{1f3ff}a ]{0,40}"),
        drawn(r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}\p{Ll}'s ]{0,60}"),
        drawn(r"[\p{N}\p{M}\p{P}\p{S}\p{Z}\n/]{0,60}"),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_encodes_as_tiktoken_does(text in any_text()) {
        prop_assert_eq!(encode(&text), reference(&text));
    }
}
