//! The published tables, trained vocabularies, and their agreement with Hugging Face's implementation.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use oss_config::TrainTokenizer;
use oss_config::error::ErrorReport;

/// A tokenizer, and the one that the `tokenizers` crate builds from its `tokenizer.json`.
struct Pair {
    ours: Tokenizer,
    theirs: tokenizers::Tokenizer,
}

impl Pair {
    fn new(ours: Tokenizer) -> Self {
        let json = ours.hugging_face_json();
        let theirs = tokenizers::Tokenizer::from_bytes(json.as_bytes()).unwrap();
        Self { ours, theirs }
    }

    fn check(&self, text: &str) {
        let ours = self.ours.encode(text).unwrap();
        let theirs = self.theirs.encode_fast(text, false).unwrap();
        assert_eq!(ours, theirs.get_ids(), "{} on {text:?}", self.ours.name());
        assert_eq!(self.ours.decode(&ours), text, "{} on {text:?}", self.ours.name());
        assert_eq!(self.theirs.decode(&ours, false).unwrap(), text);
    }
}

static PAIRS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let named = ["bytes", "o200k_harmony", "cl100k_base", "p50k_base"];
    let mut tokenizers: Vec<_> = named.map(named_tokenizer).into();
    tokenizers.push(trained(350).unwrap());
    tokenizers.into_iter().map(Pair::new).collect()
});

fn named_tokenizer(name: &str) -> Tokenizer {
    Tokenizer::load(&TokenizerChoice::Named(name.into()), None).unwrap()
}

fn trained(entries: u32) -> anyhow::Result<Tokenizer> {
    let (onsets, rimes) =
        (["b", "c", "d", "gr", "l", "m", "st", "th"], ["ack", "ell", "ing", "ore", "ut", "ay"]);
    let documents = (0..200).map(|number| {
        let word = |n: usize| format!("{}{}", onsets[n % 8], rimes[n / 8 % 6]);
        let text = (0..20).map(|n| format!("{} the {}. ", word(number + n * n), word(number * n))).collect();
        Ok(Document { text, place: format!("row {number}") })
    });
    Tokenizer::train(documents, entries, &|| Ok(()))
}

#[test]
fn pinned_digests_are_those_of_the_tables() {
    let digest = |encoding: &tiktoken::Encoding| blake3::hash(&encoding.definition()).to_hex().to_string();
    let pinned = tiktoken::ENCODINGS.each_ref().map(|encoding| encoding.digest.to_owned());
    assert_eq!(pinned, tiktoken::ENCODINGS.each_ref().map(digest));
}

#[test]
fn every_id_of_o200k_harmony_is_where_the_table_says() {
    let tokenizer = named_tokenizer("o200k_harmony");
    assert_eq!(tokenizer.vocab_size(), 201_088);
    assert_eq!(tokenizer.end_of_text(), 199_999);
    let special = |id: u32| match id {
        199_998 => "<|startoftext|>".to_owned(),
        199_999 => "<|endoftext|>".to_owned(),
        200_002 => "<|return|>".to_owned(),
        200_003 => "<|constrain|>".to_owned(),
        200_005 => "<|channel|>".to_owned(),
        200_006 => "<|start|>".to_owned(),
        200_007 => "<|end|>".to_owned(),
        200_008 => "<|message|>".to_owned(),
        200_012 => "<|call|>".to_owned(),
        200_018 => "<|endofprompt|>".to_owned(),
        _ => format!("<|reserved_{id}|>"),
    };
    let Kind::Tiktoken(harmony) = &tokenizer.kind else { panic!("harmony is a published encoding") };
    let base = tiktoken::find("o200k_base").unwrap();
    for id in 0..199_998 {
        let bytes = harmony.token_bytes(id);
        assert!(bytes.is_some() && bytes == base.token_bytes(id), "{id}");
    }
    for id in 199_998..201_088 {
        assert_eq!(tokenizer.decode(&[id]), special(id));
        assert_eq!(tokenizer.special_id(&special(id)), Some(id));
    }
    assert_eq!(harmony.token_bytes(201_088), None);
    assert_eq!(tokenizer.special_id("<|reserved_200018|>"), None);
    assert_eq!(
        tokenizer.special_ids(),
        SpecialIds { begin: Some(199_998), end: vec![200_002, 199_999, 200_012], pad: 199_999 }
    );
}

#[test]
fn every_entry_of_several_bytes_is_one_merge() {
    for name in ["o200k_harmony", "p50k_base"] {
        let described = tiktoken::find(name).unwrap().hugging_face();
        let count = |list: &Value| list.as_array().map_or_else(|| list.as_object().unwrap().len(), Vec::len);
        let ordinary = count(&described["model"]["vocab"]) - count(&described["added_tokens"]);
        assert_eq!(count(&described["model"]["merges"]), ordinary - 256, "{name}");
    }
}

