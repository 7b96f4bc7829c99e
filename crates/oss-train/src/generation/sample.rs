//! Samples text from an experiment's prompts.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Decoding, Prompt, generate};
use crate::distributed::Mesh;
use crate::model::Chain;
use oss_config::Sample;
use oss_config::error::UserError;
use oss_data::Tokenizer;

/// A sampled continuation of a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampledText {
    /// The prompt.
    pub prompt: String,
    /// The tokens of the prompt.
    pub prompt_tokens: Vec<i64>,
    /// The generated tokens, including a final end-of-text.
    pub tokens: Vec<i64>,
    /// The generated text without end tokens, truncated before the first `stop` string.
    pub text: String,
}

/// Continues each prompt of `sample` `num_samples` times. An empty prompt starts from end-of-text.
///
/// `progress` receives the number of tokens generated per sequence so far and may abort sampling with an error, which
/// it must do on all ranks of `mesh` alike.
pub fn sample(
    chain: &Chain<'_>,
    mesh: &Mesh,
    tokenizer: &Tokenizer,
    sample: &Sample,
    progress: impl FnMut(u64) -> Result<()>,
) -> Result<Vec<SampledText>> {
    let vocab = crate::model::vocab_size(chain.model);
    let end_tokens: Vec<i64> =
        std::iter::once(tokenizer.end_of_text()).chain(tokenizer.special_ids().end).map(i64::from).collect();
    let mut prompts = Vec::new();
    let mut texts = Vec::new();
    for text in &sample.prompts {
        let mut tokens: Vec<i64> = tokenizer.encode(text)?.into_iter().map(i64::from).collect();
        if tokens.is_empty() {
            tokens.push(i64::from(tokenizer.end_of_text()));
        }
        ensure!(
            tokens.iter().all(|&token| token < vocab),
            UserError::failed(format!("prompt {text:?} has token IDs beyond model.vocab_size = {vocab}"))
                .hint("use the tokenizer that the model was trained with")
        );
        for _ in 0..sample.num_samples {
            prompts.push(Prompt { tokens: tokens.clone(), stream: prompts.len() as u64 });
            texts.push(text.clone());
        }
    }
    let decoding = Decoding {
        max_new_tokens: sample.max_new_tokens,
        temperature: sample.temperature,
        top_k: sample.top_k,
        top_p: sample.top_p,
        seed: sample.seed,
        end_tokens: end_tokens.clone(),
    };
    let text_of = |tokens: &[i64]| {
        let kept: Vec<u32> =
            tokens.iter().filter(|token| !end_tokens.contains(token)).map(|&token| token as u32).collect();
        tokenizer.decode(&kept)
    };
    let cut = |text: &str| sample.stop.iter().filter_map(|stop| text.find(stop.as_str())).min();
    let stop = |_: usize, tokens: &[i64]| !sample.stop.is_empty() && cut(&text_of(tokens)).is_some();
    let added = generate(chain, mesh, &prompts, &decoding, stop, progress)?;
    Ok(prompts
        .into_iter()
        .zip(texts)
        .zip(added)
        .map(|((prompt, text_of_prompt), tokens)| {
            let mut text = text_of(&tokens);
            if let Some(end) = cut(&text) {
                text.truncate(end);
            }
            SampledText { prompt: text_of_prompt, prompt_tokens: prompt.tokens, tokens, text }
        })
        .collect())
}
