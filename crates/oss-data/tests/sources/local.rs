//! Valid local files.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use oss_config::{Builtin, Dataset, OnBadRow, Origin};
use oss_data::sources::{Corpus, CorpusRange, Identity, ReadOptions, SourceFiles, Watch};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;

use crate::{options, read};

const STORIES: [&str; 3] = ["One day, a fox ran.\nIt was fast.", "Zwölf Eulen \"riefen\".", "The end?"];

fn text() -> String {
    STORIES.join("\n<|endoftext|>\n")
}

fn jsonl() -> String {
    STORIES.map(|story| serde_json::json!({"id": 1, "text": story}).to_string()).join("\n")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes one row group whose first column has these values and definition levels.
fn write_column(path: &Path, schema: &str, values: &[&[u8]], levels: &[i16]) {
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let values: Vec<ByteArray> = values.iter().map(|value| value.to_vec().into()).collect();
    let mut texts = group.next_column().unwrap().unwrap();
    texts.typed::<ByteArrayType>().write_batch(&values, Some(levels), None).unwrap();
    texts.close().unwrap();
    let mut ids = group.next_column().unwrap().unwrap();
    let numbers: Vec<i64> = (0..levels.len() as i64).collect();
    ids.typed::<parquet::data_type::Int64Type>().write_batch(&numbers, None, None).unwrap();
    ids.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

/// Writes `rows` as the column `text` of a file with several row groups; a `None` among the rows becomes a null.
pub fn write_parquet(path: &Path, rows: &[Option<&[u8]>], column: &str) {
    let schema = format!("message rows {{ OPTIONAL BYTE_ARRAY {column} (UTF8); REQUIRED INT64 id; }}");
    let schema = Arc::new(parquet::schema::parser::parse_message_type(&schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
    for group in rows.chunks(2) {
        let mut groups = writer.next_row_group().unwrap();
        let values: Vec<ByteArray> = group.iter().flatten().map(|row| row.to_vec().into()).collect();
        let levels: Vec<i16> = group.iter().map(|row| i16::from(row.is_some())).collect();
        let mut texts = groups.next_column().unwrap().unwrap();
        texts.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        texts.close().unwrap();
        let mut ids = groups.next_column().unwrap().unwrap();
        let numbers: Vec<i64> = (0..group.len() as i64).collect();
        ids.typed::<parquet::data_type::Int64Type>().write_batch(&numbers, None, None).unwrap();
        ids.close().unwrap();
        groups.close().unwrap();
    }
    writer.close().unwrap();
}

fn one(path: &Path) -> Vec<String> {
    vec![path.display().to_string()]
}

#[test]
fn every_format_gives_the_same_documents() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: Vec<u8>| fs::write(folder.path().join(name), bytes).unwrap();
    put("a.txt", text().into_bytes());
    put("a.txt.gz", gzip(text().as_bytes()));
    put("a.txt.zst", zstd::encode_all(text().as_bytes(), 3).unwrap());
    put("a.jsonl", jsonl().into_bytes());
    put("a.jsonl.gz", gzip(jsonl().as_bytes()));
    put("a.jsonl.zst", zstd::encode_all(jsonl().as_bytes(), 3).unwrap());
    put("a.json", format!("[{}]", jsonl().replace('\n', ",\n")).into_bytes());
    put("lines.json", jsonl().into_bytes());
    put("pretty.json.gz", gzip(pretty().as_bytes()));
    put("a.csv", delimited(",").into_bytes());
    put("a.csv.zst", zstd::encode_all(delimited(",").as_bytes(), 3).unwrap());
    put("a.tsv", delimited("\t").into_bytes());
    let rows = STORIES.map(|story| Some(story.as_bytes()));
    write_parquet(&folder.path().join("a.parquet"), &rows, "text");
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 13);
    for name in &names {
        let texts = read(&one(&folder.path().join(name)), &options(folder.path())).unwrap();
        assert_eq!(texts, STORIES, "{name:?}");
    }
    let all = read(&one(folder.path()), &options(folder.path())).unwrap();
    assert_eq!(all.len(), names.len() * STORIES.len(), "a directory stands for the files in it");
}

fn pretty() -> String {
    let objects: Vec<_> =
        STORIES.iter().map(|story| serde_json::json!({"id": [{}], "text": story})).collect();
    serde_json::to_string_pretty(&objects).unwrap()
}

fn delimited(delimiter: &str) -> String {
    let row = |story: &&str| format!("1{delimiter}\"{}\"\r\n", story.replace('"', "\"\""));
    format!("\u{feff}id{delimiter}text\r\n{}", STORIES.iter().map(row).collect::<String>())
}

#[test]
fn a_directory_stands_for_the_data_files_in_it() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("b/deep/z.txt", "z"),
        ("b/a.jsonl", "{\"text\": \"a\"}"),
        ("c.txt", "c"),
        ("README.md", "not data"),
        ("dataset_info.json", "{}"),
        (".git/x.txt", "hidden"),
    ] {
        let path = folder.path().join("data").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    std::os::unix::fs::symlink("..", folder.path().join("data/b/up")).unwrap();
    let data = folder.path().join("data");
    assert_eq!(read(&one(&data), &options(folder.path())).unwrap(), ["a", "z", "c"]);
}

#[test]
fn a_field_of_nested_objects_and_structs() {
    let folder = tempfile::tempdir().unwrap();
    let nested = ReadOptions { text_field: "meta.text".into(), ..options(folder.path()) };
    let (jsonl, parquet) = (folder.path().join("a.jsonl"), folder.path().join("a.parquet"));
    fs::write(
        &jsonl,
        "{\"meta\": {\"text\": \"in\"}}\n{\"meta.text\": \"literal\", \"meta\": {\"text\": \"in\"}}\n",
    )
    .unwrap();
    assert_eq!(read(&one(&jsonl), &nested).unwrap(), ["in", "literal"]);
    let schema =
        "message rows { OPTIONAL group meta { OPTIONAL BYTE_ARRAY text (UTF8); } REQUIRED INT64 id; }";
    // A text, a null in the struct, and a null struct.
    write_column(&parquet, schema, &[b"in"], &[2, 1, 0]);
    let skip = ReadOptions { on_bad_row: OnBadRow::Skip, max_bad_fraction: 1.0, ..nested };
    assert_eq!(read(&one(&parquet), &skip).unwrap(), ["in"]);
    let error = read(&one(&parquet), &ReadOptions { on_bad_row: OnBadRow::Error, ..skip }).unwrap_err();
    assert!(error.contains("row 2: the text is null"), "{error}");
}

#[test]
fn texts_are_kept_as_given_unless_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let texts = ["    def f():\n        return 1\n\n", "\t\u{a0}x "];
    let (jsonl, text, parquet) =
        (folder.path().join("a.jsonl"), folder.path().join("a.txt"), folder.path().join("a.parquet"));
    fs::write(&jsonl, texts.map(|text| serde_json::json!({ "text": text }).to_string()).join("\n")).unwrap();
    fs::write(&text, texts.join("\n<|endoftext|>\n")).unwrap();
    write_parquet(&parquet, &texts.map(|text| Some(text.as_bytes())), "text");
    let given = options(folder.path());
    let trim = ReadOptions { trim: true, ..given.clone() };
    for path in [&jsonl, &text, &parquet] {
        assert_eq!(read(&one(path), &given).unwrap(), texts, "{path:?}");
        assert_eq!(read(&one(path), &trim).unwrap(), texts.map(str::trim), "{path:?}");
    }
}

