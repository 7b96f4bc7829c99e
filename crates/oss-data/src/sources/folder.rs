//! The data files of a directory.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oss_config::error::UserError;

use super::format::{Format, SUPPORTED};

/// Files about the data, not part of it, which `datasets` also leaves out.
const METADATA: [&str; 5] =
    ["config.json", "dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"];

/// Every supported file in `folder` and its subdirectories, sorted by path. Hidden files and directories, and the files
/// that describe a dataset, are left out.
///
/// # Errors
/// If a directory cannot be read, or there is no such file.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(folder, &mut HashSet::new(), &mut found)?;
    if found.is_empty() {
        bail!(
            UserError::failed(format!("{}: the directory contains no data files", folder.display()))
                .hint(format!("name a directory with files that end in {SUPPORTED}"))
        );
    }
    found.sort();
    Ok(found)
}

/// `entered` guards against symbolic links that lead back up.
fn collect(folder: &Path, entered: &mut HashSet<PathBuf>, found: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = || format!("cannot read the directory {}", folder.display());
    if !entered.insert(folder.canonicalize().with_context(unreadable)?) {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || METADATA.contains(&&*name) {
            continue;
        }
        if path.is_dir() {
            collect(&path, entered, found)?;
        } else if Format::of_path(&path).is_ok() {
            found.push(path);
        }
    }
    Ok(())
}
