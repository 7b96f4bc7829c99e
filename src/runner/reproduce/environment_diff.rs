//! Differences between the environments of a run and its reproduction: programs, machines, threads.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::plan::Graph;
use crate::runner::session::segment_of;
use oss_runs::run_dir::{Manifest, Segment};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The property, such as `libtorch`.
    pub what: String,
    /// The original values; several if the run was started in several environments.
    pub then: String,
    /// The current value.
    pub now: String,
    /// Whether it may change the last bits of results.
    pub changes_bits: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, then, now, changes_bits } = self;
        let note = if *changes_bits { " (may change bits)" } else { "" };
        write!(f, "{what:<10} {then} -> {now}{note}")
    }
}

/// A property of a segment: its name, whether it may change bits, and its value.
type Fact = (&'static str, bool, fn(&Segment) -> String);

const FACTS: &[Fact] = &[
    ("program", true, |segment| segment.environment.program.clone()),
    ("libtorch", true, |segment| segment.libtorch.clone()),
    ("processor", true, |segment| segment.environment.host.cpu.clone()),
    ("devices", true, |segment| segment.devices.join(", ")),
    ("GPUs", true, |segment| {
        segment.environment.nvidia.as_ref().map_or("none".to_owned(), |nvidia| nvidia.gpus.join(", "))
    }),
    ("ranks", true, |segment| segment.ranks.to_string()),
    ("threads", true, |segment| segment.threads.to_string()),
    ("variables", true, |segment| {
        let variables = segment.environment.variables.iter().map(|(name, value)| format!("{name}={value}"));
        let shown = variables.collect::<Vec<_>>().join(" ");
        if shown.is_empty() { "none".to_owned() } else { shown }
    }),
    ("driver", false, |segment| {
        segment.environment.nvidia.as_ref().map_or("none".to_owned(), |nvidia| nvidia.driver.clone())
    }),
    ("system", false, |segment| segment.environment.host.system.clone()),
    ("host", false, |segment| segment.environment.host.name.clone()),
    ("git", false, |segment| match &segment.environment.git {
        None => "none".to_owned(),
        Some(git) => {
            let commit = git.commit.get(..12).unwrap_or(&git.commit);
            let diff = git.diff.as_ref().map_or("changes", |diff| diff.as_str());
            if git.dirty { format!("{commit} with {diff}") } else { commit.to_owned() }
        }
    }),
];

/// The differences from any start of the run in `manifest`.
pub fn differences(manifest: &Manifest, graph: &Graph) -> Vec<Difference> {
    let now = segment_of(graph, manifest.file.as_deref());
    differences_between(&manifest.segments, &now)
}

fn differences_between(segments: &[Segment], now: &Segment) -> Vec<Difference> {
    let difference = |(what, changes_bits, of): &Fact| {
        let then: BTreeSet<String> = segments.iter().map(of).collect();
        let now = of(now);
        let same = then.iter().all(|then| *then == now);
        (!same).then(|| Difference {
            what: (*what).to_owned(),
            then: then.into_iter().collect::<Vec<_>>().join(" and "),
            now,
            changes_bits: *changes_bits,
        })
    };
    FACTS.iter().filter_map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_reported() {
        let then = Segment { libtorch: "2.10.0".into(), threads: 2, ranks: 1, ..Segment::default() };
        let mut now = Segment { libtorch: "2.11.0".into(), ..then.clone() };
        now.environment.host.name = "here".into();
        let found = differences_between(&[then.clone(), then.clone()], &now);
        let shown: Vec<String> = found.iter().map(Difference::to_string).collect();
        assert_eq!(shown, ["libtorch   2.10.0 -> 2.11.0 (may change bits)", "host        -> here"]);
        assert_eq!(differences_between(std::slice::from_ref(&then), &then), []);
    }
}
