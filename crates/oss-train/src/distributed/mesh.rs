//! The device mesh: which ranks shard one replica of the model, and which hold the same shard of it.

mod group;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use group::Place;
use oss_config::error::UserError;
use oss_config::{Backend, Sharding, Strategy};
use oss_runs::interrupt;
use oss_torch::{ProcessGroup, Store, Transport};

pub use group::{Group, Pending};

/// The ranks as a table: each row is one copy of the model (a *replica*), split into as many *shards* as there are
/// columns. A rank's number is `replica * shards + shard`, so that the ranks of a row are consecutive.
///
/// ddp has one column, fsdp has one row, hsdp has several of both.
#[derive(Debug)]
pub struct Mesh {
    /// Number of shards that a unit is split into.
    pub shards: usize,
    /// The shard that this rank holds.
    pub shard: usize,
    /// Number of replicas of the model.
    pub replicas: usize,
    /// The replica that this rank belongs to.
    pub replica: usize,
    /// Gathers weights within a row. Separate from `reduce`, because the collectives of one group run one after
    /// another.
    pub gather: Group,
    /// Sums gradients within a row, and gathers the optimizer's updates.
    pub reduce: Group,
    /// Sums gradients within a column.
    pub replicate: Group,
    /// All ranks.
    pub everyone: Group,
    /// The device that tensors must be on for collectives.
    device: Device,
    step: Rc<Cell<u64>>,
}

/// How the ranks of a mesh connect to each other.
pub(super) struct Wiring<'a> {
    pub transport: Transport,
    pub store: Option<&'a Store>,
    pub timeout: Duration,
    /// The network interface to use if all ranks are on one machine, so that nothing listens on other interfaces.
    pub interface: Option<&'a str>,
}

impl Mesh {
    /// The mesh of a single rank.
    pub fn alone(device: Device) -> Self {
        Self {
            shards: 1,
            shard: 0,
            replicas: 1,
            replica: 0,
            gather: Group::default(),
            reduce: Group::default(),
            replicate: Group::default(),
            everyone: Group::default(),
            device,
            step: Rc::default(),
        }
    }

    /// The mesh of rank `rank` with no other ranks present: collectives are simulated, and the other ranks' data is
    /// arbitrary. For dry runs.
    ///
    /// # Errors
    /// If the number of ranks is not a multiple of hsdp's shard degree.
    pub fn simulated(sharding: &Sharding, rank: usize, device: Device) -> Result<Self> {
        let ranks = sharding.ranks as usize;
        let wiring = Wiring {
            transport: Transport::Fake,
            store: None,
            timeout: Duration::from_secs(1),
            interface: None,
        };
        Self::open(sharding, (rank, ranks, ranks), device, &wiring)
    }

    /// Connects to the other ranks; returns when all have joined. `ranks_here` of the `ranks` are on this machine.
    pub(super) fn open(
        sharding: &Sharding,
        (rank, ranks, ranks_here): (usize, usize, usize),
        device: Device,
        wiring: &Wiring<'_>,
    ) -> Result<Self> {
        let (replicas, shards) = shape(sharding, ranks, ranks_here)?;
        let (replica, shard) = (rank / shards, rank % shards);
        let step: Rc<Cell<u64>> = Rc::default();
        let group = |name: &str, rank_in_group: usize, size: usize| -> Result<Group> {
            if size == 1 {
                return Ok(Group::default());
            }
            let store = wiring.store.map(|store| store.prefixed(name)).transpose()?;
            let members = ProcessGroup::open(
                wiring.transport,
                store.as_ref(),
                (rank_in_group, size),
                wiring.timeout,
                wiring.interface,
            )?;
            Ok(Group::new(members, Place { rank, step: Rc::clone(&step) }))
        };
        Ok(Self {
            shards,
            shard,
            replicas,
            replica,
            gather: group(&format!("gather/{replica}"), shard, shards)?,
            reduce: group(&format!("reduce/{replica}"), shard, shards)?,
            replicate: group(&format!("replicate/{shard}"), replica, replicas)?,
            everyone: group("everyone", rank, ranks)?,
            device,
            step,
        })
    }

    /// Number of ranks.
    pub fn ranks(&self) -> usize {
        self.shards * self.replicas
    }

    /// This rank's number.
    pub fn rank(&self) -> usize {
        self.replica * self.shards + self.shard
    }

    /// This rank's device.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Sets the current step, which messages about the following collectives report.
    pub fn at_step(&self, step: u64) {
        self.step.set(step);
    }