#[test]
fn a_nul_is_text_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let story = "before\0after";
    let put = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    put("a.txt", story.into());
    put("a.jsonl", serde_json::json!({ "text": story }).to_string());
    put("a.json", serde_json::json!([{ "text": story }]).to_string());
    put("a.csv", format!("text\n{story}\n"));
    write_parquet(&folder.path().join("a.parquet"), &[Some(story.as_bytes())], "text");
    assert_eq!(read(&one(folder.path()), &options(folder.path())).unwrap(), [story; 5]);
}

#[test]
fn nan_in_other_fields_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(
        &path,
        "{\"score\": NaN, \"text\": \"a\"}\n{\"text\": \"b\", \"range\": [-Infinity, Infinity]}\n",
    )
    .unwrap();
    assert_eq!(read(&one(&path), &options(folder.path())).unwrap(), ["a", "b"]);
}

#[test]
fn gzip_members_and_padding() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt.gz");
    let members = [gzip(b"one\n"), vec![0; 700], gzip(b"two\n"), vec![0; 1024]].concat();
    fs::write(&path, members).unwrap();
    assert_eq!(read(&one(&path), &options(folder.path())).unwrap(), ["one\ntwo\n"]);
}

#[test]
fn zstandard_with_the_longest_window() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt.zst");
    // What `zstd --long=31` writes from a pipe: the frame declares its window, and no size of the content.
    let mut encoder = zstd::Encoder::new(File::create(&path).unwrap(), 1).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.window_log(31).unwrap();
    encoder.write_all(b"a long window\n").unwrap();
    encoder.finish().unwrap();
    assert_eq!(read(&one(&path), &options(folder.path())).unwrap(), ["a long window\n"]);
}

