//! Errors in bringing up and coordinating ranks.

use std::io;

use oss_config::error::{ErrorReport, UserError, user_errors};

/// Why ranks cannot work together.
#[derive(Debug)]
pub enum WorldError {
    /// The address is in use.
    PortInUse {
        /// The address.
        host: String,
        /// The port.
        port: u16,
        /// The operating system's error.
        cause: io::Error,
    },
    /// No store answers at the address.
    NoStore {
        /// The rank that tried to connect.
        rank: usize,
        /// The address.
        host: String,
        /// The port.
        port: u16,
        /// How long it tried, in seconds.
        seconds: u64,
    },
    /// Some ranks did not join or respond in time.
    Absent {
        /// The rank that waited.
        rank: usize,
        /// The ranks it waited for.
        missing: String,
        /// How long it waited, in seconds.
        seconds: u64,
    },
    /// Two processes have the same rank.
    Twice {
        /// Their rank.
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
        /// What is different.
        what: &'static str,
        /// How to fix it.
        fix: &'static str,
    },
    /// A rank failed.
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
                    .hint("another run may be using it; set MASTER_PORT to a free port")
                    .because(cause)
            }
            WorldError::NoStore { rank, host, port, seconds } => {
                Self::failed(format!("rank {rank} could not connect to {host}:{port} within {seconds} s"))
                    .hint(
                        "check that rank 0 is running, check MASTER_ADDR, MASTER_PORT and the firewall, \
                     or raise sharding.timeout_seconds",
                    )
            }
            WorldError::Absent { rank, missing, seconds } => {
                Self::failed(format!("rank {rank} timed out after {seconds} s waiting for {missing}"))
                    .hint("check the logs of the missing ranks, or raise sharding.timeout_seconds")
            }
            WorldError::Twice { rank, host, port } => {
                Self::failed(format!("two processes claim to be rank {rank} of the run at {host}:{port}"))
                    .hint("another run uses the same address; set MASTER_PORT to another port")
            }
            WorldError::Different { rank, pid, host, what, fix } => {
                Self::failed(format!("rank {rank} (pid {pid} on {host}) has a different {what} than rank 0"))
                    .hint(fix)
            }
            WorldError::Failed { rank, report } => report.into_error(format!("rank {rank} failed")),
        }
    }
}

user_errors!(WorldError);