    /// Sums each number over all ranks; the result is bit-identical on every rank.
    ///
    /// # Errors
    /// If another rank is gone, or did not join the collective in time.
    pub fn sum<const N: usize>(&self, numbers: [f64; N], of: &str) -> Result<[f64; N]> {
        if self.everyone.is_alone() {
            return Ok(numbers);
        }
        let tensor = Tensor::from_slice(&numbers).to_device(self.device);
        self.everyone.all_reduce(&tensor, of)?.wait()?;
        let sums = Vec::<f64>::try_from(tensor.to_device(Device::Cpu).to_kind(Kind::Double))?;
        Ok(std::array::from_fn(|i| sums[i]))
    }

    /// Returns early from work that all ranks do together if any of them has been requested to stop.
    ///
    /// # Errors
    /// [`Stopped`](oss_config::error::Stopped), on all ranks; or if another rank is gone.
    pub fn check_interrupt(&self) -> Result<()> {
        if self.any(interrupt::requested(), "requests to stop")? {
            interrupt::request();
            return Err(oss_config::error::Stopped.into());
        }
        Ok(())
    }

    /// Concatenates all ranks' numbers in rank order, each padded with zeros to `longest`.
    ///
    /// # Errors
    /// As [`Self::sum`].
    pub fn join(&self, numbers: &[f64], longest: usize) -> Result<Vec<f64>> {
        let mut own = numbers.to_vec();
        own.resize(longest, 0.0);
        if self.everyone.is_alone() {
            return Ok(own);
        }
        let all = Tensor::zeros([(longest * self.ranks()) as i64], (Kind::Double, self.device));
        let mut place = all.narrow(0, (longest * self.rank()) as i64, longest as i64);
        place.copy_(&Tensor::from_slice(&own));
        self.everyone.all_gather(&all, "numbers")?.wait()?;
        Ok(Vec::try_from(all)?)
    }

    /// Broadcasts the numbers of rank 0 to every rank.
    ///
    /// # Errors
    /// As [`Self::sum`].
    pub fn broadcast_numbers(&self, numbers: Vec<i64>) -> Result<Vec<i64>> {
        if self.everyone.is_alone() {
            return Ok(numbers);
        }
        let tensor = Tensor::from_slice(&numbers).to_device(self.device);
        self.everyone.broadcast(&tensor, "numbers")?.wait()?;
        Ok(Vec::try_from(tensor)?)
    }

    /// Whether `flag` is set on any rank.
    ///
    /// # Errors
    /// As [`Self::sum`].
    pub fn any(&self, flag: bool, of: &str) -> Result<bool> {
        Ok(self.sum([f64::from(u8::from(flag))], of)?[0] > 0.0)
    }
}

/// Numbers of replicas and shards for `ranks` ranks, `ranks_here` of which are on this machine.
///
/// # Errors
/// If the number of ranks is not a multiple of hsdp's shard degree.
fn shape(sharding: &Sharding, ranks: usize, ranks_here: usize) -> Result<(usize, usize)> {
    let shards = match sharding.strategy {
        Strategy::None | Strategy::Ddp => 1,
        Strategy::Fsdp => ranks,
        Strategy::Hsdp => sharding.shard_degree.map_or(ranks_here, |replica| replica as usize),
    };
    ensure!(
        ranks.is_multiple_of(shards),
        UserError::failed(format!("{ranks} ranks cannot be divided into replicas of {shards}"))
            .hint(format!("set sharding.shard_degree to a divisor of {ranks}"))
    );
    Ok((ranks / shards, shards))
}

/// The communication library for tensors on `device`.
pub(super) fn transport(backend: Backend, device: Device) -> Transport {
    match (backend, device) {
        (Backend::Nccl, _) | (Backend::Auto, Device::Cuda(_)) => Transport::Nccl,
        _ => Transport::Gloo,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_follow_the_strategy_and_shard_degree() {
        let sharding =
            |strategy, shard_degree| Sharding { strategy, ranks: 8, shard_degree, ..Sharding::default() };
        assert_eq!(shape(&sharding(Strategy::Fsdp, None), 8, 4).unwrap(), (1, 8));
        assert_eq!(shape(&sharding(Strategy::Ddp, None), 8, 4).unwrap(), (8, 1));
        assert_eq!(shape(&sharding(Strategy::Hsdp, None), 8, 4).unwrap(), (2, 4));
        assert_eq!(shape(&sharding(Strategy::Hsdp, Some(2)), 8, 8).unwrap(), (4, 2));
        assert!(shape(&sharding(Strategy::Hsdp, Some(3)), 8, 8).is_err());
        let mesh = Mesh::simulated(&sharding(Strategy::Hsdp, Some(2)), 5, Device::Cpu).unwrap();
        assert_eq!((mesh.replica, mesh.shard, mesh.rank(), mesh.ranks()), (2, 1, 5, 8));
    }
}
