//! The global batch of a step, partitioned across ranks and split into micro-batches.

use anyhow::Result;
use tch::{Device, Tensor};

use super::forward_backward::MicroBatch;
use crate::model::Sequences;
use oss_config::Train;
use oss_data::Batches;
use oss_torch::{pin_memory, to_device};

/// The tokens of one step, or one rank's slice of them. The global batch is a pure function of (seed, step),
/// independent of the micro-batch size and the number of ranks.
#[derive(Debug)]
pub struct GlobalBatch {
    rows: Vec<Vec<i64>>,
}

impl GlobalBatch {
    /// The samples of `step` (0-based), each of T + 1 tokens.
    pub fn of_step(batches: &Batches, train: &Train, step: u64) -> Self {
        Self::rank_slice(batches, train, step, (0, 1))
    }

    /// The contiguous slice of the samples of `step` that rank `rank` of `ranks` processes.
    pub fn rank_slice(batches: &Batches, train: &Train, step: u64, (rank, ranks): (usize, usize)) -> Self {
        let count = train.global_batch_size as u64 / ranks as u64;
        let first = step * train.global_batch_size as u64 + rank as u64 * count;
        Self { rows: (first..first + count).map(|index| batches.sample(index)).collect() }
    }

    /// A batch of the given samples, each of T + 1 tokens.
    pub fn from_rows(rows: Vec<Vec<i64>>) -> Self {
        Self { rows }
    }

    /// The T + 1 tokens of each sample.
    pub fn into_rows(self) -> Vec<Vec<i64>> {
        self.rows
    }

    /// Digest of the tokens, for messages.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for token in self.rows.iter().flatten() {
            hasher.update(&token.to_le_bytes());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    /// Splits the batch into micro-batches in host memory, ready to be copied to `device`. With `end_of_text`, tokens
    /// attend only within their own document.
    ///
    /// # Errors
    /// Fails if host memory cannot be pinned for the copy to a GPU.
    pub fn staged(self, train: &Train, end_of_text: Option<i64>, device: Device) -> Result<StagedBatch> {
        let length = train.sequence_length as usize;
        let micro_batches = self
            .rows
            .chunks(train.micro_batch_size as usize)
            .map(|rows| {
                let inputs: Vec<&[i64]> = rows.iter().map(|row| &row[..length]).collect();
                let targets: Vec<&[i64]> = rows.iter().map(|row| &row[1..]).collect();
                let Sequences { tokens, documents } = Sequences::new(&inputs, end_of_text, Device::Cpu);
                Ok(MicroBatch {
                    inputs: Sequences { tokens: pin_memory(&tokens, device)?, documents },
                    targets: pin_memory(&Tensor::from_slice(&targets.concat()), device)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(StagedBatch { batch: self, micro_batches, device })
    }
}

/// A batch staged in host memory, pinned if it is for a GPU.
#[derive(Debug)]
pub struct StagedBatch {
    batch: GlobalBatch,
    micro_batches: Vec<MicroBatch>,
    device: Device,
}

impl StagedBatch {
    /// The micro-batches on the device. Copies to a GPU are queued on the current stream without synchronizing.
    pub fn micro_batches(&self) -> Vec<MicroBatch> {
        let sent =
            |MicroBatch { inputs: Sequences { tokens, documents }, targets }: &MicroBatch| MicroBatch {
                inputs: Sequences { tokens: to_device(tokens, self.device), documents: documents.clone() },
                targets: to_device(targets, self.device),
            };
        self.micro_batches.iter().map(sent).collect()
    }

    /// Digest of the tokens, for messages.
    pub fn digest(&self) -> String {
        self.batch.digest()
    }
}
