//! A model in training, and a single training step.

use anyhow::{Context, Result, bail, ensure};
use tch::{Kind, Tensor};

use super::batch::StagedBatch;
use super::forward_backward::{PassOptions, PassResult, forward_backward};
use super::progress::{Due, Progress};
use super::sharded_model::ShardedModel;
use super::unit_shard::UnitShard;
use crate::checkpoint::{Checkpoint, Entry};
use crate::distributed::Mesh;
use crate::model::{ExpertLoad, WeightSource, matmul_kind};
use crate::optimizer::schedule::lr_multiplier;
use crate::optimizer::{LossScale, Step, StorageConfig, sum_of_squares};
use oss_config::error::UserError;
use oss_config::{Experiment, NonFinite, Update};
use oss_torch::{fetch, synchronize};

/// The outcome of one step.
#[derive(Debug)]
pub struct StepReport {
    /// Mean loss over all ranks, in nats per token.
    pub loss: f64,
    /// The expert load of each layer over all ranks, in host memory.
    pub loads: Vec<ExpertLoad>,
    /// Tokens predicted, over all ranks.
    pub tokens: i64,
    /// Learning rate.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Whether the update was skipped because the loss or a gradient was not finite.
    pub skipped: bool,
    /// The flags raised by any rank at the end of the step.
    pub flags: Flags,
}

/// What a rank reports to the others at the end of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// A stop was requested.
    pub stop: bool,
    /// A checkpoint is still being written.
    pub writing: bool,
}

/// A model in training, with its optimizer state and progress.
pub struct Trainer<'a> {
    experiment: &'a Experiment,
    model: ShardedModel<'a>,
    /// How far training has progressed.
    pub progress: Progress,
    router_aux_loss_coef: f64,
}

impl<'a> Trainer<'a> {
    /// A trainer at step 0 with weights from `source`. With `from_scratch`, the load-balancing loss is on by default.
    pub fn new(
        experiment: &'a Experiment,
        source: &mut dyn WeightSource,
        from_scratch: bool,
        mesh: &'a Mesh,
    ) -> Result<Self> {
        let sharded = ShardedModel::load(&experiment.model, source, mesh, &StorageConfig::new(experiment))?;
        let progress = Progress {
            step: 0,
            applied: 0,
            skipped_in_a_row: 0,
            loss_scale: LossScale::new(experiment.train.precision),
            best: None,
            evaluations_since_best: 0,
            due: Due::default(),
            target_steps: experiment.train.steps,
        };
        let router_aux_loss_coef = experiment.train.router_aux_loss_coef(from_scratch);
        Ok(Self { experiment, model: sharded, progress, router_aux_loss_coef })
    }

    /// Restores the state in `checkpoint`, regardless of how many ranks wrote it.
    pub fn resume(
        experiment: &'a Experiment,
        mut checkpoint: Checkpoint,
        from_scratch: bool,
        mesh: &'a Mesh,
    ) -> Result<Self> {
        let mut trainer = Self::new(experiment, &mut checkpoint, from_scratch, mesh)?;
        trainer.model.units_mut()?.iter_mut().try_for_each(|unit| unit.load_moments(&checkpoint))?;
        trainer.progress = serde_json::from_value(checkpoint.state().clone())
            .with_context(|| format!("reading the training state in {}", checkpoint.path().display()))?;
        Ok(trainer)
    }

    /// This rank's checkpoint entries, on whichever device they reside. Replicas hold identical state, so only the
    /// first has any.
    pub fn entries(&self) -> Vec<Entry> {
        // Copies of offloaded moments to the host may still be in flight.
        synchronize(self.model.mesh().device());
        match self.model.mesh().replica {
            0 => self.model.units().iter().flat_map(|unit| unit.entries()).collect(),
            _ => Vec::new(),
        }
    }

