//! A dry run of a single rank of a simulated world: measures its memory and writes its checkpoint file.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::{Flags, GlobalBatch, Trainer, configure_torch, device};
use crate::checkpoint::{Writer, bytes_needed, write_rank};
use crate::distributed::Mesh;
use crate::libtorch_error::catch_torch_panic;
use crate::model::{Initial, vocab_size};
use oss_config::Experiment;
use oss_config::error::UserError;
use oss_runs::monitor::{forget_resident_peak, resident_bytes, resident_peak_bytes};
use oss_torch::cuda_peak_bytes;

/// The measurements of a dry run. On the CPU, memory is the process's resident memory above the starting point, and
/// each peak is measured since the previous reading. On a GPU, it is the most that libtorch has allocated on the device
/// so far.
#[derive(Clone, Debug, Serialize)]
pub struct DryRun {
    /// The simulated rank.
    pub rank: u64,
    /// The number of ranks.
    pub ranks: u64,
    /// Bytes held after initializing weights, gradients and moments.
    pub initialized_bytes: u64,
    /// Peak bytes during initialization.
    pub initialization_peak_bytes: u64,
    /// Peak bytes during training steps; `None` if there were none.
    pub training_peak_bytes: Option<u64>,
    /// Peak bytes while writing the rank's checkpoint file.
    pub saving_peak_bytes: u64,
    /// Size of that file in bytes; 0 if a rank of another replica writes it.
    pub file_bytes: u64,
    /// Seconds spent initializing.
    pub initialization_seconds: f64,
    /// Seconds spent writing the file.
    pub saving_seconds: f64,
}

/// Simulates rank `rank` of the experiment: initializes its slice, runs `steps` training steps on random tokens, and
/// writes its checkpoint file under `dir`, then removes it. Communication with the other ranks is simulated by c10d's
/// fake process group, so losses are meaningless.
///
/// # Errors
/// Fails if `rank` is out of range or the file does not fit on the disk.
pub fn dry_run(experiment: &Experiment, rank: u64, steps: u64, dir: &Path) -> Result<DryRun> {
    let ranks = experiment.sharding.ranks;
    ensure!(
        rank < ranks,
        UserError::failed(format!("rank {rank} is out of range for {ranks} ranks"))
            .hint(format!("pass a rank in 0..={}", ranks - 1))
    );
    let mut experiment = experiment.clone();
    // Simulated collectives make losses meaningless, and some are not finite.
    experiment.train.tolerate_non_finite();
    let experiment = &experiment;
    configure_torch(&experiment.train, experiment.run.deterministic, 1)?;
    let device = device(&experiment.train, 0)?;
    let mesh = Mesh::simulated(&experiment.sharding, rank as usize, device)?;
    catch_torch_panic(|| {
        let memory = Memory::of(device);
        let start = Instant::now();
        let mut source = Initial::new(&experiment.model, experiment.run.seed);
        let mut trainer = Trainer::new(experiment, &mut source, true, &mesh)?;
        let initialization_seconds = start.elapsed().as_secs_f64();
        let (initialized_bytes, initialization_peak_bytes) = (memory.held(), memory.take_peak());
        for step in 0..steps {
            let batch = random_batch(experiment, step).staged(&experiment.train, None, device)?;
            trainer.step(&batch, Flags::default)?;
        }
        let training_peak_bytes = (steps > 0).then(|| memory.take_peak());

        let entries = trainer.entries();
        // Replicas hold identical state: only the first one's ranks write.
        let file_bytes = if mesh.replica == 0 { bytes_needed(&entries)? } else { 0 };
        let writer = Writer::begin(dir, 0, file_bytes)?;
        let start = Instant::now();
        if mesh.replica == 0 {
            write_rank(writer.folder(), mesh.shard, mesh.shards, &entries)?;
        }
        let saving_seconds = start.elapsed().as_secs_f64();
        Ok(DryRun {
            rank,
            ranks,
            initialized_bytes,
            initialization_peak_bytes,
            training_peak_bytes,
            saving_peak_bytes: memory.take_peak(),
            file_bytes,
            initialization_seconds,
            saving_seconds,
        })
    })
}

/// A rank's slice of a batch of random tokens.
pub(super) fn random_batch(experiment: &Experiment, step: u64) -> GlobalBatch {
    let Experiment { model, train, sharding, .. } = experiment;
    let rows = train.global_batch_size / sharding.ranks as i64;
    tch::manual_seed(step as i64);
    let shape = [rows, train.sequence_length + 1];
    let tokens = Tensor::randint(vocab_size(model), shape, (Kind::Int64, Device::Cpu));
    GlobalBatch::from_rows((0..rows).map(|row| Vec::try_from(tokens.get(row)).unwrap_or_default()).collect())
}

/// Measures memory relative to a starting point.
struct Memory {
    device: Device,
    before: u64,
}

impl Memory {
    fn of(device: Device) -> Self {
        forget_resident_peak();
        let memory = Self { device, before: 0 };
        Self { before: memory.now(), ..memory }
    }

    fn now(&self) -> u64 {
        match self.device {
            Device::Cuda(index) => cuda_peak_bytes(index).unwrap_or(0).unsigned_abs(),
            _ => resident_bytes(),
        }
    }

    fn held(&self) -> u64 {
        self.now().saturating_sub(self.before)
    }

    fn take_peak(&self) -> u64 {
        let peak = match self.device {
            Device::Cuda(_) => self.now(),
            _ => resident_peak_bytes(),
        };
        forget_resident_peak();
        peak.saturating_sub(self.before)
    }
}
