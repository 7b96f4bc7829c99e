//! The layers of the code: each imports only those below it, stages do not import each other, and unsafe code is
//! confined to an allowlist.
//!
//! Cargo enforces which crate may use which; this test enforces the layers inside a crate. Source files are parsed into
//! tokens, so comments and strings are ignored, and code inside macros is not.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Sources that have layers, from the top down. Layers in the same row must not import each other.
const LAYERS: [(&str, &[&[&str]]); 3] = [
    ("src", &[&["main"], &["cli"], &["report"], &["sweep"], &["runner", "runs"], &["plan"], &["stages"]]),
    (
        "crates/oss-train/src",
        &[
            &["train"],
            &["evaluation", "generation", "optimizer"],
            &["checkpoint", "hf_format"],
            &["distributed"],
            &["model"],
            &["tensor_file", "libtorch_error"],
        ],
    ),
    ("crates/oss-runs/src", &[&["monitor"], &["run_dir"], &["storage"], &["interrupt"]]),
];

/// Sources that must not contain unsafe code.
const SAFE: [&str; 3] = ["src", "crates/oss-config/src", "crates/oss-runs/src"];

/// Where unsafe code is allowed: the libtorch wrapper, loops over tensor slices, and a memory map.
const UNSAFE: [&str; 4] = [
    "crates/oss-torch/src",
    "crates/oss-kernels/src",
    "crates/oss-train/src/optimizer/rules/adamw_cpu.rs",
    "crates/oss-data/src/mapped.rs",
];

/// Keywords that begin a definition.
const DEFINITIONS: [&str; 8] = ["const", "enum", "fn", "impl", "static", "struct", "trait", "type"];

/// How a file names the crate's root: within the library, and in the program.
const CRATE: [&str; 2] = ["crate", "oss_run"];

#[test]
fn each_layer_imports_only_those_below() {
    let mut violations = String::new();
    for (root, rows) in LAYERS {
        let row_of = |layer: &str| rows.iter().position(|row| row.contains(&layer));
        for file in source_files(root) {
            let layer = layer_of(&file, root);
            let row =
                row_of(&layer).unwrap_or_else(|| panic!("{layer} is missing from LAYERS; add it to a row"));
            let mut paths = paths_from(&CRATE, tokens(&file));
            paths.dedup_by(|a, b| a.0 == b.0 && a.1[0] == b.1[0]);
            for (line, path) in paths {
                let used = &path[0];
                let allowed = *used == layer || row_of(used).is_some_and(|below| below > row);
                if !allowed {
                    writeln!(violations, "{}:{line}: {layer} uses {used}", file.display()).unwrap();
                }
            }
        }
    }
    assert!(violations.is_empty(), "layers may only use the layers below them:\n{violations}");
}

#[test]
fn a_mod_file_only_declares_and_re_exports() {
    let files = ["src", "crates"].into_iter().flat_map(source_files);
    let of_a_test = |file: &Path| file.components().any(|component| component.as_os_str() == "tests");
    let mut violations = String::new();
    for file in files.filter(|file| file.ends_with("mod.rs") && !of_a_test(file)) {
        walk(tokens(&file), &mut |tree| {
            if matches!(tree, TokenTree::Ident(word) if DEFINITIONS.iter().any(|keyword| word == keyword)) {
                writeln!(violations, "{}:{}", file.display(), tree.span().start().line).unwrap();
            }
        });
    }
    assert!(violations.is_empty(), "give these definitions a file of their own:\n{violations}");
}

#[test]
fn stages_do_not_import_each_other() {
    let stages: Vec<(PathBuf, String)> = source_files("src")
        .into_iter()
        .filter(|file| file.starts_with("src/stages"))
        .map(|file| (file.clone(), file.components().nth(2).map(stem).unwrap()))
        .collect();
    for (file, stage) in &stages {
        let absolute =
            paths_from(&["crate"], tokens(file)).into_iter().filter(|(_, path)| path[0] == "stages");
        let named = absolute.filter_map(|(line, path)| Some((line, path.get(1)?.clone())));
        let relative =
            paths_from(&["super"], tokens(file)).into_iter().map(|(line, path)| (line, path[0].clone()));
        for (line, name) in named.chain(relative) {
            let sibling = stages.iter().any(|(_, other)| other != stage && *other == name);
            assert!(!sibling, "{}:{line} uses another stage: {name}", file.display());
        }
    }
}

