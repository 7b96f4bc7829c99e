//! What the launcher and the ranks that it starts agree on: the variables, and that no rank outlives it.

use std::io::{self, Read};
use std::num::NonZero;
use std::thread;

use rustix::process::{Signal, set_parent_process_death_signal};
use signal_hook::low_level::exit;

use crate::interrupt;

/// Set for ranks that this program's own launcher started, whose standard input is the launcher's pipe.
pub(super) const LAUNCHED: &str = "OSS_RUN_LAUNCHER";

/// What the launcher writes to a rank that shall stop after its step, on a line for ranks that read lines.
pub(super) const STOP: &[u8] = b"stop\n";

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
    /// Whether the experiment sets the CPU threads of a rank itself.
    pub threads_set: bool,
    /// Whether the same run must give the same bits.
    pub deterministic: bool,
}

impl Launch {
    /// What stands before the ranks' keys in the store.
    pub fn prefix(&self) -> String {
        prefix(self.restart)
    }

    /// The variables of one rank. Those that only tune libraries are left as `env` has them.
    pub fn environment(&self, rank: usize, env: &dyn Fn(&str) -> Option<String>) -> Vec<(String, String)> {
        let places = [
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
        ];
        // One machine: nothing has to listen beyond loopback.
        let mut tuning =
            vec![("NCCL_SOCKET_IFNAME", "lo".to_owned()), ("GLOO_SOCKET_IFNAME", "lo".to_owned())];
        if self.deterministic {
            // NCCL otherwise picks the order of a sum by size and load, and so does cuBLAS with its workspaces.
            tuning.push(("NCCL_ALGO", "Ring".to_owned()));
            tuning.push(("NCCL_NVLS_ENABLE", "0".to_owned()));
            tuning.push(("CUBLAS_WORKSPACE_CONFIG", ":4096:8".to_owned()));
        }
        if !self.threads_set {
            tuning.push(("OMP_NUM_THREADS", threads_of_a_rank(self.ranks).to_string()));
        }
        let tuning = tuning.into_iter().filter(|(variable, _)| env(variable).is_none());
        places.into_iter().chain(tuning).map(|(variable, value)| (variable.to_owned(), value)).collect()
    }
}

/// What stands before the keys of a group's ranks, so that one that is started again reads nothing of the one before.
pub(super) fn prefix(restart: u64) -> String {
    format!("oss-run/{restart}")
}

/// An equal part of the cores, at least one: ranks that each took all of them would wait for each other.
fn threads_of_a_rank(ranks: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    (cores / ranks.max(1)).max(1)
}

/// Lets the launcher stop this process ([`interrupt::request`]), and ends it when the launcher ends, however that comes
/// about. For ranks of our own launcher ([`Placement::launched`](super::Placement::launched)) alone: nobody else gives a
/// pipe as standard input that stays open as long as they live. To be called from the main thread, whose end is that
/// of the process.
///
/// # Errors
/// The system refuses a thread or the parent-death signal.
pub fn tie_to_launcher() -> io::Result<()> {
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
        exit(1);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::Placement;

    fn launch() -> Launch {
        Launch { ranks: 3, port: 4000, restart: 1, id: "7f".into(), threads_set: false, deterministic: true }
    }

    fn value<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
        variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_rank_reads_what_the_launcher_set() {
        let variables = launch().environment(2, &|_| None);
        let placement = Placement::of(&|name| value(&variables, name).map(str::to_owned));
        let expected = Placement {
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
        assert_eq!(placement, Ok(Some(expected)));
    }

    #[test]
    fn what_the_user_tuned_stays() {
        let env = |name: &str| ["NCCL_ALGO", "OMP_NUM_THREADS"].contains(&name).then(|| "mine".to_owned());
        let variables = launch().environment(0, &env);
        assert_eq!(value(&variables, "NCCL_ALGO"), None);
        assert_eq!(value(&variables, "OMP_NUM_THREADS"), None);
        assert_eq!(value(&variables, "NCCL_NVLS_ENABLE"), Some("0"));
        assert_eq!(value(&variables, "GLOO_SOCKET_IFNAME"), Some("lo"));
    }

    #[test]
    fn only_what_is_asked_for_is_set() {
        let variables =
            Launch { threads_set: true, deterministic: false, ..launch() }.environment(0, &|_| None);
        for absent in ["NCCL_ALGO", "NCCL_NVLS_ENABLE", "CUBLAS_WORKSPACE_CONFIG", "OMP_NUM_THREADS"] {
            assert_eq!(value(&variables, absent), None, "{absent}");
        }
        assert_eq!(threads_of_a_rank(1_000_000), 1);
        let threads = launch().environment(0, &|_| None);
        assert!(value(&threads, "OMP_NUM_THREADS").unwrap().parse::<usize>().unwrap() >= 1);
    }
}