    /// The model with its current weights.
    pub fn model(&self) -> &ShardedModel<'a> {
        &self.model
    }

    /// The dtype of the matrix products.
    pub fn kind(&self) -> Kind {
        matmul_kind(self.experiment.train.precision)
    }

    /// Runs one optimizer step on this rank's slice of a batch. `flags` is called once the backward pass is queued; on
    /// a GPU that is before it completes.
    ///
    /// On a GPU, the host synchronizes once per step, between the backward pass and the optimizer, to fetch everything
    /// it needs. While the optimizer runs, the host logs and queues the next step; a synchronization after the
    /// optimizer would leave the GPU idle in the meantime. (If units are updated in the backward pass, the loss must
    /// also be fetched before it.)
    ///
    /// # Errors
    /// Fails if a loss or gradient is not finite and the experiment does not skip such steps, or if another rank has
    /// exited.
    pub fn step(&mut self, batch: &StagedBatch, flags: impl Fn() -> Flags) -> Result<StepReport> {
        let _no_grad = tch::no_grad_guard();
        let Experiment { model, optimizer, train, .. } = self.experiment;
        let mesh = self.model.mesh();
        mesh.at_step(self.progress.step + 1);
        let loss_scale = self.progress.loss_scale.scale;
        let options = PassOptions {
            kind: self.kind(),
            activation_checkpointing: train.activation_checkpointing,
            router_aux_loss_coef: self.router_aux_loss_coef,
            loss_scale,
        };
        let lr = optimizer.lr * lr_multiplier(&self.experiment.schedule, train.steps, self.progress.step);
        let (seed, applied) = (self.experiment.run.seed, self.progress.applied);
        let step_by = |divisor| Step::new(optimizer, lr, applied, divisor, seed, mesh.device());
        let in_backward = optimizer.update == Update::InBackward;
        if in_backward {
            self.model.update_in_backward(step_by(loss_scale));
        }
        let pass = forward_backward(model, &mut self.model, &batch.micro_batches(), options)?;
        let (numbers, loads) = self.sum_and_fetch(&pass, flags())?;
        let [loss, squares, stop, writing] = numbers;
        let grad_norm = squares.sqrt() / loss_scale;
        let finite = loss.is_finite() && grad_norm.is_finite();
        let overflow = loss.is_finite() && self.progress.loss_scale.update(!finite);
        let is_corrupted = in_backward && loss.is_finite() && !finite;
        if finite {
            if !in_backward {
                let shrink = optimizer.clip_norm().map_or(1.0, |clip| (grad_norm / clip).max(1.0));
                let step = step_by(shrink * loss_scale);
                self.model
                    .units_mut()?
                    .iter_mut()
                    .try_for_each(|unit| unit.step(&step, None, &mesh.reduce))?;
            }
            self.progress.applied += 1;
            self.progress.skipped_in_a_row = 0;
        } else if is_corrupted || (!overflow && train.non_finite == NonFinite::Stop) {
            let otherwise = match is_corrupted {
                true => "set optimizer.update = \"step\", which checks the norm before updating the weights",
                false => "set train.non_finite = \"skip\"",
            };
            bail!(
                UserError::failed(format!(
                    "step {}: the loss is {loss} and the gradient norm {grad_norm}, on the batch \
                     with digest {}",
                    self.progress.step + 1,
                    batch.digest()
                ))
                .hint(format!("lower optimizer.lr, inspect the data, or {otherwise}"))
            );
        } else {
            self.progress.skipped_in_a_row += 1;
            self.check_skipped(loss, grad_norm)?;
        }
        let flags = Flags { stop: stop > 0.0, writing: writing > 0.0 };
        self.progress.step += 1;
        self.progress.target_steps = train.steps;
        Ok(StepReport { loss, loads, tokens: pass.tokens, lr, grad_norm, skipped: !finite, flags })
    }

    /// Gives up after too many skipped steps: without updates, later batches give the same.
    fn check_skipped(&self, loss: f64, grad_norm: f64) -> Result<()> {
        let Progress { applied, skipped_in_a_row, .. } = self.progress;
        let step = self.progress.step + 1;
        let most = self.experiment.train.max_skipped_steps;
        ensure!(
            skipped_in_a_row < most,
            UserError::failed(format!(
                "step {step}: {skipped_in_a_row} steps in a row were skipped ({} of {step} in total); the loss is \
                 {loss} and the gradient norm {grad_norm}",
                step - applied
            ))
            .hint(format!(
                "resume from an earlier checkpoint with a lower optimizer.lr, or raise train.max_skipped_steps (now {most})"
            ))
        );
        Ok(())
    }

    /// Fetches what the host needs of a step in one copy from the device: the loss, the squared gradient norm and the
    /// two flags, each summed over the ranks, and the expert loads.
    fn sum_and_fetch(&self, pass: &PassResult, flags: Flags) -> Result<([f64; 4], Vec<ExpertLoad>)> {
        let mesh = self.model.mesh();
        let number = |number: f64| Tensor::full([], number, (Kind::Double, mesh.device()));
        let [stop, writing] = [flags.stop, flags.writing].map(|flag| number(f64::from(u8::from(flag))));
        // Replicas hold the same gradients: only the first contributes.
        let squares = if mesh.replica == 0 { self.squares(pass) } else { number(0.0) };
        let sums = Tensor::stack(&[&pass.loss, &squares, &stop, &writing], 0);
        mesh.everyone.all_reduce(&sums, "losses and gradient norms")?.wait()?;
        let of_loads = pass.loads.iter().flat_map(|load| [&load.counts, &load.probability]);
        let fetched = fetch(&std::iter::once(&sums).chain(of_loads).collect::<Vec<_>>());
        let of_loads = fetched[1..].chunks_exact(2).zip(&pass.loads);
        let loads = of_loads.map(|(tensors, load)| ExpertLoad {
            counts: tensors[0].shallow_clone(),
            probability: tensors[1].shallow_clone(),
            tokens: load.tokens,
        });
        Ok((std::array::from_fn(|i| fetched[0].double_value(&[i as i64])), loads.collect()))
    }

    /// The sum of the squares of this rank's gradients, f64 `[]`. NaN if there was no backward pass.
    fn squares(&self, pass: &PassResult) -> Tensor {
        match (&pass.squares, self.experiment.optimizer.update) {
            (Some(squares), _) => squares.shallow_clone(),
            (None, Update::InBackward) => pass.loss.full_like(f64::NAN),
            (None, Update::Step) => {
                let squares = |unit: &UnitShard| sum_of_squares(&unit.gradient);
                let all: Vec<Tensor> = self.model.units().iter().map(squares).collect();
                Tensor::stack(&all, 0).sum(Kind::Double)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Initial;
    use crate::train::GlobalBatch;
    use oss_config::{Model, ParamDtype, Precision, Preset, StateDtype};
    use tch::Device;

    fn tiny() -> Experiment {
        let model = Model { vocab_size: Some(40), ..Preset::Tiny.model() };
        let mut experiment = Experiment { model, ..Experiment::default() };
        let train = &mut experiment.train;
        (train.global_batch_size, train.sequence_length, train.device) = (2, 16, "cpu".to_owned());
        train.non_finite = NonFinite::Skip;
        experiment
    }

    fn batch(experiment: &Experiment, step: i64) -> StagedBatch {
        let row = |row: i64| (0..17).map(|i| (step * 7 + row * 3 + i * i) % 40).collect();
        let batch = GlobalBatch::from_rows(vec![row(0), row(1)]);
        batch.staged(&experiment.train, None, Device::Cpu).unwrap()
    }

    fn snapshot(trainer: &Trainer<'_>) -> Vec<(String, Tensor)> {
        trainer.entries().into_iter().map(|entry| (entry.name, entry.tensor.copy())).collect()
    }

    /// Runs a normal step, then one after `corrupt`, which must leave weights and moments unchanged.
    fn check_skipped(experiment: &Experiment, corrupt: impl Fn(&mut Trainer<'_>)) -> (StepReport, Progress) {
        let mesh = Mesh::alone(Device::Cpu);
        let mut source = Initial::new(&experiment.model, 5);
        let mut trainer = Trainer::new(experiment, &mut source, true, &mesh).unwrap();
        let before = snapshot(&trainer);
        let good = trainer.step(&batch(experiment, 0), Flags::default).unwrap();
        let after_one = snapshot(&trainer);
        assert!(!good.skipped && !good.flags.stop);
        assert!(before.iter().zip(&after_one).any(|((_, before), (_, after))| before != after));

        corrupt(&mut trainer);
        let corrupted = snapshot(&trainer);
        let report = trainer.step(&batch(experiment, 1), || Flags { stop: true, writing: false }).unwrap();
        assert!(report.skipped);
        assert_eq!(report.flags, Flags { stop: true, writing: false });
        for ((name, before), (_, after)) in corrupted.iter().zip(&snapshot(&trainer)) {
            // NaN values that `corrupt` wrote count as equal.
            assert!(before.isclose(after, 0.0, 0.0, true).all().int64_value(&[]) == 1, "{name}");
        }
        (report, trainer.progress)
    }

    fn corrupt_a_weight(trainer: &mut Trainer<'_>) {
        let head = trainer.model.units_mut().unwrap().last_mut().unwrap();
        let _ = head.rest.weights.narrow(0, 0, 1).fill_(f64::INFINITY);
    }

    #[test]
    fn a_non_finite_loss_only_advances_the_step_count() {
        for update in [Update::Step, Update::InBackward] {
            for state in [StateDtype::F32, StateDtype::EightBit] {
                let mut experiment = tiny();
                (experiment.optimizer.update, experiment.optimizer.state_dtype) = (update, state);
                if state == StateDtype::EightBit {
                    let train = &mut experiment.train;
                    (train.precision, train.param_dtype) = (Precision::Bf16, ParamDtype::Bf16);
                }
                let (report, progress) = check_skipped(&experiment, corrupt_a_weight);
                assert!(!report.loss.is_finite() && !report.grad_norm.is_finite(), "{report:?}");
                assert_eq!((progress.step, progress.applied), (2, 1));
            }
        }
    }

    #[test]
    fn a_gradient_overflow_in_f16_halves_the_loss_scale_and_skips_the_update() {
        let mut experiment = tiny();
        experiment.train.precision = Precision::F16;
        let scale = 2f64.powi(100);
        let (report, progress) =
            check_skipped(&experiment, |trainer| trainer.progress.loss_scale.scale = scale);
        assert!(report.loss.is_finite() && !report.grad_norm.is_finite(), "{report:?}");
        assert_eq!((progress.step, progress.applied), (2, 1));
        assert_eq!(progress.loss_scale.scale, scale / 2.0);
    }
}
