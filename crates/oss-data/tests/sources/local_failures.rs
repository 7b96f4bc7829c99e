//! Invalid local files: each message has the place and a hint.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs::{self, File};
use std::path::Path;

use oss_config::Origin;
use oss_data::sources::{ReadOptions, SourceFiles, Watch};

use crate::local::write_parquet;
use crate::{options, read};

/// Writes `bytes` to `name`, reads it with options changed by `change`, and checks that the message has all `parts`.
fn check_with(name: &str, bytes: &[u8], parts: &[&str], change: impl Fn(&mut ReadOptions)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    check_path(&path, parts, change);
}

fn check_path(path: &Path, parts: &[&str], change: impl Fn(&mut ReadOptions)) {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    change(&mut options);
    let read = read(&[path.display().to_string()], &options);
    let message = read.map(|texts| texts.len()).expect_err("the file should not be readable");
    for part in parts.iter().copied().chain([path.file_name().unwrap().to_str().unwrap()]) {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

fn check(name: &str, bytes: &[u8], parts: &[&str]) {
    check_with(name, bytes, parts, |_| ());
}

#[test]
fn missing_or_unreadable_files() {
    let folder = tempfile::tempdir().unwrap();
    check_path(&folder.path().join("none.txt"), &["no such file", "dataset.files"], |_| ());
    check_path(&folder.path().join("none*.txt"), &["matches no file"], |_| ());
    check_path(&folder.path().join("a***.txt"), &["malformed"], |_| ());
    fs::create_dir(folder.path().join("texts.txt")).unwrap();
    check_path(&folder.path().join("texts.txt"), &["directory", "*.txt"], |_| ());
    let message = read(&[], &options(folder.path())).unwrap_err();
    assert!(message.contains("dataset.files is empty"), "{message}");
    let message = read(&["/a\0b.txt".into()], &options(folder.path())).unwrap_err();
    assert!(message.contains("NUL"), "{message}");
}

#[test]
fn files_without_text() {
    check("a.txt", b"", &["empty", "remove it"]);
    check("a.txt", b"\n \n<|endoftext|>\n", &["no documents"]);
    check("a.jsonl", b"\n\n", &["no documents"]);
    check("a.csv", b"a,b", &["not supported", ".parquet", ".jsonl"]);
}

#[test]
fn bytes_that_are_not_text() {
    check("a.txt", b"good\nbad \xff\n", &["a.txt:2", "not UTF-8", "byte 9", "iconv"]);
    check("a.txt", b"good\nb\0d\n", &["a.txt:2", "NUL", "byte 6", "binary"]);
    check("a.txt", b"\x1f\x8b\x08\0\0", &["gzip", ".gz"]);
    check("a.jsonl", &zstd::encode_all(&b"x"[..], 1).unwrap(), &["Zstandard", ".zst"]);
    check("a.txt", b"\xff\xfea\0", &["UTF-16", "iconv"]);
    check("a.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\xe9\"}\n", &["a.jsonl:2", "not UTF-8"]);
}

#[test]
fn damaged_compressed_files() {
    let text: String = (0..5_000).map(|number| format!("line {number}\n")).collect();
    let packed = zstd::encode_all(text.as_bytes(), 3).unwrap();
    check("a.txt.zst", &packed[..packed.len() / 2], &["is truncated", "download or compress"]);
    check("a.txt.zst", b"no zstd here", &["invalid Zstandard"]);
    let mut encoder = flate2::read::GzEncoder::new(text.as_bytes(), flate2::Compression::fast());
    let mut packed = Vec::new();
    std::io::Read::read_to_end(&mut encoder, &mut packed).unwrap();
    check("a.txt.gz", &packed[..packed.len() - 10], &["is truncated"]);
    check("a.txt.gz", b"no gzip here", &["invalid gzip"]);
    let middle = packed.len() / 2;
    packed[middle] ^= 0xff;
    check("a.txt.gz", &packed, &["gzip"]);
}

#[test]
fn broken_json_lines() {
    let at = |line: &str, parts: &[&str]| {
        let text = format!("{{\"text\": \"good\"}}\n{line}\n");
        check("a.jsonl", text.as_bytes(), &[&["a.jsonl:2"], parts].concat());
    };
    at("{\"text\": \"cut", &["invalid JSON at column"]);
    at("{\"text\": \"a\"} {\"text\": \"b\"}", &["invalid JSON"]);
    at("{\"content\": \"a\", \"id\": 3}", &["no field `text`", "content, id", "dataset.text_field"]);
    at("{}", &["found: none"]);
    at("{\"text\": 3}", &["a number", "not a string"]);
    at("{\"text\": null}", &["null"]);
    at("[\"text\"]", &["not a JSON object"]);
    at("\"text\"", &["not a JSON object"]);
}

#[test]
fn broken_parquet_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write_parquet(&path, &[Some(b"a"), Some(b"b"), None], "text");
    check_path(&path, &["row 3", "null", "dataset.text_field"], |_| ());
    check_path(&path, &["no column `body`", "found: text, id"], |options| options.text_field = "body".into());
    check_path(&path, &["`id`", "INT64"], |options| options.text_field = "id".into());
    write_parquet(&path, &[Some(b"a"), Some(b"\xff\xfe")], "text");
    check_path(&path, &["row 2", "not UTF-8"], |_| ());
    write_parquet(&path, &[Some(b"a\0b")], "text");
    check_path(&path, &["row 1", "NUL"], |_| ());
    write_parquet(&path, &[Some(b"long enough")], "text");
    check_path(&path, &["row 1", "longer than"], |options| options.max_document_bytes = 4);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    check_path(&path, &["truncated"], |_| ());
    let mut damaged = whole;
    damaged[4..30].fill(0xee);
    fs::write(&path, damaged).unwrap();
    check_path(&path, &["row 0", "damaged"], |_| ());
    // Found by fuzzing: the crate panics on a column that starts before the file.
    fs::write(&path, include_bytes!("negative_offset.parquet")).unwrap();
    check_path(&path, &["row 0", "damaged"], |_| ());
}

#[test]
fn documents_that_are_too_long() {
    let small = |options: &mut ReadOptions| options.max_document_bytes = 1 << 20;
    let line = "words and more words\n";
    let text = format!("short\n<|endoftext|>\n{}", line.repeat((1 << 20) / line.len() + 1));
    check_with("a.txt", text.as_bytes(), &["a.txt:3", "longer than 1 MiB", "dataset.separator"], small);
    check_with("a.txt", "x".repeat((1 << 20) + 10).as_bytes(), &["a.txt:1", "dataset.separator"], small);
    let row = format!("{{\"text\": \"{}\"}}", "x".repeat(1 << 21));
    check_with("a.jsonl", row.as_bytes(), &["a.jsonl:1", "longer than 1 MiB"], small);
    let row = format!("{{\"text\": \"{}\"}}", "x".repeat((1 << 20) + 1));
    check_with("a.jsonl", row.as_bytes(), &["a.jsonl:1", "longer than 1 MiB"], small);
    let fits = format!("{{\"text\": \"{}\"}}", "x".repeat((1 << 20) - 1));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, fits).unwrap();
    let mut options = options(folder.path());
    small(&mut options);
    assert_eq!(read(&[path.display().to_string()], &options).unwrap().len(), 1);
}

#[test]
fn a_separator_of_two_lines_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = ReadOptions { separator: "\n\n".into(), ..options(folder.path()) };
    let message = read(&["a.txt".into()], &options).unwrap_err();
    assert!(message.contains("set dataset.separator to a single line"), "{message}");
}

#[test]
fn a_file_that_changes_while_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    fs::write(&path, "a").unwrap();
    let patterns = [path.display().to_string()];
    let source =
        SourceFiles::resolve(&Origin::Files(&patterns), &options(folder.path()), Watch::quiet()).unwrap();
    File::create(&path).unwrap();
    let mut documents = source.documents(Watch::quiet()).unwrap();
    let message = documents.next().unwrap().unwrap_err().to_string();
    assert!(message.contains("changed"), "{message}");
    assert!(documents.next().is_none());
}

#[test]
fn hashing_stops_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    fs::write(&path, "a").unwrap();
    let patterns = [path.display().to_string()];
    let watch = Watch { keep_going: &|| anyhow::bail!("stop it"), progress: &|_| () };
    let error = SourceFiles::resolve(&Origin::Files(&patterns), &options(folder.path()), watch).unwrap_err();
    assert_eq!(error.to_string(), "stop it");
}
