//! Splits, order, replacement, and errors.

use std::cell::Cell;

use super::*;
use crate::{Prepared, PreparedError};
use oss_config::error::ErrorReport;
use oss_config::{OnBadRow, TokenizerChoice};
use oss_runs::storage::{Fault, Faults};

fn bytes() -> Tokenizer {
    Tokenizer::load(&TokenizerChoice::Named("bytes".into()), None).unwrap()
}

fn documents(texts: &[&str]) -> impl Iterator<Item = Result<Document>> + Send {
    let texts: Vec<String> = texts.iter().map(|text| text.to_string()).collect();
    texts.into_iter().enumerate().map(|(row, text)| Ok(Document { text, place: format!("row {row}") }))
}

fn many() -> Vec<String> {
    (0..2000).map(|number| format!("Document {number} says {}.", number * number)).collect()
}

fn prepare(
    documents: impl Iterator<Item = Result<Document>> + Send,
    tokenizer: &Tokenizer,
    out: &Path,
    validation_share: f64,
) -> Result<Index> {
    let options = PrepareOptions {
        source: "the test's text".into(),
        validation_share,
        expected_text_bytes: None,
        bad_rows: Arc::default(),
        keep_going: &|| Ok(()),
        progress: &mut |_| {},
    };
    prepare_source(documents, tokenizer, out, options)
}

#[test]
fn documents_are_kept_as_given_terminated_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("main");
    let index = prepare(documents(&["  ab\n", " \n\t", "c d", ""]), &bytes(), &out, 0.0).unwrap();
    let prepared = Prepared::open(&out).unwrap();
    assert_eq!(prepared.train().unwrap()[..], [32, 32, 97, 98, 10, 256, 99, 32, 100, 256]);
    assert!(prepared.val().unwrap().is_empty());
    assert_eq!((index.train.documents, index.train.tokens, index.train.text_bytes), (2, 10, 8));
    assert_eq!(index.skipped, Skipped { bad_rows: 0, blank_documents: 2 });
    assert_eq!(*prepared.index(), index);
    prepared.verify().unwrap();
    assert_eq!(prepared.tokenizer().unwrap().digest(), bytes().digest());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left next to the output");
}

#[test]
fn the_split_depends_on_the_text_alone() {
    let dir = tempfile::tempdir().unwrap();
    let texts = many();
    let mut forward: Vec<&str> = texts.iter().map(String::as_str).collect();
    let held_out = |order: &[&str], name: &str| {
        let out = dir.path().join(name);
        prepare(documents(order), &bytes(), &out, 0.1).unwrap();
        let prepared = Prepared::open(&out).unwrap();
        let mut texts: Vec<Vec<u32>> =
            prepared.val().unwrap().split(|&token| token == 256).map(<[u32]>::to_vec).collect();
        texts.sort_unstable();
        (texts, prepared.index().clone())
    };
    let (first, index) = held_out(&forward, "forward");
    forward.reverse();
    let (second, _) = held_out(&forward, "backward");
    assert_eq!(first, second);
    assert!((140..260).contains(&index.validation.documents), "{}", index.validation.documents);
    assert_eq!(index.train.documents + index.validation.documents, 2000);
    let few = held_out(&forward[..5], "few").1;
    assert_eq!(
        (few.train.documents, few.validation.documents),
        (5, 1),
        "the end of the last one, as none is by its hash"
    );
}

#[test]
fn the_whole_source_may_be_held_out() {
    let dir = tempfile::tempdir().unwrap();
    let index = prepare(documents(&["a", "b", "c"]), &bytes(), &dir.path().join("v"), 1.0).unwrap();
    assert_eq!((index.train.documents, index.validation.documents), (0, 3));
    let prepared = Prepared::open(&dir.path().join("v")).unwrap();
    prepared.require_validation(5).unwrap();
    let error = ErrorReport::from(&prepared.require_validation(6).unwrap_err());
    assert!(
        error.message.ends_with("6 tokens, fewer than one window of train.sequence_length + 1 = 7"),
        "{error}"
    );
    assert_eq!(error.hints, ["add more validation text, or lower train.sequence_length to 5 or less"]);
}