#[test]
fn separators_split_documents() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    let check = |text: &str, separator: &str, expected: &[&str]| {
        fs::write(&path, text).unwrap();
        let options = ReadOptions { separator: separator.into(), ..options(folder.path()) };
        assert_eq!(read(&one(&path), &options).unwrap(), expected, "{text:?} by {separator:?}");
    };
    let token = "<|endoftext|>";
    check("\u{feff}a\r\nb\r\n<|endoftext|>\r\n\r\nc", token, &["a\nb", "\nc"]);
    check("<|endoftext|>\na\n<|endoftext|>\n<|endoftext|>\nb\n<|endoftext|>\n", token, &["a", "b"]);
    check(
        "a <|endoftext|>\n<|endoftext|>b\nc<|endoftext|><|endoftext|>\n  <|endoftext|>  \nd",
        token,
        &["a ", "b\nc", "d"],
    );
    check("a <|endoftext|> b<|endoftext|>  \n c\n<|endoftext|>d\n", token, &["a ", " b", " c\n", "d\n"]);
    check("a</s>b\n", "</s>", &["a", "b\n"]);
    check("a\n---\nb --- c\n--- d\n---  \ne", "---", &["a", "b --- c\n--- d", "e"]);
    check("a\nb\n\n\nc\n", "", &["a\nb", "c\n"]);
    check("\n\nno separator\n\nat all\n\n", token, &["\n\nno separator\n\nat all\n\n"]);
}

#[test]
fn joined_documents_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    let given = ["    indented\n    code\n", "\n\nblank lines\n\n", "no break at the end"];
    let single: Vec<String> = (0..200).map(|number| format!("Document {number}.")).collect();
    let lines: Vec<String> = (0..200).map(|number| format!("Document {number}.\n")).collect();
    let check = |documents: &[&str], separator: &str| {
        fs::write(&path, documents.join(separator)).unwrap();
        assert_eq!(read(&one(&path), &options(folder.path())).unwrap(), documents, "{separator:?}");
    };
    let single: Vec<&str> = single.iter().map(String::as_str).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    check(&given, "\n<|endoftext|>\n");
    check(&single, "<|endoftext|>");
    check(&single, "<|endoftext|>\n");
    check(&lines, "<|endoftext|>");
}

#[test]
fn places_name_file_and_line_or_row() {
    let folder = tempfile::tempdir().unwrap();
    let (text_path, jsonl_path) = (folder.path().join("a.txt"), folder.path().join("b.jsonl"));
    let parquet_path = folder.path().join("c.parquet");
    fs::write(&text_path, "\n\na\nb\n<|endoftext|>\nc").unwrap();
    fs::write(&jsonl_path, "\n{\"text\": \"d\"}\n").unwrap();
    write_parquet(&parquet_path, &[Some(b"e"), Some(b"f"), Some(b"g")], "text");
    let patterns = [&text_path, &jsonl_path, &parquet_path].map(|path| path.display().to_string());
    let source =
        SourceFiles::resolve(&Origin::Files(&patterns), &options(folder.path()), Watch::quiet()).unwrap();
    let mut documents = source.documents(Watch::quiet()).unwrap();
    let (total, done) = (documents.total_bytes(), documents.bytes_read());
    let places: Vec<_> = documents.by_ref().map(|document| document.unwrap().place).collect();
    let at = |path: &Path, rest: &str| format!("{}{rest}", path.display());
    let expected = [
        at(&text_path, ":3"),
        at(&text_path, ":6"),
        at(&jsonl_path, ":2"),
        at(&parquet_path, " row 1"),
        at(&parquet_path, " row 2"),
        at(&parquet_path, " row 3"),
    ];
    assert_eq!(places, expected);
    assert!(done.load(Ordering::Relaxed) <= total && done.load(Ordering::Relaxed) > 15);
}

