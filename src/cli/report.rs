//! `oss-run report`: write an HTML report on one or more runs.

use std::path::PathBuf;

use anyhow::{Context, Result};
use chrono::Utc;
use clap::Args;

use super::completions;
use super::output::print;
use crate::report::{Report, best_runs};
use crate::runs::select::select;
use crate::sweep::Results;
use oss_config::error::Hint;
use oss_runs::run_dir::{RunsDir, write_atomic};

/// Number of a sweep's best runs whose curves are shown by default: as many as there are distinct colors.
const BEST_RUNS: usize = 8;

/// Arguments of `oss-run report`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Runs to include: paths, ids (or unique prefixes), names, `last`, or patterns such as 'mine/*'
    #[arg(value_name = "RUN", add = completions::runs(), required_unless_present = "sweep")]
    runs: Vec<String>,
    /// Sweep to include, by the name of its folder: its trials, and the curves of its 8 best runs unless runs are given
    #[arg(long, value_name = "NAME", add = completions::sweeps())]
    sweep: Option<String>,
    /// Output file [default: report.html in the run directory; for several runs or a sweep, in the current directory]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Writes the report and prints its path. Runs are not modified, and may be in progress.
pub fn report(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let sweep = arguments.sweep.as_ref().map(|name| Results::read(runs, name)).transpose()?;
    let mut shown = select(runs, &arguments.runs)?;
    let out = match (&arguments.out, shown.as_slice(), &sweep) {
        (Some(out), ..) => out.clone(),
        (None, [run], None) => run.report(),
        _ => PathBuf::from("report.html"),
    };
    if let (Some(sweep), []) = (&sweep, shown.as_slice()) {
        shown = best_runs(sweep, runs, BEST_RUNS);
    }
    let page = Report::load(&shown, sweep, Utc::now())?.to_html();
    write_atomic(&out, |file| file.write_all(page.as_bytes()))
        .with_context(|| format!("cannot write {}", out.display()))
        .hint("choose another file with --out")?;
    print(&format!("{}\n", out.display()))
}