#[test]
fn the_end_of_a_single_document_is_held_out() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("main");
    let text: String = (0..1000).map(|number| format!("{number} ")).collect();
    prepare(documents(&["\n", &text, " "]), &bytes(), &out, 0.01).unwrap();
    let prepared = Prepared::open(&out).unwrap();
    let decoded = |tokens: &[u32]| bytes().decode(tokens);
    let (train, validation) = (decoded(&prepared.train().unwrap()), decoded(&prepared.val().unwrap()));
    let whole = [&train, &validation].map(|side| side.strip_suffix("<|endoftext|>").unwrap()).concat();
    assert_eq!(whole, text);
    assert_eq!(prepared.index().validation.tokens, text.len().div_ceil(100) as u64 + 1);
    prepared.require_validation(39).unwrap();
    let error = ErrorReport::from(&prepared.require_validation(100).unwrap_err());
    let hint = "raise dataset.validation.fraction to at least 0.03, or add more text, \
                or lower train.sequence_length to 39 or less";
    assert_eq!(error.hints, [hint]);
}

/// Hashes may hold out less than the fraction of the text; the advice is more than the fraction all the same.
#[test]
fn the_advised_fraction_is_larger_than_the_one_that_was_too_small() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("main");
    let texts: Vec<String> = (0..300).map(|number| format!("document number {number}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let index = prepare(documents(&texts), &bytes(), &out, 0.01).unwrap();
    let held_out = index.validation.tokens;
    assert!(held_out < (held_out + index.train.tokens) / 100, "{held_out} tokens");
    let error =
        ErrorReport::from(&Prepared::open(&out).unwrap().require_validation(held_out as usize).unwrap_err());
    assert!(error.hints[0].starts_with("raise dataset.validation.fraction to at least 0.02, "), "{error}");
}

#[test]
fn a_text_shorter_than_a_window_gets_advice() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("main");
    prepare(documents(&["some words"]), &bytes(), &out, 0.1).unwrap();
    let prepared = Prepared::open(&out).unwrap();
    prepared.require_training(9).unwrap();
    let error = ErrorReport::from(&prepared.require_training(512).unwrap_err());
    assert_eq!(
        error.message,
        "the training text of the test's text has 10 tokens, fewer than one window of \
         train.sequence_length + 1 = 513"
    );
    assert_eq!(error.hints, ["add more text to the source, or lower train.sequence_length to 9 or less"]);
    let error = ErrorReport::from(&prepared.require_validation(512).unwrap_err());
    assert!(error.hints[0].starts_with("add more text, or separate validation text"), "{error}");
}

#[test]
fn threads_do_not_change_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let texts: Vec<String> = std::iter::repeat_n(many(), 100).flatten().collect();
    let digests = [1, 4].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let texts = texts.iter().map(|text| Ok(Document { text: text.clone(), place: String::new() }));
        let out = dir.path().join(threads.to_string());
        pool.install(|| prepare(texts, &bytes(), &out, 0.05)).unwrap()
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_trained_tokenizer_is_stored_with_the_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let texts = many();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let tokenizer = Tokenizer::train(documents(&texts), 300, &|| Ok(())).unwrap();
    let out = dir.path().join("learnt");
    prepare(documents(&texts), &tokenizer, &out, 0.1).unwrap();
    let again = Prepared::open(&out).unwrap().tokenizer().unwrap();
    assert_eq!((again.digest(), again.end_of_text()), (tokenizer.digest(), 299));
}

