//! Trains a byte-pair tokenizer.

use std::path::Path;

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Trainer};

use super::hugging_face::HuggingFace;
use super::{END_OF_TEXT, TokenizerError, byte_level, segments::segments, tiktoken};
use crate::Document;

/// Maximum number of bytes of text to train a tokenizer on, taken from the start of the source.
const SAMPLE: usize = 64 * 1024 * 1024;

/// Trains a vocabulary of exactly `entries` (the 256 bytes, merged pairs, and end-of-text last) on the first 64 MiB of
/// `documents`. The same text gives the same vocabulary, for any number of threads.
///
/// # Errors
/// Errors of reading the documents, or of `keep_going`, which is called before each document; and
/// [`TokenizerError::TooFewEntries`] if the text has too few distinct pairs.
pub(super) fn train(
    documents: impl Iterator<Item = anyhow::Result<Document>> + Send,
    entries: u32,
    keep_going: &(dyn Fn() -> anyhow::Result<()> + Sync),
) -> anyhow::Result<HuggingFace> {
    // serde_json is the crate's own interface, and makes this the pre-tokenizer that the saved file describes.
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
    let mut trained = tokenizers::Tokenizer::new(model);
    trained.with_pre_tokenizer(Some(pre_tokenizer));
    trained.with_decoder(Some(ByteLevel::new(false, false, false)));
    trained.add_special_tokens(&[AddedToken::from(END_OF_TEXT, true)]);
    let json = trained.to_string(false).map_err(crate_error)?;
    Ok(HuggingFace::parse(json, Some(END_OF_TEXT), None, Path::new("tokenizer.json"))?)
}

/// The pieces of text to train on; the first error ends them and is stored in `failure`.
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
                    Some(segments(&text[..end]).map(str::to_owned).collect::<Vec<_>>())
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
    anyhow::anyhow!("training the tokenizer failed: {error}")
}
