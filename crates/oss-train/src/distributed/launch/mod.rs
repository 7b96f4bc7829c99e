//! What the launcher and the ranks that it starts agree on: the variables, and that no rank outlives it.

mod outcome;
mod supervise;
mod tail;

use std::io::{self, Read};
use std::thread;

use rustix::process::{Signal, set_parent_process_death_signal};
use signal_hook::low_level::exit;

use oss_config::error::Status;
use oss_runs::interrupt;

pub use outcome::{ExitReason, Failure, Outcome};
pub use supervise::{GracePeriod, supervise};

/// Set for ranks that this program's own launcher started, whose standard input is the launcher's pipe.
pub(super) const LAUNCHED: &str = "OSS_RUN_LAUNCHER";

/// Set for a process whose standard input is a pipe that ends with whoever started it: [`exit_with_parent`] reads it.
pub const TIED: &str = "OSS_RUN_TIED";

/// What is written to a process that shall stop after its step, on a line for those that read lines.
pub const STOP: &[u8] = b"stop\n";

/// Whether our own launcher has started this process.
pub fn is_launched(env: &dyn Fn(&str) -> Option<String>) -> bool {
    env(LAUNCHED).is_some()
}

/// One start of a group of ranks on this machine.
#[derive(Clone, Debug)]
pub struct Launch {
    /// How many ranks.
    pub ranks: usize,
    /// Port of the store that the launcher hosts on 127.0.0.1.
    pub port: u16,
    /// How often the group was started before.
    pub restart: u64,
    /// Of all starts of this launcher together.
    pub id: String,
}

impl Launch {
    /// What stands before the ranks' keys in the store.
    pub fn prefix(&self) -> String {
        prefix(self.restart)
    }

    /// The variables of one rank.
    pub fn environment(&self, rank: usize) -> Vec<(&'static str, String)> {
        vec![
            ("RANK", rank.to_string()),
            ("LOCAL_RANK", rank.to_string()),
            ("WORLD_SIZE", self.ranks.to_string()),
            ("LOCAL_WORLD_SIZE", self.ranks.to_string()),
            ("MASTER_ADDR", "127.0.0.1".to_owned()),
            ("MASTER_PORT", self.port.to_string()),
            ("TORCHELASTIC_USE_AGENT_STORE", "True".to_owned()),
            ("TORCHELASTIC_RESTART_COUNT", self.restart.to_string()),
            ("TORCHELASTIC_RUN_ID", self.id.clone()),
            (LAUNCHED, "1".to_owned()),
        ]
    }
}

/// What stands before the keys of a group's ranks, so that one that is started again reads nothing of the one before.
pub(super) fn prefix(restart: u64) -> String {
    format!("oss-run/{restart}")
}

/// Lets the launcher stop this process ([`interrupt::request`]), and ends it when the launcher ends, however that comes
/// about. For ranks of our own launcher ([`RankEnv::launched`](crate::distributed::RankEnv::launched)) and the trials
/// of a sweep ([`TIED`]) alone: nobody else gives a pipe as standard input that stays open as long as they live. To be
/// called from the main thread, whose end is that of the process.
///
/// # Errors
/// The system refuses a thread or the parent-death signal.
pub fn exit_with_parent() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The signal misses a launcher that ended before it was asked for; the end of the pipe does not.
    thread::Builder::new().name("launcher".into()).spawn(|| {
        let mut input = io::stdin().lock();
        let mut words = [0; STOP.len()];
        loop {
            match input.read(&mut words) {
                Ok(0) => break,
                // There is but one thing to say.
                Ok(_) => interrupt::request(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // At once: destructors might wait for ranks that are gone as well.
        exit(Status::Failed.code());
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::RankEnv;

    #[test]
    fn a_rank_reads_what_the_launcher_set() {
        let launch = Launch { ranks: 3, port: 4000, restart: 1, id: "7f".into() };
        let variables = launch.environment(2);
        let value =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        let rank_env = RankEnv::from_env(&value);
        let expected = RankEnv {
            rank: 2,
            world_size: 3,
            local_rank: 2,
            local_world_size: 3,
            host: "127.0.0.1".into(),
            port: 4000,
            hosted: true,
            restart: 1,
            id: "7f".into(),
            launched: true,
        };
        assert_eq!(rank_env, Ok(Some(expected)));
    }
}
