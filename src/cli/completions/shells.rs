//! The shells whose scripts are our own: those of clap do not join the words that readline splits, and end a key with a
//! space.

use std::ffi::OsString;
use std::io::{Error, Write};
use std::path::Path;

use clap::Command;
use clap_complete::CompletionCandidate;
use clap_complete::engine::complete;
use clap_complete::env::EnvCompleter;

/// A shell with a script of our own.
pub struct OwnScript {
    name: &'static str,
    script: &'static str,
    /// Writes a candidate, given the part of the word that the shell does not take for a part of it.
    write: fn(&CompletionCandidate, &str, &mut dyn Write) -> Result<(), Error>,
}

/// Bash.
pub const BASH: OwnScript =
    OwnScript { name: "bash", script: include_str!("oss-run.bash"), write: write_to_bash };

/// Zsh.
pub const ZSH: OwnScript =
    OwnScript { name: "zsh", script: include_str!("oss-run.zsh"), write: write_to_zsh };

impl EnvCompleter for OwnScript {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is(&self, name: &str) -> bool {
        name == self.name
    }

    fn write_registration(
        &self,
        variable: &str,
        _name: &str,
        _bin: &str,
        completer: &str,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let script = self.script.replace("VARIABLE", variable).replace("COMPLETER", &quoted(completer));
        out.write_all(script.as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut Command,
        words: Vec<OsString>,
        here: Option<&Path>,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let (words, before) = joined(words);
        candidates(command, words, here)?
            .iter()
            .try_for_each(|candidate| (self.write)(candidate, &before, out))
    }
}

fn write_to_bash(candidate: &CompletionCandidate, before: &str, out: &mut dyn Write) -> Result<(), Error> {
    let value = candidate.get_value().to_string_lossy();
    // Readline replaces only the word that it knows.
    match value.strip_prefix(before) {
        Some(rest) => writeln!(out, "{}", quoted(rest)),
        None => Ok(()),
    }
}

fn write_to_zsh(candidate: &CompletionCandidate, _before: &str, out: &mut dyn Write) -> Result<(), Error> {
    let value = candidate.get_value().to_string_lossy().replace('\\', "\\\\").replace(':', "\\:");
    let help = candidate.get_help().map(|help| help.to_string()).unwrap_or_default();
    match help.lines().next() {
        Some(help) => writeln!(out, "{value}:{}", help.replace('\\', "\\\\")),
        None => writeln!(out, "{value}"),
    }
}

/// The candidates for the last word. Options are left out until a dash is typed, unless there is nothing else.
fn candidates(
    command: &mut Command,
    words: Vec<OsString>,
    here: Option<&Path>,
) -> Result<Vec<CompletionCandidate>, Error> {
    let Some(last) = words.len().checked_sub(1) else { return Ok(Vec::new()) };
    let is_empty = words[last].is_empty();
    let mut candidates = complete(command, words, last, here)?;
    let is_option =
        |candidate: &CompletionCandidate| candidate.get_value().as_encoded_bytes().starts_with(b"-");
    if is_empty && !candidates.iter().all(is_option) {
        candidates.retain(|candidate| !is_option(candidate));
    }
    Ok(candidates)
}

/// Joins the words that readline split at `=`, `:` and `@`. Also returns the part of the last word that readline does
/// not take for a part of it.
pub(super) fn joined(words: Vec<OsString>) -> (Vec<OsString>, String) {
    let is_break = |word: &OsString| ["=", ":", "@"].iter().any(|mark| word == mark);
    let mut joined: Vec<OsString> = Vec::new();
    let mut before = String::new();
    let mut after_break = false;
    for word in words {
        let is_break = is_break(&word);
        match joined.last_mut().filter(|_| is_break || after_break) {
            Some(last) => {
                before = last.to_string_lossy().into_owned();
                last.push(word);
            }
            None => {
                before.clear();
                joined.push(word);
            }
        }
        after_break = is_break;
    }
    (joined, before)
}

/// `text` with the characters quoted that have a meaning in a shell.
fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_./=:@%+,~".contains(letter);
    let letter = |letter: char| if is_plain(letter) { letter.to_string() } else { format!("\\{letter}") };
    text.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_split_by_readline_are_joined() {
        for (words, whole, before) in [
            (&["oss-run", "run", "--set", "train"][..], &["oss-run", "run", "--set", "train"][..], ""),
            (&["--set", "a.b", "=", ""], &["--set", "a.b="], "a.b="),
            (&["--set", "a.b", "=", "c"], &["--set", "a.b=c"], "a.b="),
            (&["--set", "a.b", "=", "c", "--set", ""], &["--set", "a.b=c", "--set", ""], ""),
            (&["--until", "=", "tr"], &["--until=tr"], "--until="),
            (&["--set", "a", "=", "b", "@", "c"], &["--set", "a=b@c"], "a=b@"),
        ] {
            let given = words.iter().map(OsString::from).collect();
            let expected = (whole.iter().map(OsString::from).collect(), before.to_owned());
            assert_eq!(joined(given), expected, "{words:?}");
        }
    }

    #[test]
    fn file_names_are_quoted() {
        assert_eq!(quoted("my file (1).toml"), "my\\ file\\ \\(1\\).toml");
        assert_eq!(quoted("optimizer.lr="), "optimizer.lr=");
    }
}