#[test]
fn unsafe_code_is_confined_to_the_allowlist() {
    for root in SAFE {
        let text = fs::read_to_string(Path::new(root).join("lib.rs")).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{root} does not forbid unsafe code");
    }
    let mut violations = String::new();
    for file in
        source_files("crates").iter().filter(|file| !UNSAFE.iter().any(|place| file.starts_with(place)))
    {
        walk(tokens(file), &mut |tree| {
            if matches!(tree, TokenTree::Ident(word) if word == "unsafe") {
                writeln!(violations, "{}:{}", file.display(), tree.span().start().line).unwrap();
            }
        });
    }
    assert!(violations.is_empty(), "unsafe code outside the allowlist:\n{violations}");
}

#[test]
fn the_scanner_finds_every_form_of_path() {
    let source = r##"
        //! Not [`crate::cli`].
        use crate::data::{Tokenizer, self};
        use crate::torch;
        use crate::run_dir as place;
        pub(crate) use crate::model::Model;
        fn f() { println!("crate::plan {}", crate::train::steps("use crate::plan;")); } // crate::plan
    "##;
    let paths = paths_from(&CRATE, TokenStream::from_str(source).unwrap());
    let first: Vec<&str> = paths.iter().map(|(_, path)| path[0].as_str()).collect();
    assert_eq!(first, ["data", "data", "torch", "run_dir", "model", "train"]);
}

fn source_files(root: &str) -> Vec<PathBuf> {
    fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    collect(Path::new(root), &mut files);
    // lib.rs declares the modules, so it is above all layers.
    files.retain(|file| *file != Path::new(root).join("lib.rs"));
    files.sort();
    files
}

/// `src/plan/memory.rs` and `src/plan.rs` belong to `plan`.
fn layer_of(file: &Path, root: &str) -> String {
    file.strip_prefix(root).unwrap().components().next().map(stem).unwrap()
}

fn stem(component: std::path::Component<'_>) -> String {
    Path::new(component.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned()
}

fn tokens(file: &Path) -> TokenStream {
    let source = fs::read_to_string(file).unwrap();
    TokenStream::from_str(&source).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The paths that start at one of `roots`, without that root, with their lines; a braced list yields one path per
/// entry.
fn paths_from(roots: &[&str], stream: TokenStream) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for sequence in sequences(stream) {
        for (at, tree) in sequence.iter().enumerate() {
            if matches!(tree, TokenTree::Ident(word) if roots.iter().any(|root| word == root)) {
                let line = tree.span().start().line;
                let paths = paths_after(&sequence[at + 1..]);
                // `pub(crate)` names the root without a path.
                found.extend(paths.into_iter().filter(|path| !path.is_empty()).map(|path| (line, path)));
            }
        }
    }
    found
}

/// The paths that continue from here: `::a::b` is one, `::{a, b::c}` two.
fn paths_after(rest: &[TokenTree]) -> Vec<Vec<String>> {
    let colon =
        |tree: Option<&TokenTree>| matches!(tree, Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
    if !(colon(rest.first()) && colon(rest.get(1))) {
        return vec![Vec::new()];
    }
    match rest.get(2) {
        Some(TokenTree::Ident(name)) => {
            let mut paths = paths_after(&rest[3..]);
            paths.iter_mut().for_each(|path| path.insert(0, name.to_string()));
            paths
        }
        Some(TokenTree::Group(list)) if list.delimiter() == Delimiter::Brace => {
            let entries: Vec<TokenTree> = list.stream().into_iter().collect();
            entries
                .split(|tree| matches!(tree, TokenTree::Punct(mark) if mark.as_char() == ','))
                .filter_map(|entry| match entry.split_first()? {
                    (TokenTree::Ident(name), rest) => Some((name.to_string(), rest)),
                    _ => None,
                })
                .flat_map(|(name, rest)| {
                    paths_after(rest).into_iter().map(move |mut path| {
                        path.insert(0, name.clone());
                        path
                    })
                })
                .collect()
        }
        _ => vec![Vec::new()],
    }
}

/// The tokens of the stream and, recursively, of each delimited group, each as one sequence.
fn sequences(stream: TokenStream) -> Vec<Vec<TokenTree>> {
    let sequence: Vec<TokenTree> = stream.into_iter().collect();
    let inner: Vec<_> = sequence
        .iter()
        .filter_map(|tree| match tree {
            TokenTree::Group(group) => Some(sequences(group.stream())),
            _ => None,
        })
        .flatten()
        .collect();
    std::iter::once(sequence).chain(inner).collect()
}

fn walk(stream: TokenStream, visit: &mut dyn FnMut(&TokenTree)) {
    for tree in stream {
        visit(&tree);
        if let TokenTree::Group(group) = tree {
            walk(group.stream(), visit);
        }
    }
}
