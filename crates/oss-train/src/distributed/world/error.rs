//! What can keep ranks from working together.

use std::io;

use oss_config::error::{ErrorReport, UserError, user_errors};

/// Ranks that cannot work together.
#[derive(Debug)]
pub enum WorldError {
    /// The address is taken.
    PortInUse {
        /// The address.
        host: String,
        /// The port.
        port: u16,
        /// What the system says.
        cause: io::Error,
    },
    /// Nobody serves the store.
    NoStore {
        /// Who asks.
        rank: usize,
        /// The address.
        host: String,
        /// The port.
        port: u16,
        /// How long it was tried.
        seconds: u64,
    },
    /// Some ranks did not come.
    Absent {
        /// Who waits.
        rank: usize,
        /// Whom for.
        missing: String,
        /// How long.
        seconds: u64,
    },
    /// A rank's number was taken.
    Twice {
        /// The number.
        rank: usize,
        /// The address.
        host: String,
        /// The port.
        port: u16,
    },
    /// A rank differs from rank 0.
    Different {
        /// The rank.
        rank: usize,
        /// Its process.
        pid: u32,
        /// Its machine.
        host: String,
        /// What differs.
        what: &'static str,
        /// What to do.
        fix: &'static str,
    },
    /// A rank gave up.
    Failed {
        /// The rank.
        rank: usize,
        /// Its error.
        report: ErrorReport,
    },
}

impl From<WorldError> for UserError {
    fn from(error: WorldError) -> Self {
        match error {
            WorldError::PortInUse { host, port, cause } => {
                Self::failed(format!("rank 0 cannot listen on {host}:{port}"))
                    .hint("another run may use it: set MASTER_PORT to a free port")
                    .because(cause)
            }
            WorldError::NoStore { rank, host, port, seconds } => {
                Self::failed(format!("rank {rank} finds nobody at {host}:{port} within {seconds} s")).hint(
                    "check that rank 0 is running, and MASTER_ADDR, MASTER_PORT and the firewall, \
                     or raise sharding.timeout_seconds",
                )
            }
            WorldError::Absent { rank, missing, seconds } => {
                Self::failed(format!("rank {rank} waited {seconds} s for {missing}"))
                    .hint("look at the logs of those, or raise sharding.timeout_seconds")
            }
            WorldError::Twice { rank, host, port } => {
                Self::failed(format!("two processes are rank {rank} of the run at {host}:{port}"))
                    .hint("another run uses the same address: set MASTER_PORT to another port")
            }
            WorldError::Different { rank, pid, host, what, fix } => {
                Self::failed(format!("rank {rank} (process {pid} on {host}) has another {what} than rank 0"))
                    .hint(fix)
            }
            WorldError::Failed { rank, report } => report.into_error(format!("rank {rank} failed")),
        }
    }
}

user_errors!(WorldError);