#[test]
fn skipped_rows_are_recorded_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let prepare = |max_fraction, name: &str| {
        let bad_rows = Arc::new(BadRows::new(OnBadRow::Skip, max_fraction));
        for row in 0..4 {
            bad_rows.count_row();
            if row % 2 == 1 {
                bad_rows.skip(UserError::failed(format!("row {row}: broken"))).unwrap();
            }
        }
        let options = PrepareOptions {
            source: "the test's text".into(),
            validation_share: 0.0,
            expected_text_bytes: None,
            bad_rows,
            keep_going: &|| Ok(()),
            progress: &mut |_| {},
        };
        prepare_source(documents(&["a"]), &bytes(), &dir.path().join(name), options)
    };
    let error = prepare(0.4, "refused").unwrap_err().to_string();
    assert!(error.contains("2 of the first 4 rows") && error.contains("row 3: broken"), "{error}");
    assert!(!dir.path().join("refused").exists());
    let index = prepare(0.5, "kept").unwrap();
    assert_eq!(index.skipped, Skipped { bad_rows: 2, blank_documents: 0 });
    assert_eq!(*Prepared::open(&dir.path().join("kept")).unwrap().index(), index);
}

#[test]
fn a_tokenizer_is_trained_on_the_text_as_given() {
    let indented: Vec<String> = (0..50).map(|number| format!("\n\n        {number} = 1")).collect();
    let texts: Vec<&str> = indented.iter().map(String::as_str).collect();
    let tokenizer = Tokenizer::train(documents(&texts), 260, &|| Ok(())).unwrap();
    assert!(tokenizer.encode("       ").unwrap().len() < 7, "the indentation was seen");
}

#[test]
fn the_end_of_text_of_the_experiment_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let harmony = TokenizerChoice::Named("o200k_harmony".into());
    let built_in = Tokenizer::load(&harmony, Some("<|return|>")).unwrap();
    let file = dir.path().join("tokenizer.json");
    std::fs::write(&file, built_in.hugging_face_json()).unwrap();
    let external = Tokenizer::from_file(&file, Some("<|return|>")).unwrap();
    for (tokenizer, out) in [(built_in, "built-in"), (external, "external")] {
        let out = dir.path().join(out);
        prepare(documents(&["a text"]), &tokenizer, &out, 0.0).unwrap();
        let again = Prepared::open(&out).unwrap().tokenizer().unwrap();
        assert_eq!((again.digest(), again.end_of_text()), (tokenizer.digest(), 200_002));
    }
}

#[test]
fn an_older_output_is_replaced_only_by_a_complete_one() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("main");
    prepare(documents(&["old"]), &bytes(), &out, 0.0).unwrap();
    let broken = documents(&["new"]).chain([Err(anyhow::anyhow!("stories.jsonl:2: broken row"))]);
    let error = prepare(broken, &bytes(), &out, 0.0).unwrap_err();
    assert_eq!(error.to_string(), "stories.jsonl:2: broken row");
    assert_eq!(Prepared::open(&out).unwrap().index().train.text_bytes, 3);
    prepare(documents(&["newer"]), &bytes(), &out, 0.0).unwrap();
    assert_eq!(Prepared::open(&out).unwrap().index().train.text_bytes, 5);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn stopping_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let asked = Cell::new(0);
    let endless =
        std::iter::repeat_with(|| Ok(Document { text: "word ".repeat(1000), place: String::new() }));
    let mut reports = Vec::new();
    let options = PrepareOptions {
        source: "endless".into(),
        validation_share: 0.0,
        expected_text_bytes: None,
        bad_rows: Arc::default(),
        keep_going: &|| {
            asked.set(asked.get() + 1);
            ensure!(asked.get() < 4, "stopped");
            Ok(())
        },
        progress: &mut |done| reports.push(done),
    };
    let error = prepare_source(endless, &bytes(), &dir.path().join("main"), options).unwrap_err();
    assert_eq!(error.to_string(), "stopped");
    assert!(reports.is_sorted_by_key(|done| done.tokens));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn leftovers_are_removed_and_directories_in_use_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("main");
    let dead = dir.path().join("main.tmp-0123456789abcdef");
    std::fs::create_dir(&dead).unwrap();
    let alive = stage(&Disk::default(), &out).unwrap();
    std::fs::write(alive.path().join("train.bin"), "").unwrap();
    prepare(documents(&["text"]), &bytes(), &out, 0.0).unwrap();
    assert!(!dead.exists() && alive.path().exists());
}

