//! `oss-run init`: create an experiment file from a template.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::output::print;
use oss_config::error::{Hint, UserError};
use oss_runs::run_dir::{write_atomic, write_json};

/// Arguments of `oss-run init`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name of the experiment: `mine` creates mine.toml, `experiments/mine` creates it in a folder
    name: PathBuf,
    /// Template to start from
    #[arg(long, value_name = "TEMPLATE", value_enum, default_value_t)]
    template: Template,
}

/// The templates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Template {
    /// Synthetic stories, trained in minutes on a CPU
    #[default]
    Stories,
    /// Your own text files
    Text,
    /// A dataset from the Hugging Face hub
    Hub,
    /// Fine-tuning of released weights; needs a large GPU
    Finetune,
    /// A model of 110 million parameters on one GPU
    Gpu,
    /// A hyperparameter sweep of short trials
    Sweep,
}

impl Template {
    fn text(self) -> &'static str {
        match self {
            Self::Stories => include_str!("init/stories.toml"),
            Self::Text => include_str!("init/text.toml"),
            Self::Hub => include_str!("init/hub.toml"),
            Self::Finetune => include_str!("init/finetune.toml"),
            Self::Gpu => include_str!("init/gpu.toml"),
            Self::Sweep => include_str!("init/sweep.toml"),
        }
    }

    /// What the user has to do before the file can be planned, if anything.
    fn first(self) -> Option<&'static str> {
        match self {
            Self::Text => Some("put .txt, .jsonl or .parquet files into a folder `texts` next to it"),
            Self::Stories | Self::Hub | Self::Finetune | Self::Gpu | Self::Sweep => None,
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// The schema file that the first line of each template refers to.
const SCHEMA: &str = "schema.json";

/// Writes the file and, unless there is one, the schema for editors next to it.
///
/// # Errors
/// The file exists already, or its folder cannot be written.
pub fn init(arguments: &Arguments) -> Result<()> {
    let file = experiment_file(&arguments.name)?;
    if file.exists() {
        let other = file.with_file_name(format!("{}-2", stem(&file)));
        let message = format!("{} already exists; nothing was changed", file.display());
        let hint = format!("choose another name, for example `oss-run init {}`", other.display());
        return Err(UserError::wrong(message).hint(hint).into());
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = || format!("cannot write to {}", folder.display());
    let hint = "make it writable, or choose another folder";
    std::fs::create_dir_all(folder).with_context(cannot).hint(hint)?;
    write_atomic(&file, |out| out.write_all(arguments.template.text().as_bytes()))
        .with_context(cannot)
        .hint(hint)?;
    let schema = folder.join(SCHEMA);
    if !schema.exists() {
        write_json(&schema, &oss_config::schema()).with_context(cannot).hint(hint)?;
    }
    print(&format!("{}\n", file.display()))?;
    if let Some(first) = arguments.template.first() {
        tracing::info!("first      {first}");
    }
    let look = match arguments.template {
        Template::Sweep => format!("oss-run sweep {} --dry-run", file.display()),
        _ => format!("oss-run plan {}", file.display()),
    };
    tracing::info!("next       {look}");
    tracing::info!("then       oss-run {}", file.display());
    Ok(())
}

/// `mine` and `mine.toml` mean the same file. Its stem becomes the run's name, and so the name of a directory.
fn experiment_file(name: &Path) -> Result<PathBuf, UserError> {
    let file = match name.extension() {
        Some(end) if end == "toml" => name.to_owned(),
        _ => PathBuf::from(format!("{}.toml", name.display())),
    };
    let stem = stem(&file);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_plain = !stem.starts_with('.') && stem.chars().all(plain);
    // `last` means the newest run.
    if name.file_name().is_none() || !is_plain || stem == "last" {
        let message = format!("invalid experiment name {:?}", name.display());
        return Err(UserError::wrong(message).hint("use letters, digits, `-`, `_` and `.`, but not `last`"));
    }
    Ok(file)
}

fn stem(file: &Path) -> String {
    file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::{Experiment, Overrides, load};

    #[test]
    fn every_template_loads_without_a_warning() {
        for template in Template::value_variants() {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("mine.toml");
            std::fs::write(&file, template.text()).unwrap();
            let resolved = load(&file, &Overrides::default()).unwrap_or_else(|errors| panic!("{errors}"));
            assert!(resolved.warnings.is_empty(), "{template}: {:?}", resolved.warnings);
            assert_ne!(resolved.experiment, Experiment::default(), "{template}");
            assert_eq!(resolved.sweep.is_some(), *template == Template::Sweep);
            assert!(template.text().starts_with(&format!("#:schema {SCHEMA}\n# ")), "{template}");
            assert!(template.text().lines().all(|line| line.len() <= 120), "{template}");
        }
    }

    #[test]
    fn experiment_names_become_file_names() {
        let file = |name: &str| experiment_file(Path::new(name)).map(|file| file.display().to_string());
        assert_eq!(file("mine").unwrap(), "mine.toml");
        assert_eq!(file("mine.toml").unwrap(), "mine.toml");
        assert_eq!(file("a/b/v1.2").unwrap(), "a/b/v1.2.toml");
        for wrong in ["", "..", "a/", "two words", ".toml", "a\nb", "last"] {
            assert!(file(wrong).is_err(), "{wrong:?}");
        }
    }
}
