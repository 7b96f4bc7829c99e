//! All ranks of a run, and the control messages between them.
//!
//! Messages are JSON and pass through a store hosted by one process (the launcher, torchrun's agent, or rank 0). All
//! ranks send and receive in the same order, so a message is identified by its turn number.

mod error;
mod handshake;

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Device;

use super::launch::prefix;
use super::mesh::{Mesh, Wiring, transport};
use super::rank_env::RankEnv;
use handshake::{Hello, judge};
use oss_config::Sharding;
use oss_config::error::{ErrorReport, Hint, UserError};
use oss_torch::Store;

pub use error::WorldError;
pub use handshake::Fingerprint;

/// Initial and maximum polling interval of a rank that waits for a message.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(1);
const MAX_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long the rank that hosts the store waits for the others to leave: a killed rank never says that it has left.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// All ranks of a run, as seen by one of them.
#[derive(Debug)]
pub struct World {
    rank: usize,
    size: usize,
    local_rank: usize,
    local_size: usize,
    timeout: Duration,
    store: Option<Store>,
    /// Whether this process hosts the store.
    serves: bool,
    turn: Cell<u64>,
    /// The leader's messages that some ranks may not have read yet.
    unread: RefCell<Vec<String>>,
}

impl World {
    /// A world of one rank, which is the leader.
    pub fn alone() -> Self {
        Self {
            rank: 0,
            size: 1,
            local_rank: 0,
            local_size: 1,
            timeout: Duration::from_secs(600),
            store: None,
            serves: false,
            turn: Cell::new(0),
            unread: RefCell::default(),
        }
    }

    /// Joins the other ranks, and checks that they run the same program with the same task.
    ///
    /// # Errors
    /// [`WorldError`] if the address is in use or does not answer, or if ranks are missing, duplicated or different.
    pub fn join(rank_env: &RankEnv, fingerprint: &Fingerprint, timeout: Duration) -> Result<Self> {
        let store = open_store(rank_env, timeout)?.prefixed(&prefix(rank_env.restart))?;
        let world = Self {
            rank: rank_env.rank,
            size: rank_env.world_size,
            local_rank: rank_env.local_rank,
            local_size: rank_env.local_world_size,
            timeout,
            store: Some(store),
            serves: rank_env.rank == 0 && !rank_env.hosted,
            turn: Cell::new(0),
            unread: RefCell::default(),
        };
        match world.introduce(rank_env, fingerprint) {
            Ok(()) => Ok(world),
            Err(error) => {
                world.leave();
                Err(error)
            }
        }
    }

