//! Invalid local files: each message has the place and a hint.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs::{self, File};
use std::path::Path;

use oss_config::{OnBadRow, Origin};
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
    check_path(&folder.path().join("none.md"), &["no such file"], |_| ());
    fs::create_dir(folder.path().join("texts.txt")).unwrap();
    fs::write(folder.path().join("texts.txt/README.md"), "not data").unwrap();
    check_path(&folder.path().join("texts.txt"), &["contains no data files", ".jsonl"], |_| ());
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
    check("a.csv", b"id,text\n", &["no documents"]);
    check("a.json", b" [ ] \n", &["no documents"]);
    check("a.xml", b"<a/>", &["not supported", ".parquet", ".jsonl"]);
}

#[test]
fn bytes_that_are_not_text() {
    check("a.txt", b"good\nbad \xff\n", &["a.txt:2", "not UTF-8", "byte 9", "iconv"]);
    check("a.txt", b"\xef\xbb\xbfgood\nbad \xff\n", &["a.txt:2", "not UTF-8", "byte 12"]);
    check("a.txt", &[7, 0, 1, 0, 9, 0].repeat(50), &["binary data"]);
    check("a.txt", b"%PDF-1.4", &["a PDF"]);
    let mut tar = vec![b'a'; 512];
    tar[257..262].copy_from_slice(b"ustar");
    check("a.txt.zst", &zstd::encode_all(&tar[..], 1).unwrap(), &["decompressed", "a tar archive"]);
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
    at("{\"text\": NaN}", &["is NaN", "not a string"]);
    at("{\"x\": nan, \"text\": \"\"}", &["invalid JSON at column 8"]);
}

#[test]
fn broken_json_files() {
    check("a.json", b"[{\"text\": \"a\"},\n {\"text\": \"b\"}", &["a.json:2", "the list does not end"]);
    check("a.json", b"[{\"text\": \"a\"}\n {\"text\": \"b\"}]", &["a.json:2", "no comma"]);
    check("a.json", b"[{\"text\": \"a\"},]", &["a.json:1", "a value is missing"]);
    check("a.json", b"[{\"text\": \"a\"}]\n[]", &["a.json:2", "after the end"]);
    check("a.json", b"[{\"text\": \"a\"}, 3]", &["a.json:1", "not a JSON object"]);
    check("a.json", b"{\n\"body\": \"a\"\n}", &["a.json:1", "no field `text`", "body"]);
    check("a.json", b"[{\"text\":\n \"a\", oops}]", &["a.json:1", "line 2 of the object"]);
    check("a.json", b"\n[{\"text\": \"cut", &["a.json:2", "invalid JSON"]);
}

#[test]
fn broken_tables() {
    check("a.csv", b"id,text\n1,a\n2,b,c\n", &["a.csv:3", "3 values", "header has 2", "quote"]);
    check("a.csv", b"id,body\n1,a\n", &["no column `text`", "id, body", "dataset.text_field"]);
    check("a.tsv", b"id\ttext\n1\t\xff\n", &["a.tsv:2", "not UTF-8"]);
    let open = format!("id,text\n1,\"{}\n", "x".repeat(1 << 22));
    check_with(
        "a.csv",
        open.as_bytes(),
        &["a.csv", "far longer than 1 MiB", "close its quotes"],
        |options| {
            options.max_document_bytes = 1 << 20;
        },
    );
}

#[test]
fn git_lfs_pointers() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    for name in ["a.txt", "a.jsonl", "a.json.gz", "a.csv", "a.parquet"] {
        check(name, pointer, &["this is a Git LFS pointer", "lfs pull"]);
    }
}

#[test]
fn bad_rows_are_skipped_counted_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let good = |number: usize| format!("{{\"text\": \"{number}\"}}\n").into_bytes();
    let mut rows: Vec<Vec<u8>> = (0..300).map(good).collect();
    rows[10] = b"{\"text\": \"cut\n".to_vec();
    rows[20] = b"{\"text\": \"\xff\"}\n".to_vec();
    rows[299] = b"{\"body\": \"x\"}\n".to_vec();
    fs::write(&path, rows.concat()).unwrap();
    let patterns = [path.display().to_string()];
    let mut options = options(folder.path());
    let error = read(&patterns, &options).unwrap_err();
    assert!(error.contains("a.jsonl:11: invalid JSON") && error.contains("on_bad_row = \"skip\""), "{error}");

    options.on_bad_row = OnBadRow::Skip;
    options.max_bad_fraction = 0.01;
    let source = SourceFiles::resolve(&Origin::Files(&patterns), &options, Watch::quiet()).unwrap();
    let mut documents = source.documents(Watch::quiet()).unwrap();
    let bad = documents.bad_rows();
    assert_eq!(documents.by_ref().map(Result::unwrap).count(), 297);
    assert_eq!(bad.count(), 3);
    for part in ["a.jsonl:11: invalid JSON", "a.jsonl:21: the line is not UTF-8", "a.jsonl:300: no field"] {
        assert!(bad.first().contains(part), "{}", bad.first());
    }

    options.max_bad_fraction = 0.009;
    let error = read(&patterns, &options).unwrap_err();
    assert!(error.contains("3 of the first 300 rows are bad") && error.contains("a.jsonl:21"), "{error}");
    assert!(error.contains("max_bad_fraction"), "{error}");

    // A single bad row is within any limit; settings that make every row bad are told early.
    fs::write(&path, [&rows[0][..], &rows[10]].concat()).unwrap();
    assert_eq!(read(&patterns, &options).unwrap(), ["0"]);
    options.max_bad_fraction = 1.0;
    options.text_field = "story".into();
    fs::write(&path, rows[..9].concat().repeat(100)).unwrap();
    let error = read(&patterns, &options).unwrap_err();
    assert!(error.contains("100 of the first 100 rows") && error.contains("dataset.text_field"), "{error}");
}

#[test]
fn bad_rows_of_every_format_are_skipped() {
    let skipped = |name: &str, bytes: &[u8], expected: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let mut options = ReadOptions { on_bad_row: OnBadRow::Skip, ..options(folder.path()) };
        options.max_document_bytes = 1 << 20;
        assert_eq!(read(&[path.display().to_string()], &options).unwrap(), expected, "{name}");
    };
    skipped("a.txt", b"a\n<|endoftext|>\nb\n\xff\nc\n<|endoftext|>d", &["a", "d"]);
    skipped("a.csv", b"id,text\n1,a\n2\n3,c\n", &["a", "c"]);
    skipped("a.json", b"[{\"text\": \"a\"}, 3, {\"text\": \"c\"}]", &["a", "c"]);
    let long = format!("{{\"text\": \"a\"}}\n{{\"text\": \"{}\"}}\n{{\"text\": \"c\"}}", "x".repeat(3 << 20));
    skipped("a.jsonl", long.as_bytes(), &["a", "c"]);
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
