//! The handshake: checks that all ranks belong to the same run.

use serde::{Deserialize, Serialize};

use super::error::WorldError;

/// What must be identical on all ranks of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Digest of the program.
    pub program: String,
    /// Digest of the resolved experiment or the command line.
    pub task: String,
}

/// What a rank sends to introduce itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub launch: String,
    pub host: String,
    pub pid: u32,
    pub fingerprint: Fingerprint,
}

/// How a rank differs from rank 0.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Difference {
    part: Part,
    host: String,
    pid: u32,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Part {
    Launch,
    Program,
    Task,
}

impl Difference {
    pub fn error(self, rank: usize) -> WorldError {
        let Self { part, host, pid } = self;
        let (what, fix) = match part {
            Part::Launch => {
                ("launch", "two runs use the same address; set MASTER_PORT to another port for one of them")
            }
            Part::Program => ("build of oss-run", "run the same executable on every machine"),
            Part::Task => (
                "experiment or command line",
                "start every rank with the same experiment file, options and OSS_RUN__ variables",
            ),
        };
        WorldError::Different { rank, pid, host, what, fix }
    }
}

/// The first rank that differs from rank 0.
pub(super) fn judge(hellos: &[Hello]) -> Option<(usize, Difference)> {
    let first = hellos.first()?;
    hellos.iter().enumerate().find_map(|(rank, other)| {
        let part = if other.launch != first.launch {
            Part::Launch
        } else if other.fingerprint.program != first.fingerprint.program {
            Part::Program
        } else if other.fingerprint.task != first.fingerprint.task {
            Part::Task
        } else {
            return None;
        };
        Some((rank, Difference { part, host: other.host.clone(), pid: other.pid }))
    })
}
