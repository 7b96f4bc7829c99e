//! Which stages rerun when a value changes, and the documentation page about it.

#[cfg(test)]
mod tests;

use std::fmt::Write;

use super::table::{Part, Role, TABLE};
use oss_runs::run_dir::Stage;

/// The stages that rerun after a change to a value with this role, in order.
pub fn stale_stages(role: Role) -> Vec<Stage> {
    let parts = match role {
        Role::Value(parts) | Role::Content(parts) => parts,
        Role::Recorded => &[],
    };
    Stage::ALL.into_iter().filter(|stage| parts.iter().any(|part| reached(*part).contains(stage))).collect()
}

/// The stages affected by a change in one part: those whose key it enters, and those that read their outputs.
fn reached(part: Part) -> &'static [Stage] {
    match part {
        Part::Prepare => &Stage::ALL,
        Part::Validation => &[Stage::Prepare, Stage::Evaluate],
        Part::TrainingFingerprint | Part::Target => {
            &[Stage::Train, Stage::Evaluate, Stage::Sample, Stage::Export]
        }
        Part::Evaluate => &[Stage::Evaluate],
        Part::Sample => &[Stage::Sample],
        Part::Export => &[Stage::Export],
    }
}

/// Whether a value with this role determines the run's identity.
fn is_another_run(role: Role) -> bool {
    let (Role::Value(parts) | Role::Content(parts)) = role else { return false };
    parts.iter().any(|part| matches!(part, Part::Prepare | Part::TrainingFingerprint))
}

const INTRODUCTION: &str = "\
# Which stages rerun when a value changes

This page lists every key of the experiment file and the stages that rerun when its value changes. It is generated from
the table that the program itself uses; `OSS_RUN_BLESS=1 cargo test --test pages` regenerates it. For an experiment,
`oss-run plan EXPERIMENT.toml` shows which stages would run, and why.

- *another run*: the value affects the weights, so the changed experiment becomes another run in its own directory. The
  old run is left as it is. Tokens are shared between runs, so `prepare` reruns only if the text is tokenized or split
  differently.
- *this run*: only the marked stages rerun, and their outputs replace the old ones.
- *nothing*: the value is recorded, but affects only how the work is done, not its results.
- *by content*: the text or weights that a name or path refers to count, not the name or path itself.

Some values depend on others. Unless `schedule.decay_steps` is set, `train.steps` is also the end of a cosine or linear
schedule. It then affects learning rates, and changing it makes another run. `model.preset` stands for the fields it
sets. Writing out a value that equals the default changes nothing.
";

/// The page, in Markdown: a table for each section, in the order of the experiment file.
pub fn page() -> String {
    let mut page = String::from(INTRODUCTION);
    let mut last_section = "";
    for (key, role) in TABLE {
        let (section, name) = key.split_once('.').unwrap_or((key, ""));
        if section != last_section {
            last_section = section;
            page.push_str(&format!("\n## `[{section}]`\n\n| key | result | {} |\n", names().join(" | ")));
            page.push_str("|---|---|---|---|---|---|---|\n");
        }
        let stale = match *key {
            // The name is a folder: no key changes, but the run is not found under another name.
            "run.name" => reached(Part::TrainingFingerprint).to_vec(),
            _ => stale_stages(*role),
        };
        let marks = Stage::ALL.map(|stage| if stale.contains(&stage) { "rerun" } else { "" });
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
        ("run.name", _) => "another run, with that name",
        ("model.preset", _) => "as its fields",
        (_, Role::Recorded) => "nothing",
        _ if is_another_run(role) => "another run",
        (_, Role::Value(&[Part::Target])) => "this run, continued",
        _ => "this run",
    }
}
