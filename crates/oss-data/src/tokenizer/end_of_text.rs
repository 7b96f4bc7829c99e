//! Which token ends a text.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use super::{END_OF_TEXT, TokenizerError};

/// The token that ends every document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndOfText {
    /// Its spelling.
    pub token: String,
    /// Its ID.
    pub id: u32,
    /// Why it is this one.
    pub reason: EndOfTextReason,
}

/// Why a token ends a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndOfTextReason {
    /// The tokenizer is built in or trained here, and has this one.
    BuiltIn,
    /// `dataset.end_of_text` names it.
    Set,
    /// A file beside the tokenizer declares it as `eos_token`.
    Declared {
        /// Name of the file.
        file: &'static str,
    },
    /// It is a special token with a known name.
    KnownName {
        /// The declared `eos_token`, if that is an end of turn.
        end_of_turn: Option<String>,
    },
    /// A file beside the tokenizer declares it as `eos_token`. It is an end of turn, but no special token has a known
    /// name.
    EndOfTurn {
        /// Name of the file.
        file: &'static str,
    },
}

impl fmt::Display for EndOfText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, id, reason } = self;
        write!(f, "{token} (ID {id}), {reason}")
    }
}

impl fmt::Display for EndOfTextReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("part of the tokenizer"),
            Self::Set => f.write_str("set by dataset.end_of_text"),
            Self::Declared { file } => write!(f, "declared by {file}"),
            Self::KnownName { end_of_turn: None } => f.write_str("known by its name"),
            Self::KnownName { end_of_turn: Some(declared) } => {
                write!(f, "known by its name; the declared {declared} ends a turn")
            }
            Self::EndOfTurn { file } => {
                write!(f, "declared by {file}; it ends a turn, but no other end-of-text token is known")
            }
        }
    }
}

/// Names of the end-of-text token in published tokenizers: GPT-2 and most since, Llama 3 and Granite, Llama 2 and T5,
/// Gemma, DeepSeek, Cohere, Kimi.
const KNOWN_NAMES: [&str; 7] =
    [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<｜end▁of▁sentence｜>", "<EOS_TOKEN>", "[EOS]"];

/// Names of tokens that end a turn of a conversation, or a message in it. Chat models declare them as `eos_token`,
/// because that is where generation stops.
const ENDS_OF_TURN: [&str; 16] = [
    "<|eot_id|>",            // Llama 3
    "<|eom_id|>",            // Llama 3, before a tool's answer
    "<|eot|>",               // Llama 4
    "<|eom|>",               // Llama 4
    "<|im_end|>",            // ChatML: Qwen, SmolLM, Yi
    "<end_of_turn>",         // Gemma
    "<turn|>",               // Gemma 4
    "<|return|>",            // gpt-oss
    "<|end|>",               // gpt-oss, Phi
    "<|call|>",              // gpt-oss
    "<|end_of_turn|>",       // OpenChat, Starling
    "<|END_OF_TURN_TOKEN|>", // Cohere
    "[|endofturn|]",         // EXAONE
    "<|endofturn|>",         // HyperCLOVA X
    "<|assistant_end|>",     // nanochat
    "<|role_end|>",          // Ling
];

/// Files beside a tokenizer that can declare its `eos_token`, in order. `generation_config.json` is not among them: it
/// tells where generation stops, and tokenizers do not read it.
const DECLARING: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];

/// An `eos_token` and the file that declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declared {
    token: String,
    file: &'static str,
}

impl Declared {
    /// What the files beside the tokenizer `path` declare.
    ///
    /// # Errors
    /// A file exists and cannot be read, or is malformed.
    pub(super) fn beside(path: &Path) -> Result<Option<Self>, TokenizerError> {
        for file in DECLARING {
            let path = path.with_file_name(file);
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(TokenizerError::Config { path, reason: error.to_string() }),
            };
            match eos_token(&text) {
                Ok(Some(token)) => return Ok(Some(Self { token, file })),
                Ok(None) => {}
                Err(reason) => return Err(TokenizerError::Config { path, reason }),
            }
        }
        Ok(None)
    }

    fn ends_turn(&self) -> bool {
        ENDS_OF_TURN.contains(&self.token.as_str())
    }
}

/// The `eos_token` in the text of a file, given as a string or as an object.
fn eos_token(text: &str) -> Result<Option<String>, String> {
    if text.starts_with('\u{feff}') {
        return Err("it starts with a byte order mark".into());
    }
    let config: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match &config["eos_token"] {
        Value::Null => Ok(None),
        Value::String(token) => Ok(Some(token.clone())),
        object => match object["content"].as_str() {
            Some(token) => Ok(Some(token.to_owned())),
            None => Err(format!("its eos_token is {object}")),
        },
    }
}

/// The end-of-text token of the tokenizer at `path`: the `wanted` one; or the declared one, unless that ends a turn; or
/// a special token with a known name; or the declared one after all.
///
/// A token that is not special never ends a text because of its name alone: `</s>` may be a tag of HTML.
///
/// # Errors
/// There is no such token, or the tokenizer lacks the wanted or declared one.
pub(super) fn find(
    tokenizer: &tokenizers::Tokenizer,
    wanted: Option<&str>,
    declared: Option<&Declared>,
    path: &Path,
) -> Result<EndOfText, TokenizerError> {
    let with = |token: &str, reason| {
        let id = tokenizer.token_to_id(token)?;
        Some(EndOfText { token: token.to_owned(), id, reason })
    };
    if let Some(token) = wanted {
        let lacking = || TokenizerError::LacksEndOfText { token: token.into() };
        return with(token, EndOfTextReason::Set).ok_or_else(lacking);
    }
    if let Some(Declared { token, file }) = declared.filter(|declared| !declared.ends_turn()) {
        let lacking = || TokenizerError::Config {
            path: path.with_file_name(file),
            reason: format!("its eos_token is {token:?}, which the tokenizer lacks"),
        };
        return with(token, EndOfTextReason::Declared { file }).ok_or_else(lacking);
    }
    let special = |name: &&&str| tokenizer.get_added_vocabulary().is_special_token(name);
    let known = KNOWN_NAMES.iter().find(special).and_then(|name| {
        let end_of_turn = declared.map(|declared| declared.token.clone());
        with(name, EndOfTextReason::KnownName { end_of_turn })
    });
    let last = || {
        let Declared { token, file } = declared?;
        with(token, EndOfTextReason::EndOfTurn { file })
    };
    known.or_else(last).ok_or_else(|| TokenizerError::NoEndOfText { path: path.into() })
}

#[cfg(test)]
mod tests;
