//! Which stages a changed value makes run again, and the page that says so.

#[cfg(test)]
mod tests;

use std::fmt::Write;

use super::table::{Part, Role, TABLE};
use oss_runs::run_dir::Stage;

/// The stages that run again after a value of this role has changed, in their order.
pub fn stale_stages(role: Role) -> Vec<Stage> {
    let parts = match role {
        Role::Value(parts) | Role::Content(parts) => parts,
        Role::Recorded => &[],
    };
    Stage::ALL.into_iter().filter(|stage| parts.iter().any(|part| reached(*part).contains(stage))).collect()
}

/// The stages that hear of a change in one part: those whose key it enters, and those that read what they make.
fn reached(part: Part) -> &'static [Stage] {
    match part {
        Part::Prepare => &Stage::ALL,
        Part::Validation => &[Stage::Prepare, Stage::Evaluate],
        Part::Trajectory | Part::Target => &[Stage::Train, Stage::Evaluate, Stage::Sample, Stage::Export],
        Part::Evaluate => &[Stage::Evaluate],
        Part::Sample => &[Stage::Sample],
        Part::Export => &[Stage::Export],
    }
}

/// Whether a value of this role decides which run an experiment is.
fn is_another_run(role: Role) -> bool {
    let (Role::Value(parts) | Role::Content(parts)) = role else { return false };
    parts.iter().any(|part| matches!(part, Part::Prepare | Part::Trajectory))
}

const INTRODUCTION: &str = "\
# What a changed value makes stale

Every key of the experiment file, and the stages that run again when its value changes. This page is generated from the
table that the program itself looks things up in (`OSS_RUN_BLESS=1 cargo test --test pages` writes
it again). `oss-run plan EXPERIMENT.toml` says the same of an experiment before anything runs, with the reason.

- *another run*: the values decide which weights training passes through, so the experiment is another run in another
  directory, and the old one stays as it is. Tokens are shared by all runs, so `prepare` runs only where the text is cut
  otherwise.
- *this run*: only the stages marked run again, and take the place of what they made before.
- *nothing*: the value is recorded, and changes only how the work is done.
- Where a name or a path is *by content*, what counts is the text or the weights that it leads to.

Some values follow from others. `train.steps` is also the end of a cosine or linear schedule unless
`schedule.decay_steps` is set; then it decides learning rates, and a changed one is another run. `model.preset` means the
fields that it sets. A value that is written out and equal to its default changes nothing.
";

/// The page, in Markdown: a table for each section, in the order of the experiment file.
pub fn page() -> String {
    let mut page = String::from(INTRODUCTION);
    let mut last_section = "";
    for (key, role) in TABLE {
        let (section, name) = key.split_once('.').unwrap_or((key, ""));
        if section != last_section {
            last_section = section;
            page.push_str(&format!("\n## `[{section}]`\n\n| key | makes | {} |\n", names().join(" | ")));
            page.push_str("|---|---|---|---|---|---|---|\n");
        }
        let stale = match *key {
            // A name is a folder: no key moves, and under another name nothing is found.
            "run.name" => reached(Part::Trajectory).to_vec(),
            _ => stale_stages(*role),
        };
        let marks = Stage::ALL.map(|stage| if stale.contains(&stage) { "again" } else { "" });
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `{name}`{} | {} | {} |",
            by_content(*role),
            outcome(key, *role),
            marks.join(" | ")
        );
    }
    page
}

fn names() -> [&'static str; 5] {
    Stage::ALL.map(Stage::name)
}

fn by_content(role: Role) -> &'static str {
    if matches!(role, Role::Content(_)) { ", by content" } else { "" }
}

fn outcome(key: &str, role: Role) -> &'static str {
    match (key, role) {
        ("run.name", _) => "another run, of that name",
        ("model.preset", _) => "what its fields make",
        (_, Role::Recorded) => "nothing",
        _ if is_another_run(role) => "another run",
        (_, Role::Value(&[Part::Target])) => "this run, which goes on",
        _ => "this run",
    }
}
