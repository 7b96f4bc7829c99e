//! The protocol between the launcher and its ranks: environment variables, stop requests, and exit with the launcher.

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

/// Set for ranks started by this program's own launcher, whose standard input is a pipe from the launcher.
pub(super) const LAUNCHED: &str = "OSS_RUN_LAUNCHER";

/// Set for a process whose standard input is a pipe that closes when its parent exits: [`exit_with_parent`] reads it.
pub const TIED: &str = "OSS_RUN_TIED";

/// What is written to a process to make it stop after its step; a line, for readers that read line by line.
pub const STOP: &[u8] = b"stop\n";

/// Whether our own launcher started this process.
pub fn is_launched(env: &dyn Fn(&str) -> Option<String>) -> bool {
    env(LAUNCHED).is_some()
}

/// One start of a group of ranks on this machine.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Number of ranks.
    pub ranks: usize,
    /// Port of the store that the launcher hosts on 127.0.0.1.
    pub port: u16,
    /// How often the group has been restarted.
    pub restart: u64,
    /// Id of the launch, the same for all restarts.
    pub id: String,
}

impl Launch {
    /// The prefix of the ranks' keys in the store.
    pub fn prefix(&self) -> String {
        prefix(self.restart)
    }

    /// The environment variables of one rank.
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

/// The prefix of a group's keys, so that a restarted group reads none of its predecessor's.
pub(super) fn prefix(restart: u64) -> String {
    format!("oss-run/{restart}")
}

/// Lets the launcher stop this process ([`interrupt::request`]), and exits when the launcher exits, for whatever
/// reason. Only for ranks of our own launcher ([`RankEnv::launched`](crate::distributed::RankEnv::launched)) and for
/// the trials of a sweep ([`TIED`]): no other parent provides a pipe as standard input that stays open as long as it
/// lives. Must be called from the main thread, which lives as long as the process.
///
/// # Errors
/// If the system refuses a thread or the parent-death signal.
pub fn exit_with_parent() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The signal is never sent if the launcher exited before the call above; the pipe closes in any case.
    thread::Builder::new().name("launcher".into()).spawn(|| {
        let mut input = io::stdin().lock();
        let mut words = [0; STOP.len()];
        loop {
            match input.read(&mut words) {
                Ok(0) => break,
                // There is only one possible message.
                Ok(_) => interrupt::request(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // Immediately: destructors might wait for ranks that are gone as well.
        exit(Status::Failed.code());
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::RankEnv;

    #[test]
    fn a_rank_reads_the_launchers_variables() {
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
