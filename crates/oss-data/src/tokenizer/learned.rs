//! A byte-pair vocabulary learnt from the text itself.

use std::path::Path;

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Trainer};

use super::hugging_face::HuggingFace;
use super::{END_OF_TEXT, TokenizerError, byte_level, segments::segments, tiktoken};
use crate::Document;

/// Bytes of text that a vocabulary is learnt from, at most: the first of the source.
const SAMPLE: usize = 64 * 1024 * 1024;

/// Learns a vocabulary of exactly `entries` (the 256 bytes, merged pairs, and end-of-text last) from the first 64 MiB
/// of `documents`. The same text gives the same vocabulary, whatever the number of threads.
///
/// # Errors
/// What reading the documents or `keep_going`, asked before each document, returns; and
/// [`TokenizerError::TooFewEntries`] where the text repeats too little for so many pairs.
pub(super) fn learn(
    documents: impl Iterator<Item = anyhow::Result<Document>> + Send,
    entries: u32,
    keep_going: &(dyn Fn() -> anyhow::Result<()> + Sync),
) -> anyhow::Result<HuggingFace> {
    // serde_json is the crate's own way in, and keeps this the pre-tokenizer that the saved file describes.
    let pre_tokenizer: tokenizers::PreTokenizerWrapper =
        serde_json::from_value(byte_level::pre_tokenizer(tiktoken::O200K))?;
    let cut = |text: &str| {
        let mut pieces = PreTokenizedString::from(text);
        pre_tokenizer.pre_tokenize(&mut pieces)?;
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(pieces.into_iter().map(|(piece, _, _)| piece.to_owned()).collect())
    };
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(entries as usize - 1)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut failure = None;
    trainer.feed(sample(documents, keep_going, &mut failure), cut).map_err(crate_error)?;
    if let Some(error) = failure {
        return Err(error);
    }
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(crate_error)?;
    keep_going()?;

    let found = tokenizers::Model::get_vocab_size(&model) as u32 + 1;
    if found < entries {
        return Err(TokenizerError::TooFewEntries { wanted: entries, found }.into());
    }
    let mut learnt = tokenizers::Tokenizer::new(model);
    learnt.with_pre_tokenizer(Some(pre_tokenizer));
    learnt.with_decoder(Some(ByteLevel::new(false, false, false)));
    learnt.add_special_tokens(&[AddedToken::from(END_OF_TEXT, true)]);
    let json = learnt.to_string(false).map_err(crate_error)?;
    Ok(HuggingFace::parse(json, Some(END_OF_TEXT), Path::new("tokenizer.json"))?)
}

/// The pieces of text to learn from; the first error ends them and is left in `failure`.
fn sample<'a>(
    documents: impl Iterator<Item = anyhow::Result<Document>> + Send + 'a,
    keep_going: &'a (dyn Fn() -> anyhow::Result<()> + Sync),
    failure: &'a mut Option<anyhow::Error>,
) -> impl Iterator<Item = String> + Send + 'a {
    let mut left = SAMPLE;
    documents
        .map_while(move |document| {
            let text = keep_going().and(document).map(|document| document.text);
            match text {
                Ok(text) if left > 0 => {
                    let end = text.floor_char_boundary(left);
                    left = left.saturating_sub(text.len());
                    Some(segments(text[..end].trim()).map(str::to_owned).collect::<Vec<_>>())
                }
                Ok(_) => None,
                Err(error) => {
                    *failure = Some(error);
                    None
                }
            }
        })
        .flatten()
}

fn crate_error(error: tokenizers::Error) -> anyhow::Error {
    anyhow::anyhow!("learning the vocabulary failed: {error}")
}