    fn introduce(&self, rank_env: &RankEnv, fingerprint: &Fingerprint) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        if store.add(&format!("present/{}", self.rank), 1)? > 1 {
            let RankEnv { rank, host, port, .. } = rank_env.clone();
            return Err(WorldError::Twice { rank, host, port }.into());
        }
        let hello = Hello {
            launch: rank_env.id.clone(),
            host: sysinfo::System::host_name().unwrap_or_default(),
            pid: std::process::id(),
            fingerprint: fingerprint.clone(),
        };
        let hellos = self.gather_within(&hello, Some(self.timeout))?;
        let verdict = hellos.map(|hellos| judge(&hellos));
        match self.broadcast_within(verdict, Some(self.timeout))? {
            None => Ok(()),
            Some((rank, what)) => Err(what.error(rank).into()),
        }
    }

    /// This rank's number.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.size
    }

    /// This rank's number among those on this machine, which is also the index of its GPU.
    pub fn local_rank(&self) -> usize {
        self.local_rank
    }

    /// Number of ranks on this machine.
    pub fn local_size(&self) -> usize {
        self.local_size
    }

    /// Whether this is the rank that makes decisions, writes files and prints output.
    pub fn is_leader(&self) -> bool {
        self.rank == 0
    }

    /// Creates the process groups.
    ///
    /// # Errors
    /// If another rank does not join, or the backend does not support the device.
    pub fn mesh(&self, sharding: &Sharding, device: Device) -> Result<Mesh> {
        let Some(store) = &self.store else { return Ok(Mesh::alone(device)) };
        let transport = transport(sharding.backend, device);
        // Each call gets its own prefix: the keys of earlier meshes are in the same store.
        let store = store.prefixed(&format!("mesh/{}", self.turn.get()))?;
        self.turn.set(self.turn.get() + 1);
        let wiring = Wiring {
            transport,
            store: Some(&store),
            timeout: self.timeout,
            interface: (self.size == self.local_size).then_some("lo"),
        };
        Mesh::open(sharding, (self.rank, self.size, self.local_size), device, &wiring)
            .context("the ranks cannot connect to each other")
            .hint("check the logs of the other ranks")
    }

    /// Broadcasts the leader's value; the leader passes `Some`. The others wait without a timeout, since the leader may
    /// have hours of work to do first.
    ///
    /// # Errors
    /// If the leader failed, or the store is gone.
    pub fn broadcast<T: Serialize + DeserializeOwned>(&self, mine: Option<T>) -> Result<T> {
        self.broadcast_within(mine, None)
    }

    fn broadcast_within<T: Serialize + DeserializeOwned>(
        &self,
        mine: Option<T>,
        limit: Option<Duration>,
    ) -> Result<T> {
        let key = self.next_key();
        match (&self.store, mine) {
            (None, Some(mine)) => Ok(mine),
            (Some(store), Some(mine)) if self.is_leader() => {
                store.set(&key, &serde_json::to_vec(&mine)?)?;
                self.unread.borrow_mut().push(key);
                Ok(mine)
            }
            (Some(store), _) => self.wait_for(store, &key, limit, || vec![0]),
            (None, None) => unreachable!("a rank alone is the leader"),
        }
    }

    /// Gathers all ranks' values on the leader, in rank order; returns `None` on the others.
    ///
    /// # Errors
    /// If a rank failed, or did not respond within the timeout.
    pub fn gather<T: Serialize + DeserializeOwned>(&self, mine: &T) -> Result<Option<Vec<T>>> {
        self.gather_within(mine, Some(self.timeout))
    }

    fn gather_within<T: Serialize + DeserializeOwned>(
        &self,
        mine: &T,
        limit: Option<Duration>,
    ) -> Result<Option<Vec<T>>> {
        let key = self.next_key();
        let text = serde_json::to_vec(mine)?;
        let Some(store) = &self.store else { return Ok(Some(vec![serde_json::from_slice(&text)?])) };
        let of = |rank: usize| format!("{key}/{rank}");
        if !self.is_leader() {
            store.set(&of(self.rank), &text)?;
            return Ok(None);
        }
        let mut all = vec![serde_json::from_slice(&text)?];
        for rank in 1..self.size {
            let absent =
                || (rank..self.size).filter(|&rank| matches!(store.get(&of(rank)), Ok(None))).collect();
            all.push(self.wait_for(store, &of(rank), limit, absent)?);
            store.delete(&of(rank))?;
        }
        // A rank that has answered has read all earlier messages.
        for key in self.unread.borrow_mut().drain(..) {
            store.delete(&key)?;
        }
        Ok(Some(all))
    }

    /// Gathers all ranks' values on every rank, in rank order.
    ///
    /// # Errors
    /// As [`Self::gather`].
    pub fn all<T: Serialize + DeserializeOwned>(&self, mine: &T) -> Result<Vec<T>> {
        let all = self.gather(mine)?;
        self.broadcast_within(all, Some(self.timeout))
    }

    /// Returns this rank's value if all ranks succeeded; otherwise the error of the first that failed, on every rank.
    ///
    /// # Errors
    /// The error of the first rank that failed, with its number.
    pub fn all_ok<T>(&self, mine: Result<T>) -> Result<T> {
        if self.size == 1 {
            return mine;
        }
        let complaint = mine.as_ref().err().map(ErrorReport::from);
        let complaints = self.all(&complaint)?;
        let first = complaints.into_iter().enumerate().find_map(|(rank, report)| Some((rank, report?)));
        match (first, mine) {
            (None, mine) => mine,
            (Some((rank, _)), Err(error)) if rank == self.rank => Err(error),
            (Some((rank, report)), _) => Err(WorldError::Failed { rank, report }.into()),
        }
    }

    /// Tells the other ranks, which may be waiting for a message, that this one has failed.
    pub fn report_failure(&self, error: &anyhow::Error) {
        if let Some(store) = &self.store {
            let told = serde_json::to_vec(&(self.rank, ErrorReport::from(error)));
            // The store may be gone for the same reason; then nobody is waiting.
            let _ = told.map_err(anyhow::Error::from).and_then(|told| store.set(FAILED, &told));
        }
    }

    /// Leaves the world. The rank that hosts the store waits briefly until the others no longer need it.
    pub fn leave(self) {
        let Some(store) = &self.store else { return };
        if !self.serves {
            // If the store is gone, there is nobody to tell.
            let _ = store.set(&format!("left/{}", self.rank), b"");
            return;
        }
        let start = Instant::now();
        let here = |rank: usize| matches!(store.get(&format!("left/{rank}")), Ok(None));
        while (1..self.size).any(here) && start.elapsed() < SHUTDOWN_TIMEOUT {
            thread::sleep(MAX_POLL_INTERVAL);
        }
    }

    /// Sets a key for the process that hosts the store, such as the launcher.
    ///
    /// # Errors
    /// If the store is gone.
    pub fn announce(&self, key: &str, value: &str) -> Result<()> {
        self.store.as_ref().map_or(Ok(()), |store| store.set(key, value.as_bytes()))
    }

    fn next_key(&self) -> String {
        let turn = self.turn.get();
        self.turn.set(turn + 1);
        format!("turn/{turn}")
    }

    /// Waits until `key` is set; on a timeout, `absent` returns the ranks that did not respond.
    fn wait_for<T: DeserializeOwned>(
        &self,
        store: &Store,
        key: &str,
        limit: Option<Duration>,
        absent: impl Fn() -> Vec<usize>,
    ) -> Result<T> {
        let start = Instant::now();
        let mut interval = MIN_POLL_INTERVAL;
        let look = || store.get(key).context("lost connection to rank 0 or the process hosting the store");
        let read = |text: Vec<u8>| {
            serde_json::from_slice(&text)
                .with_context(|| format!("cannot decode message {key}"))
                .hint("run the same build of oss-run on every rank")
        };
        loop {
            if let Some(text) = look()? {
                return read(text);
            }
            if let Some(text) = store.get(FAILED)?
                && let Ok((rank, report)) = serde_json::from_slice(&text)
                && rank != self.rank
            {
                // If it sent the message before it failed, the message may have arrived since the last look.
                return look()?.map_or_else(|| Err(WorldError::Failed { rank, report }.into()), read);
            }
            if limit.is_some_and(|limit| start.elapsed() >= limit) {
                let missing: Vec<String> = absent().iter().map(usize::to_string).collect();
                let plural = if missing.len() == 1 { "rank" } else { "ranks" };
                let missing = format!("{plural} {}", missing.join(", "));
                let seconds = start.elapsed().as_secs();
                return Err(WorldError::Absent { rank: self.rank, missing, seconds }.into());
            }
            thread::sleep(interval);
            interval = (interval * 2).min(MAX_POLL_INTERVAL);
        }
    }
}

/// The key under which a failing rank reports its error.
const FAILED: &str = "failed";

fn open_store(rank_env: &RankEnv, timeout: Duration) -> Result<Store> {
    let RankEnv { rank, host, port, .. } = rank_env;
    if *rank == 0 && !rank_env.hosted {
        // If all ranks are on one machine, listen only on the loopback interface.
        let one_machine = rank_env.local_world_size == rank_env.world_size;
        let address = if one_machine { "127.0.0.1" } else { "0.0.0.0" };
        let listener = TcpListener::bind((address, *port)).map_err(|cause| WorldError::PortInUse {
            host: address.to_owned(),
            port: *port,
            cause,
        })?;
        return Store::serve(listener, timeout);
    }
    Store::connect(host, *port, timeout).map_err(|cause| {
        let seconds = timeout.as_secs();
        let (rank, host, port) = (*rank, host.clone(), *port);
        UserError::from(WorldError::NoStore { rank, host, port, seconds }).because(cause).into()
    })
}

#[cfg(test)]
mod tests;
