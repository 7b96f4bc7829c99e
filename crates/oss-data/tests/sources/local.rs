//! Valid local files.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use oss_config::{Builtin, Dataset, Origin};
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

fn trimmed(texts: Vec<String>) -> Vec<String> {
    texts.iter().map(|text| text.trim().to_string()).collect()
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
    let rows = STORIES.map(|story| Some(story.as_bytes()));
    write_parquet(&folder.path().join("a.parquet"), &rows, "text");
    for name in ["a.txt", "a.txt.gz", "a.txt.zst", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"] {
        let texts = read(&one(&folder.path().join(name)), &options(folder.path())).unwrap();
        assert_eq!(trimmed(texts), STORIES, "{name}");
    }
}

#[test]
fn separators_split_documents() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    let check = |text: &str, separator: &str, expected: &[&str]| {
        fs::write(&path, text).unwrap();
        let options = ReadOptions { separator: separator.into(), ..options(folder.path()) };
        assert_eq!(trimmed(read(&one(&path), &options).unwrap()), expected, "{text:?} by {separator:?}");
    };
    let token = "<|endoftext|>";
    check("\u{feff}a\r\nb\r\n<|endoftext|>\r\n\r\nc", token, &["a\nb", "c"]);
    check("<|endoftext|>\na\n<|endoftext|>\n<|endoftext|>\nb\n<|endoftext|>\n", token, &["a", "b"]);
    check(
        "a <|endoftext|>\n<|endoftext|>b\nc<|endoftext|><|endoftext|>\n  <|endoftext|>  \nd",
        token,
        &["a", "b\nc", "d"],
    );
    check("a says <|endoftext|> and goes\nb", token, &["a says <|endoftext|> and goes\nb"]);
    check("a\n---\nb --- c\n--- d\n---  \ne", "---", &["a", "b --- c\n--- d", "e"]);
    check("a\nb\n\n\nc\n", "", &["a\nb", "c"]);
    check("no separator\n\nat all", token, &["no separator\n\nat all"]);
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
    assert_eq!(trimmed(texts), ["c[1].txt", "a.txt", "b.txt", "d"]);
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
