//! Checks, before anything is prepared, that training can end well on this machine.

use std::env;

use anyhow::{Result, bail};
use indicatif::BinaryBytes;
use tch::Device;

use super::disk_space;
use crate::plan::gpus::savings;
use crate::plan::memory::memory;
use crate::plan::{Graph, PlannedStage, Stage};
use oss_config::Experiment;
use oss_config::error::UserError;
use oss_runs::run_dir::Host;
use oss_train::distributed::RankEnv;
use oss_train::train;

/// Checks what the planned training needs: the device, memory and disk space. The last two are estimates, which
/// `force_start` overrides.
///
/// # Errors
/// Something is missing; the error says what and how to change that.
pub fn check(graph: &Graph, planned: &[PlannedStage], force_start: bool) -> Result<()> {
    if !planned.iter().any(|planned| planned.stage == Stage::Train && !planned.is_fresh()) {
        return Ok(());
    }
    check_machine(&graph.experiment, force_start)?;
    match force_start {
        true => Ok(()),
        false => disk_space::check(&graph.experiment, &graph.identity.run, graph.runs.root()),
    }
}

/// The part of [`check`] that does not depend on the number of steps: the device and memory.
///
/// # Errors
/// As for [`check`].
pub fn check_machine(experiment: &Experiment, force_start: bool) -> Result<()> {
    let device = train::device(&experiment.train, 0)?;
    if device == Device::Cpu && !force_start {
        check_memory(experiment, local_ranks(experiment)?, Host::this().memory_bytes)?;
    }
    Ok(())
}

/// The number of ranks on this machine: all of them, unless another launcher distributed them.
fn local_ranks(experiment: &Experiment) -> Result<u64> {
    let rank_env = RankEnv::from_env(&|name| env::var(name).ok())?;
    Ok(rank_env.map_or(experiment.sharding.ranks, |rank_env| rank_env.local_world_size as u64))
}

/// Checks that `ranks` ranks fit into the memory of this machine, `available`.
fn check_memory(experiment: &Experiment, ranks: u64, available: u64) -> Result<()> {
    let needed = memory(experiment).total().saturating_mul(ranks);
    if needed <= available {
        return Ok(());
    }
    let fix = match savings(experiment).first() {
        Some(saving) => format!("set {}, which saves {}", saving.set.join(", "), BinaryBytes(saving.bytes)),
        None => "choose a smaller model".to_owned(),
    };
    bail!(
        UserError::wrong(format!(
            "training needs {} of memory, but this machine has {}",
            BinaryBytes(needed),
            BinaryBytes(available)
        ))
        .hint(format!(
            "{fix}; `oss-run plan` shows what takes memory, and `run --force-start` starts anyway"
        ))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::Preset;
    use oss_config::error::ErrorReport;

    #[test]
    fn too_little_memory_is_an_error_that_says_what_to_change() {
        let mut experiment = Experiment { model: Preset::Tiny.model(), ..Experiment::default() };
        experiment.model.vocab_size = Some(257);
        experiment.train.micro_batch_size = 8192;
        assert!(check_memory(&experiment, 1, u64::MAX).is_ok());
        let report = ErrorReport::of(check_memory(&experiment, 1, 1 << 20).unwrap_err());
        assert!(report.to_string().contains("training needs "), "{report}");
        assert!(report.hints[0].starts_with("set train.micro_batch_size=1, which saves "), "{report}");
    }
}