#[test]
fn a_kill_at_any_call_leaves_the_old_tokens_or_the_new() {
    for exchange in [true, false] {
        for number in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("main");
            let old = prepare(documents(&["old"]), &bytes(), &out, 0.0).unwrap();
            let faults = Faults::at(number, Fault::Killed);
            let disk = Disk::failing(if exchange { faults } else { faults.without_exchange() });
            let options = PrepareOptions {
                source: "the test's text".into(),
                validation_share: 0.0,
                expected_text_bytes: None,
                bad_rows: Arc::default(),
                keep_going: &|| Ok(()),
                progress: &mut |_| {},
            };
            let made = prepare_with(&disk, documents(&["new text"]), &bytes(), &out, options);
            let found = Prepared::open(&out).unwrap();
            found.verify().unwrap();
            let is_old = *found.index() == old;
            assert!(is_old || found.index().train.text_bytes == 8, "call {number}");
            assert!(!(is_old && made.is_ok()), "call {number}");
            recover(&out);
            assert_eq!(Prepared::open(&out).unwrap().index(), found.index(), "call {number}");
            let names: Vec<_> =
                std::fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
            assert_eq!(names, ["main"], "call {number}");
            if !disk.has_failed() {
                assert!(number > 5, "{number}");
                break;
            }
        }
    }
}

#[test]
fn text_without_documents_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for texts in [&[][..], &["", " \n"]] {
        let error = prepare(documents(texts), &bytes(), &dir.path().join("main"), 0.0).unwrap_err();
        let error = ErrorReport::from(&error);
        assert_eq!(error.message, "the test's text has no text");
        assert!(error.hints[0].starts_with("check dataset.text_field"), "{error}");
    }
}

#[test]
fn a_full_disk_says_how_much_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let options = PrepareOptions {
        source: String::new(),
        validation_share: 0.0,
        expected_text_bytes: Some(1000),
        bad_rows: Arc::default(),
        keep_going: &|| Ok(()),
        progress: &mut |_| {},
    };
    let mut files = Files::create(dir.path()).unwrap();
    files.train.file = File::options().write(true).open("/dev/full").unwrap();
    files.done = PrepareProgress { documents: 1, text_bytes: 100, tokens: 30 };
    let train = Tokens { tokens: vec![1, 2], digests: vec![7], text_bytes: 2 };
    let error = files.push(&Encoded { train, ..Encoded::default() }).unwrap_err();
    let error = ErrorReport::from(&files.explain(error, &options));
    assert!(error.message.ends_with("120 bytes of about 1200 were written"), "{error}");
    assert_eq!(error.hints, ["free some space there, or choose another directory with --runs-dir"]);
}

#[test]
fn damage_is_detected_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("main");
    assert!(matches!(Prepared::open(&out), Err(PreparedError::Missing { .. })));
    prepare(documents(&["some text"]), &bytes(), &out, 0.0).unwrap();

    let train = out.join("train.bin");
    let good = std::fs::read(&train).unwrap();
    let mut flipped = good.clone();
    flipped[4] ^= 1;
    std::fs::write(&train, &flipped).unwrap();
    let error = Prepared::open(&out).unwrap().verify().unwrap_err();
    assert!(matches!(&error, PreparedError::Damaged { path, .. } if *path == train), "{error:?}");
    std::fs::write(&train, &good[..good.len() - 1]).unwrap();
    assert!(matches!(Prepared::open(&out), Err(PreparedError::Damaged { .. })));
    std::fs::remove_file(&train).unwrap();
    assert!(matches!(Prepared::open(&out), Err(PreparedError::Read { .. })));
    std::fs::write(&train, &good).unwrap();

    let index = out.join("index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    for (from, to) in
        [("\"documents\": 1", "\"documents\": 2"), ("{", ""), ("\"format\": 1", "\"format\": 9")]
    {
        std::fs::write(&index, text.replacen(from, to, 1)).unwrap();
        let error = ErrorReport::of(Prepared::open(&out).unwrap_err()).to_string();
        assert!(error.contains("index.json") && error.contains("--force prepare"), "{error}");
    }
}
