//! What can keep ranks from working together.

/// Ranks that cannot work together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// The address is taken.
    #[error(
        "rank 0 cannot listen on {host}:{port} ({cause}); another run may use it: set MASTER_PORT to a free port"
    )]
    PortInUse {
        /// The address.
        host: String,
        /// The port.
        port: u16,
        /// What the system says.
        cause: String,
    },
    /// Nobody serves the store.
    #[error(
        "rank {rank} finds nobody at {host}:{port} within {seconds} s; check that rank 0 is running, and MASTER_ADDR, \
         MASTER_PORT and the firewall, or raise sharding.timeout_seconds"
    )]
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
    #[error(
        "rank {rank} waited {seconds} s for {missing}; look at the logs of those, or raise sharding.timeout_seconds"
    )]
    Absent {
        /// Who waits.
        rank: usize,
        /// Whom for.
        missing: String,
        /// How long.
        seconds: u64,
    },
    /// A rank's number was taken.
    #[error(
        "two processes are rank {rank} of the run at {host}:{port}; another run uses the same address: set MASTER_PORT \
         to another port"
    )]
    Twice {
        /// The number.
        rank: usize,
        /// The address.
        host: String,
        /// The port.
        port: u16,
    },
    /// A rank differs from rank 0.
    #[error("rank {rank} (process {pid} on {host}) has another {what} than rank 0; {fix}")]
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
    #[error("rank {rank} failed: {message}")]
    Failed {
        /// The rank.
        rank: usize,
        /// Its error.
        message: String,
    },
}
