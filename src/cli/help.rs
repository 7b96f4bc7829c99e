//! Additions to `--help`: grouped commands, and examples to copy.

use clap::Command;

/// Help groups and their commands, in the order of use. Commands not listed here form the last group.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Start", &["init", "doctor", "schema", "completions"]),
    ("Run", &["plan", "run", "resume", "sweep", "reproduce"]),
    ("Inspect", &["ls", "show", "diff", "report", "evaluate", "sample"]),
    ("Export", &["export"]),
    ("Manage", &["label", "rm", "gc"]),
];

/// Heading of the last group.
const OTHERS: &str = "Debug";

/// Examples for each command; the text after `#` explains the line.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "init",
        &[
            "oss-run init mine                                # a story model, trained in minutes on a CPU",
            "oss-run init experiments/law --template text     # from your own files",
        ],
    ),
    (
        "doctor",
        &[
            "oss-run doctor                                   # one line per check, with a fix for each problem",
            "oss-run doctor --runs-dir /scratch/runs --json",
        ],
    ),
    (
        "plan",
        &[
            "oss-run plan mine.toml                           # stages, parameters, memory, tokens",
            "oss-run plan mine.toml --explain                 # every value, and where it was set",
            "oss-run plan mine.toml --calibrate               # estimate the training time on this machine",
            "oss-run plan mine.toml --graph mermaid           # the stages as a diagram for Markdown",
            "oss-run plan experiments/20b_tinystories.toml --dry-run --rank 3",
        ],
    ),
    (
        "run",
        &[
            "oss-run mine.toml                                # short for `oss-run run mine.toml`",
            "oss-run mine.toml --set optimizer.lr=1e-3 --set train.steps=2000",
            "oss-run mine.toml --until train --stop-at-step 500",
        ],
    ),
    (
        "resume",
        &[
            "oss-run resume last                              # the newest run, from its newest checkpoint",
            "oss-run resume mine --set train.max_minutes=60",
        ],
    ),
    (
        "sweep",
        &[
            "oss-run sweep experiments/sweeps/lr.toml --dry-run   # list the trials without running them",
            "oss-run experiments/sweeps/lr.toml               # run all trials; again, only the missing ones",
            "oss-run sweep mine.toml --parallel 2 --retry-failed",
        ],
    ),
    (
        "ls",
        &[
            "oss-run ls                                       # every run, newest last",
            "oss-run ls --where optimizer.lr=1e-3 --sort val_loss",
            "oss-run ls --csv > runs.csv",
        ],
    ),
    ("show", &["oss-run show last", "oss-run show mine --json"]),
    ("diff", &["oss-run diff mine last                           # values, data, code, metrics"]),
    ("label", &["oss-run label last team=blue --notes \"the good one\"", "oss-run label last --remove team"]),
    ("rm", &["oss-run rm 3fa9 --yes                            # a unique prefix of the id is enough"]),
    ("gc", &["oss-run gc --dry-run                             # what would be removed", "oss-run gc"]),
    ("report", &["oss-run report last", "oss-run report mine last --out both.html         # side by side"]),
    (
        "reproduce",
        &[
            "oss-run reproduce last                           # repeat the run from its manifest",
            "oss-run reproduce mine --steps 20                # only the first 20 steps",
        ],
    ),
    (
        "evaluate",
        &[
            "oss-run evaluate last                            # on the validation set",
            "oss-run evaluate mine --step 500 --data other.txt --json",
        ],
    ),
    (
        "sample",
        &[
            "oss-run sample last --prompt \"Once upon a time\"",
            "oss-run sample mine --prompt \"One day,\" --temperature 0.8 --top-k 50 --num-samples 3",
            "oss-run sample last --prompt \"The end\" --greedy --weights int8",
        ],
    ),
    (
        "export",
        &[
            "oss-run export last                              # replaces the run's own export",
            "oss-run export mine --step 500 --dtype f32 --out copy",
        ],
    ),
    ("batches", &["oss-run batches last --steps 0..2 --json         # the tokens of the first two steps"]),
    ("logits", &["oss-run logits last --prompt \"Once\" --json       # one row per token"]),
    (
        "schema",
        &["oss-run schema > schema.json                     # refer to it with `#:schema schema.json`"],
    ),
    (
        "completions",
        &[
            "oss-run completions bash > ~/.local/share/bash-completion/completions/oss-run",
            "oss-run completions fish > ~/.config/fish/completions/oss-run.fish",
        ],
    ),
];

/// Adds groups to the help of `program`, and examples to the help of its commands.
pub fn with_help(program: Command) -> Command {
    let listing = listing(&program);
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{listing}\nOptions:\n{{options}}{{after-help}}"
    );
    let program = program
        .help_template(template)
        .after_help("See `oss-run COMMAND --help` for a command's options and examples.");
    EXAMPLES.iter().fold(program, |program, (name, lines)| {
        program.mut_subcommand(name, |command| {
            command.after_long_help(format!("Examples:\n  {}", lines.join("\n  ")))
        })
    })
}

/// The grouped commands, each with its one-line description.
fn listing(program: &Command) -> String {
    let known = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let others = program.get_subcommands().filter(|command| !known(command.get_name()));
    let mut text = String::new();
    let groups = GROUPS.iter().map(|(heading, names)| {
        (*heading, names.iter().filter_map(|name| program.find_subcommand(name)).collect::<Vec<_>>())
    });
    for (heading, commands) in groups.chain([(OTHERS, others.collect())]) {
        if commands.is_empty() {
            continue;
        }
        text.push_str(&format!("{heading}:\n"));
        for command in commands {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            text.push_str(&format!("  {:<12} {about}\n", command.get_name()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::arguments::program;
    use super::*;

    /// Splits a line like a shell: quotes group words; `#` and redirections end it.
    fn words(line: &str) -> Vec<String> {
        let line = line.split(['#', '>']).next().unwrap_or_default();
        let cut = line.split('"').enumerate().flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        cut.collect()
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        for command in program().get_subcommands() {
            let name = command.get_name();
            let (_, lines) = EXAMPLES
                .iter()
                .find(|(other, _)| *other == name)
                .unwrap_or_else(|| panic!("`{name}` has no examples; add some to EXAMPLES in {}", file!()));
            for line in *lines {
                let mut words = words(line);
                assert_eq!(words[0], "oss-run", "{line}");
                if words[1].ends_with(".toml") {
                    // A file with a [sweep] section runs a sweep.
                    words.insert(1, name.to_owned());
                }
                assert_eq!(words[1], name, "{line}");
                program().try_get_matches_from(words).unwrap_or_else(|error| panic!("{line}\n{error}"));
            }
        }
    }

    #[test]
    fn the_help_groups_every_command_once() {
        let help = program().render_help().to_string();
        for command in program().get_subcommands() {
            let line = format!("\n  {:<12} ", command.get_name());
            assert_eq!(help.matches(&line).count(), 1, "{}\n{help}", command.get_name());
        }
        assert!(help.starts_with("One TOML file"), "{help}");
        assert!(help.contains("--runs-dir"), "{help}");
        let long = program().find_subcommand_mut("run").unwrap().render_long_help().to_string();
        assert!(long.contains("Examples:\n  oss-run mine.toml"), "{long}");
    }
}