#[test]
fn published_encodings_give_known_tokens() {
    for (name, tokens) in [
        ("o200k_harmony", vec![13225, 2375]),
        ("o200k_base", vec![13225, 2375]),
        ("cl100k_base", vec![9906, 1917]),
        ("p50k_base", vec![15496, 995]),
        ("r50k_base", vec![15496, 995]),
    ] {
        assert_eq!(named_tokenizer(name).encode("Hello world").unwrap(), tokens, "{name}");
    }
}

#[test]
fn hugging_face_encodes_awkward_text_alike() {
    let awkward = [
        "",
        " ",
        "\n",
        "  \n \n\n x",
        "a\r\n\r\n  b\t\tc  ",
        "I'LL don't we've 'S 's' ſ",
        "12345 6,789.01 ٣٤٥ ½",
        "日本語の文章。テスト、です！",
        "👩‍👩‍👧‍👦🇫🇷 👍🏽",
        "e\u{301}a\u{300}\u{301}\u{302} Å",
        "    def f(x):\n        return x//2\n",
        "ΑΒΓαβγ ДЖдж ǅ",
        "\u{200b}\u{feff}\u{a0}\u{3000} \u{85}x",
        "http://a.b/c?d=e&f#g//\n/",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "\0\u{1}\u{7f}",
        "................................................................!!!!!!!!!!!!",
        "THE Cat SAT onTHEmat iPhone XMLHttp",
    ];
    for pair in PAIRS.iter() {
        awkward.iter().for_each(|text| pair.check(text));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hugging_face_encodes_generated_text_alike(
        text in prop_oneof![
            "[ -~\n\t]{0,200}",
            "([a-zA-Z']{1,9}[ .,\n]{0,3}){0,40}",
            "[ \t\r\n\u{a0}a1.]{0,60}",
            "[\u{a0}-\u{2fff}\u{3000}-\u{9fff}\u{1f300}-\u{1f6ff}]{0,60}",
        ],
    ) {
            for pair in PAIRS.iter() {
            pair.check(&text);
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn cut_text_encodes_as_whole_text(text in "([a-z0-9ïé漢]{1,6}[ ,.;!?\n\t/'\"]{0,3}){1,12}") {
        // Long enough to be split many times, with boundaries of each kind at the splits.
        let long = text.repeat(200_000 / text.len() + 1);
        for (name, whole) in [
            ("o200k_harmony", tiktoken_rs::o200k_harmony_singleton()),
            ("cl100k_base", tiktoken_rs::cl100k_base_singleton()),
            ("r50k_base", tiktoken_rs::r50k_base_singleton()),
        ] {
            prop_assert_eq!(named_tokenizer(name).encode(&long).unwrap(), whole.encode_ordinary(&long));
        }
    }
}

#[test]
fn special_strings_in_a_document_are_text() {
    for pair in PAIRS.iter() {
        let text = "before<|endoftext|>after <|return|>";
        let tokens = pair.ours.encode(text).unwrap();
        assert!(!tokens.contains(&pair.ours.end_of_text()), "{}", pair.ours.name());
        assert_eq!(pair.ours.decode(&tokens), text);
        assert_eq!(pair.ours.decode(&[pair.ours.end_of_text()]), "<|endoftext|>");
    }
}

#[test]
fn runs_that_break_the_regex_engines_are_encoded() {
    let check = |tokenizer: &Tokenizer, run: &str| {
        let text = run.repeat(1_000_000) + "a";
        let tokens = tokenizer.encode(&text).unwrap();
        assert_eq!(tokenizer.decode(&tokens), text, "{} of {run:?}", tokenizer.name());
    };
    ["A", " ", "\t", "\n"].iter().for_each(|run| check(&named_tokenizer("o200k_harmony"), run));
    [" ", "!"].iter().for_each(|run| check(&named_tokenizer("p50k_base"), run));
    check(&trained(300).unwrap(), " ");
}

#[test]
fn an_external_tokenizer_keeps_its_rules() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_str(&named_tokenizer("bytes").hugging_face_json()).unwrap();
    json["normalizer"] = json!({ "type": "Lowercase" });
    json["truncation"] =
        json!({ "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 });
    json["added_tokens"][0]["content"] = "<end>".into();
    std::fs::write(&path, json.to_string()).unwrap();
    let choice = TokenizerChoice::Named(path.display().to_string());
    let error = ErrorReport::of(Tokenizer::load(&choice, None).err().unwrap()).to_string();
    assert!(error.contains("dataset.end_of_text"), "{error}");

    let config = json!({ "eos_token": { "content": "<end>" } });
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = Tokenizer::load(&choice, None).unwrap();
    assert_eq!(tokenizer.encode("ABC").unwrap(), tokenizer.encode("abc").unwrap());
    assert_eq!(tokenizer.encode("abc").unwrap().len(), 3);
    assert_eq!(tokenizer.decode(&[tokenizer.end_of_text()]), "<end>");
    assert_eq!(tokenizer.tokenizer_config(64)["eos_token"], "<end>");
    let error = ErrorReport::of(tokenizer.encode(&"a".repeat(17 << 20)).unwrap_err()).to_string();
    assert!(error.contains("split the document") && !error.contains("separator"), "{error}");
}

#[test]
fn half_a_character_and_unknown_ids_decode_to_replacements() {
    assert_eq!(named_tokenizer("bytes").decode(&[0xc3, 65, 300]), "\u{fffd}A\u{fffd}");
    assert_eq!(named_tokenizer("o200k_harmony").decode(&[13225, 999_999]), "Hello\u{fffd}");
}

#[test]
fn training_is_deterministic_and_fills_the_vocabulary() {
    let first = trained(350).unwrap();
    assert_eq!((first.vocab_size(), first.end_of_text()), (350, 349));
    for _ in 0..3 {
        assert_eq!(trained(350).unwrap().digest(), first.digest());
    }
    assert!(first.encode("back the core").unwrap().len() < 6);
    let error = ErrorReport::of(trained(100_000).err().unwrap()).to_string();
    assert!(error.contains("train = "), "{error}");
}

#[test]
fn training_stops_on_request_or_read_errors() {
    let document = || Ok(Document { text: "text".into(), place: "row".into() });
    let stopped = Tokenizer::train([document()].into_iter(), 300, &|| anyhow::bail!("stop"));
    assert_eq!(stopped.err().unwrap().to_string(), "stop");
    let broken = Tokenizer::train([document(), Err(anyhow::anyhow!("row 2"))].into_iter(), 300, &|| Ok(()));
    assert_eq!(broken.err().unwrap().to_string(), "row 2");
}

#[test]
fn a_saved_vocabulary_loads_as_the_same_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let first = trained(300).unwrap();
    std::fs::write(&path, first.hugging_face_json()).unwrap();
    let again = Tokenizer::load(&TokenizerChoice::Named(path.display().to_string()), None).unwrap();
    assert_eq!(again.digest(), first.digest());
    assert_eq!(again.vocab_size(), 300);
    assert_eq!(again.tokenizer_config(128)["eos_token"], "<|endoftext|>");
}

#[test]
fn wrong_choices_say_what_to_set() {
    let message = |choice| ErrorReport::of(Tokenizer::load(&choice, None).err().unwrap()).to_string();
    assert!(message(TokenizerChoice::Named("gpt5".into())).contains("set dataset.tokenizer"));
    assert!(message(TokenizerChoice::Named("/none/tokenizer.json".into())).contains("cannot read"));
    assert!(
        message(TokenizerChoice::Train(TrainTokenizer { train: 300 }))
            .contains("trained by the prepare stage")
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    std::fs::write(&path, "{}").unwrap();
    assert!(
        message(TokenizerChoice::Named(path.display().to_string())).contains("not a usable tokenizer.json")
    );
}

/// Found by fuzzing: the crate panics on a decoder it cannot parse, and IDs went up to the maximum integer.
#[test]
fn damaged_files_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let whole: Value = serde_json::from_str(&named_tokenizer("bytes").hugging_face_json()).unwrap();
    let load = |text: String| {
        std::fs::write(&path, text).unwrap();
        Tokenizer::from_file(&path, None).err()
    };
    let text = whole.to_string();
    let torn = text.replacen(
        "\"decoder\":{\"type\":\"ByteLevel\",",
        "\"decoder\":{\"type\":\"ByteLevel\",\"t\":",
        1,
    );
    assert_ne!(torn, text);
    let mut last_id = whole;
    last_id["model"]["vocab"]["!"] = u32::MAX.into();
    for damaged in [torn, last_id.to_string()] {
        assert!(matches!(load(damaged), Some(TokenizerError::Malformed { .. })));
    }
    assert!(load(text).is_none());
}

#[test]
fn facts_need_no_table() {
    for encoding in &tiktoken::ENCODINGS {
        let facts = Tokenizer::facts(&TokenizerChoice::Named(encoding.name.into()), None).unwrap();
        assert_eq!(facts.vocab_size, i64::from(encoding.vocab_size));
    }
    let trained = TokenizerChoice::Train(TrainTokenizer { train: 4096 });
    let trained = Tokenizer::facts(&trained, None).unwrap();
    assert_eq!((trained.vocab_size, trained.digest, trained.end_of_text.id), (4096, None, 4095));
}
