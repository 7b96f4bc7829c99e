//! All ranks of a run, and the small messages between them.
//!
//! Messages pass through a store that one process serves (the launcher, torchrun's agent, or rank 0) and are JSON. All
//! ranks send and receive in the same order, so a turn's number names a message.

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

/// How long a rank that waits for a message sleeps at first, and at most.
const NAP: Duration = Duration::from_millis(1);
const LONGEST_NAP: Duration = Duration::from_millis(50);

/// How long the rank that serves the store waits for the others to leave: one that was killed never says so.
const FAREWELL: Duration = Duration::from_secs(5);

/// All ranks of a run, as one of them sees it.
#[derive(Debug)]
pub struct World {
    rank: usize,
    size: usize,
    local_rank: usize,
    local_size: usize,
    timeout: Duration,
    store: Option<Store>,
    /// Whether the store ends with this process.
    serves: bool,
    turn: Cell<u64>,
    /// Messages of the leader that may not have been read by everyone yet.
    unread: RefCell<Vec<String>>,
}

impl World {
    /// One rank, which is its own leader.
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

    /// Joins the other ranks, and checks that they are the same program with the same task.
    ///
    /// # Errors
    /// [`WorldError`]: an address that is taken or does not answer, ranks that do not come, that come twice, or that
    /// differ.
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

    /// This rank's number among those on this machine: the number of its GPU.
    pub fn local_rank(&self) -> usize {
        self.local_rank
    }

    /// Number of ranks on this machine.
    pub fn local_size(&self) -> usize {
        self.local_size
    }

    /// Whether this is the rank that decides, writes down and talks to people.
    pub fn is_leader(&self) -> bool {
        self.rank == 0
    }

    /// The groups that move tensors.
    ///
    /// # Errors
    /// Another rank does not come; a device that the backend cannot serve.
    pub fn mesh(&self, sharding: &Sharding, device: Device) -> Result<Mesh> {
        let Some(store) = &self.store else { return Ok(Mesh::alone(device)) };
        let transport = transport(sharding.backend, device);
        // A mesh of its own for each call: keys of an earlier one lie in the same store.
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
            .hint("look at the logs of the others")
    }

    /// What the leader says (it gives `Some`). The others wait for it without limit, since the leader may have hours of
    /// work to do before.
    ///
    /// # Errors
    /// The leader failed, or the store is gone.
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

    /// What everyone says, by rank, for the leader; none for the others.
    ///
    /// # Errors
    /// A rank failed, or did not answer within the timeout.
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
        // Whoever has answered this has read all that came before.
        for key in self.unread.borrow_mut().drain(..) {
            store.delete(&key)?;
        }
        Ok(Some(all))
    }

    /// What everyone says, by rank.
    ///
    /// # Errors
    /// As [`Self::gather`].
    pub fn all<T: Serialize + DeserializeOwned>(&self, mine: &T) -> Result<Vec<T>> {
        let all = self.gather(mine)?;
        self.broadcast_within(all, Some(self.timeout))
    }

    /// This rank's value when every rank has one; else the error of the first that has none, on every rank.
    ///
    /// # Errors
    /// A rank's error, with its number.
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

    /// Tells the others, who may wait for a message, that this rank gives up.
    pub fn give_up(&self, error: &anyhow::Error) {
        if let Some(store) = &self.store {
            let told = serde_json::to_vec(&(self.rank, ErrorReport::from(error)));
            // The store may be gone for the same reason; then nobody waits any more.
            let _ = told.map_err(anyhow::Error::from).and_then(|told| store.set(FAILED, &told));
        }
    }

    /// Ends this rank's part. The rank that serves the store waits a little until nobody needs it any more.
    pub fn leave(self) {
        let Some(store) = &self.store else { return };
        if !self.serves {
            // Without the store there is nobody to tell.
            let _ = store.set(&format!("left/{}", self.rank), b"");
            return;
        }
        let start = Instant::now();
        let here = |rank: usize| matches!(store.get(&format!("left/{rank}")), Ok(None));
        while (1..self.size).any(here) && start.elapsed() < FAREWELL {
            thread::sleep(LONGEST_NAP);
        }
    }

    /// Tells whoever serves the store, such as the launcher.
    ///
    /// # Errors
    /// The store is gone.
    pub fn announce(&self, key: &str, value: &str) -> Result<()> {
        self.store.as_ref().map_or(Ok(()), |store| store.set(key, value.as_bytes()))
    }

    fn next_key(&self) -> String {
        let turn = self.turn.get();
        self.turn.set(turn + 1);
        format!("turn/{turn}")
    }

    /// Waits until `key` is there; `absent` says whom it waited for in vain.
    fn wait_for<T: DeserializeOwned>(
        &self,
        store: &Store,
        key: &str,
        limit: Option<Duration>,
        absent: impl Fn() -> Vec<usize>,
    ) -> Result<T> {
        let start = Instant::now();
        let mut nap = NAP;
        let look = || store.get(key).context("rank 0, or what serves the ranks' store, is gone");
        let read = |text: Vec<u8>| {
            serde_json::from_slice(&text)
                .with_context(|| format!("the message {key} cannot be read"))
                .hint("start the same program on every rank")
        };
        loop {
            if let Some(text) = look()? {
                return read(text);
            }
            if let Some(text) = store.get(FAILED)?
                && let Ok((rank, report)) = serde_json::from_slice(&text)
                && rank != self.rank
            {
                // What it said before it gave up has come between the two looks, if it said anything.
                return look()?.map_or_else(|| Err(WorldError::Failed { rank, report }.into()), read);
            }
            if limit.is_some_and(|limit| start.elapsed() >= limit) {
                let missing: Vec<String> = absent().iter().map(usize::to_string).collect();
                let plural = if missing.len() == 1 { "rank" } else { "ranks" };
                let missing = format!("{plural} {}", missing.join(", "));
                let seconds = start.elapsed().as_secs();
                return Err(WorldError::Absent { rank: self.rank, missing, seconds }.into());
            }
            thread::sleep(nap);
            nap = (nap * 2).min(LONGEST_NAP);
        }
    }
}

/// Where a rank that gives up says so.
const FAILED: &str = "failed";

fn open_store(rank_env: &RankEnv, timeout: Duration) -> Result<Store> {
    let RankEnv { rank, host, port, .. } = rank_env;
    if *rank == 0 && !rank_env.hosted {
        // On one machine nothing listens beyond it.
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
