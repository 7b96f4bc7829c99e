//! Encoding with o200k: oss-run against `tiktoken-rs`, and against `toktok`, the fastest known exact encoder.
//!
//!     cargo bench --bench tokenize [-- FILE]
//!
//! The texts are the built-in stories and, if given, a file whose documents end with `<|endoftext|>`. Prints one JSON
//! document; fails if any two encoders disagree. Each figure is the best of several rounds, in which the encoders alternate.

#![expect(clippy::print_stdout, reason = "its output is data")]

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use oss_config::{Builtin, TokenizerChoice};
use oss_data::Tokenizer;
use oss_data::sources::{Corpus, CorpusRange};
use rayon::prelude::*;
use serde_json::json;

const NUM_STORIES: u64 = 10_000;
const ROUNDS: usize = 5;

type Encode<'a> = dyn Fn(&str) -> Vec<u32> + Sync + 'a;

/// An encoder to compare.
struct Encoder<'a> {
    name: &'static str,
    encode: Box<Encode<'a>>,
    best_seconds: [f64; 2],
}

fn main() -> Result<()> {
    // cargo adds `--bench` to the arguments.
    let file = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let corpus = Corpus { builtin: Builtin::Stories, range: CorpusRange::TRAINING };
    let mut texts = vec![(
        "stories".to_owned(),
        (0..NUM_STORIES).map_while(|n| Some(corpus.document(n)?.text)).collect::<Vec<_>>(),
    )];
    if let Some(path) = file {
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let documents = text.split("<|endoftext|>").map(|document| document.trim().to_owned());
        texts.push((path.clone(), documents.filter(|document| !document.is_empty()).collect()));
    }
    let measured =
        texts.iter().map(|(name, documents)| measure(name, documents)).collect::<Result<Vec<_>>>()?;
    println!("{}", json!({ "texts": measured, "threads": rayon::current_num_threads() }));
    Ok(())
}

fn measure(name: &str, documents: &[String]) -> Result<serde_json::Value> {
    let ours = Tokenizer::load(&TokenizerChoice::Named("o200k_harmony".into()), None)?;
    // The encoder that tiktoken-rs returns for a model's encoding.
    let tiktoken = tiktoken_rs::o200k_harmony()?;
    let toktok = toktok::Tokenizer::builtin("o200k_harmony").map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let best_seconds = [f64::INFINITY; 2];
    let mut encoders = [
        Encoder {
            name: "tiktoken-rs",
            encode: Box::new(|text| tiktoken.encode_with_special_tokens(text)),
            best_seconds,
        },
        Encoder { name: "toktok", encode: Box::new(|text| toktok.encode(text.as_bytes())), best_seconds },
        Encoder {
            name: "oss-run",
            encode: Box::new(|text| ours.encode(text).unwrap_or_default()),
            best_seconds,
        },
    ];
    let bytes: usize = documents.iter().map(String::len).sum();
    let mut expected = None;
    for _ in 0..ROUNDS {
        for Encoder { name: encoder, encode, best_seconds } in &mut encoders {
            let encode = &**encode;
            for (best, parallel) in best_seconds.iter_mut().zip([false, true]) {
                let started = Instant::now();
                let tokens: Vec<Vec<u32>> = if parallel {
                    documents.par_iter().map(|document| encode(document)).collect()
                } else {
                    documents.iter().map(|document| encode(document)).collect()
                };
                *best = best.min(started.elapsed().as_secs_f64());
                ensure!(
                    *expected.get_or_insert(tokens.clone()) == tokens,
                    "{encoder} gives different tokens for {name}"
                );
            }
        }
    }
    let tokens: usize = expected.iter().flatten().map(Vec::len).sum();
    let encoders = encoders.map(|Encoder { name, best_seconds: [one, all], .. }| {
        json!({ "name": name, "seconds_on_one_thread": one, "seconds_on_all_threads": all })
    });
    Ok(json!({ "name": name, "bytes": bytes, "tokens": tokens, "encoders": encoders }))
}