#[test]
fn patterns_expand_in_order_and_once() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.txt", "a.txt", "c[1].txt", "d.jsonl"] {
        let text = if name.ends_with("jsonl") { "{\"text\": \"d\"}".into() } else { name.to_string() };
        fs::write(folder.path().join(name), text).unwrap();
    }
    fs::create_dir(folder.path().join("e.txt")).unwrap();
    let pattern = |name: &str| folder.path().join(name).display().to_string();
    let patterns = [pattern("c[1].txt"), pattern("*.txt"), pattern("a.txt"), pattern("d.*")];
    let texts = read(&patterns, &options(folder.path())).unwrap();
    assert_eq!(texts, ["c[1].txt", "a.txt", "b.txt", "d"]);
}

#[test]
fn two_readers_on_different_threads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    fs::write(&path, text()).unwrap();
    let patterns = one(&path);
    let source =
        SourceFiles::resolve(&Origin::Files(&patterns), &options(folder.path()), Watch::quiet()).unwrap();
    let mut here = source.documents(Watch::quiet()).unwrap();
    let there = source.documents(Watch::quiet()).unwrap();
    assert!(here.next().is_some());
    let counted = std::thread::spawn(move || there.count()).join().unwrap();
    assert_eq!((counted, here.count()), (3, 2));
}

#[test]
fn digests_depend_on_content_and_are_cached() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    let cache = folder.path().join("cache/digests.json");
    let options = ReadOptions { digest_cache: Some(cache.clone()), ..options(folder.path()) };
    let put = |text: &str, age_secs: u64| {
        let mut file = File::create(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age_secs)).unwrap();
    };
    let identity = || {
        let patterns = one(&path);
        SourceFiles::resolve(&Origin::Files(&patterns), &options, Watch::quiet()).unwrap().identity()
    };
    let digest_of = |identity: &Identity| match identity {
        Identity::Files { files } => files[0].blake3.clone(),
        _ => panic!("not files"),
    };
    put("one", 100);
    let first = identity();
    assert_eq!(digest_of(&first), blake3::hash(b"one").to_hex().to_string());
    // A cached digest is used: a forged one shows it.
    let stored = fs::read_to_string(&cache).unwrap();
    fs::write(&cache, stored.replace(&digest_of(&first), &"0".repeat(64))).unwrap();
    assert_eq!(digest_of(&identity()), "0".repeat(64));
    // With another modification time, the file is read again.
    put("two", 50);
    assert_eq!(digest_of(&identity()), blake3::hash(b"two").to_hex().to_string());
    // A damaged cache only costs time.
    fs::write(&cache, "{").unwrap();
    assert_eq!(digest_of(&identity()), blake3::hash(b"two").to_hex().to_string());
    // A file that was just written is not cached, because it may change within the clock's tick.
    fs::remove_file(&cache).unwrap();
    put("new", 0);
    identity();
    assert!(!cache.exists());
}

#[test]
fn the_built_in_stories_are_a_source() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::default();
    let small = CorpusRange { documents: 5, ..CorpusRange::TRAINING };
    let training = ReadOptions { corpus: small, ..options(folder.path()) };
    let source = SourceFiles::resolve(&Origin::Builtin(Builtin::Stories), &training, Watch::quiet()).unwrap();
    let documents: Vec<_> =
        source.documents(Watch::quiet()).unwrap().map(|document| document.unwrap()).collect();
    assert_eq!(documents.len(), 5);
    assert_eq!(
        documents[2].text,
        Corpus { builtin: Builtin::Stories, range: small }.document(2).unwrap().text
    );
    assert_eq!(documents[2].place, "built-in stories:3");
    let validation = ReadOptions::validation(&dataset, None);
    let held_out =
        SourceFiles::resolve(&Origin::Builtin(Builtin::Stories), &validation, Watch::quiet()).unwrap();
    assert_ne!(source.identity(), held_out.identity());
    let json = serde_json::to_value(source.identity()).unwrap();
    assert_eq!(json["kind"], "builtin");
}
