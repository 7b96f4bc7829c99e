//! The cost table of a plan.

use std::time::Duration;

use chrono::Local;
use indicatif::{BinaryBytes, HumanCount, HumanDuration};

use super::super::table::table;
use super::{Plan, PlannedSource};
use crate::plan::activations::Peak;
use crate::plan::calibration::Calibration;
use crate::plan::estimate::Estimate;
use crate::plan::gpus::{Fit, Saving, USABLE_PERCENT};
use crate::plan::mesh::{Mesh, uses_gloo};
use crate::plan::throughput::Throughput;
use oss_config::{Experiment, ParamDtype, Precision, StateDtype, Update};

/// Name, amount and note.
type Row = Vec<String>;

fn row(what: &str, amount: String, note: impl Into<String>) -> Row {
    vec![what.to_owned(), amount, note.into()]
}

fn bytes(number: u64) -> String {
    BinaryBytes(number).to_string()
}

impl Plan {
    /// Parameters, memory, communication, FLOPs, tokens, disk and time.
    pub(super) fn costs(&self) -> String {
        let parts = [
            self.parameters(),
            self.memory(),
            self.fits(),
            self.savings(),
            self.traffic(),
            self.work(),
            self.disk(),
            self.time(),
            self.dry_run_rows(),
        ];
        table(&parts.concat(), &[1])
    }

    /// Dry-run measurements next to the planned figures.
    fn dry_run_rows(&self) -> Vec<Row> {
        let Some(dry) = &self.dry_run else { return Vec::new() };
        let planned = |bytes_planned: u64| format!("planned {}", bytes(bytes_planned));
        let (state, total) = (self.memory.state, self.memory.on_device);
        let seconds = |seconds: f64| HumanDuration(std::time::Duration::from_secs_f64(seconds)).to_string();
        let mut rows = vec![
            row(
                "dry run",
                format!("rank {} of {}", dry.rank, dry.ranks),
                "measured, on top of the program itself",
            ),
            row("  initialized", bytes(dry.initialized_bytes), planned(state)),
            row("  initialization", bytes(dry.initialization_peak_bytes), "peak"),
            row("  checkpointing", bytes(dry.saving_peak_bytes), "peak"),
            row(
                "  checkpoint file",
                bytes(dry.file_bytes),
                format!("written in {}", seconds(dry.saving_seconds)),
            ),
        ];
        if let Some(peak) = dry.training_peak_bytes {
            rows.insert(3, row("  training", bytes(peak), format!("peak; {}", planned(total))));
        }
        rows
    }

    fn parameters(&self) -> Vec<Row> {
        let count = |number: i64| HumanCount(number.unsigned_abs()).to_string();
        let parameters = &self.estimate.parameters;
        vec![
            row("parameters", count(parameters.total), ""),
            row("  active", count(parameters.active), "used per token, without the embedding"),
            row("  embedding", count(parameters.embedding), ""),
            row("  attention", count(parameters.attention), ""),
            row("  experts", count(parameters.experts), ""),
            row("  router", count(parameters.router), ""),
            row("  norm", count(parameters.norm), ""),
            row("  head", count(parameters.head), ""),
        ]
    }

    /// Device memory, then host memory if separate; empty kinds are left out.
    fn memory(&self) -> Vec<Row> {
        let Experiment { optimizer, train, sharding, checkpoint, .. } = &self.experiment;
        let (memory, kinds) = (&self.memory, &self.memory.kinds);
        let offloads = memory.on_gpu && sharding.optimizer_cpu_offload;
        let copies_on_device = checkpoint.background && !memory.on_gpu;
        let narrow = match train.precision {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        };
        let peak = match kinds.workspace_peak {
            Peak::Loss => "peak, in the loss",
            Peak::Block => "peak, in a block's backward pass",
            Peak::Update => "peak, in the optimizer step",
        };
        let weights = match train.param_dtype {
            ParamDtype::F32 => "f32",
            ParamDtype::Bf16 => "matrices in bf16, without f32 master weights",
        };
        let gradients = match (optimizer.update, self.mesh.ranks()) {
            (Update::Step, _) => "f32",
            (Update::InBackward, 1) => "one unit, f32",
            (Update::InBackward, _) => "two units, f32",
        };
        let moments = match optimizer.state_dtype {
            StateDtype::F32 => "f32",
            StateDtype::Bf16 => "bf16",
            StateDtype::EightBit => "8-bit",
        };
        let state = format!("{moments}; {} including the two above", bytes(memory.state));
        let zero_unless = |here: bool, bytes: u64| if here { bytes } else { 0 };
        let on_device = [
            ("  parameters", kinds.parameters, weights.to_owned()),
            ("  gradients", kinds.gradients, gradients.to_owned()),
            ("  optimizer", zero_unless(!offloads, kinds.optimizer), state.clone()),
            ("  compute copy", kinds.compute_copy, format!("matrices in {narrow}")),
            ("  gathered units", kinds.gathered, format!("two units, {narrow}")),
            ("  gradients in flight", kinds.gradients_in_flight, "two units, f32".to_owned()),
            ("  moments in flight", kinds.moments_in_flight, "one unit".to_owned()),
            ("  activations", kinds.activations, "computed from shapes".to_owned()),
            ("  workspace", kinds.workspace, peak.to_owned()),
            ("  checkpoint copy", zero_unless(copies_on_device, kinds.checkpoint_copy), String::new()),
        ];
        let on_host = [
            ("host memory per rank", kinds.on_host, String::new()),
            ("  optimizer", zero_unless(offloads, kinds.optimizer), state),
            ("  checkpoint copy", zero_unless(!copies_on_device, kinds.checkpoint_copy), String::new()),
        ];
        let what = if memory.on_gpu { "GPU memory per rank" } else { "memory per rank" };
        let mut rows = vec![row(what, bytes(memory.on_device), mesh(&self.mesh))];
        let there = on_device.into_iter().chain(on_host).filter(|(_, amount, _)| *amount > 0);
        rows.extend(there.map(|(what, amount, note)| row(what, bytes(amount), note)));
        rows
    }

    /// GPUs on which a rank fits; on the CPU, whether all ranks fit on this machine.
    fn fits(&self) -> Vec<Row> {
        let all = match self.mesh.ranks() {
            _ if self.memory.on_gpu => String::new(),
            1 => String::new(),
            ranks => format!("for all {ranks} ranks"),
        };
        let fit = |Fit { name, missing, .. }: &Fit| {
            let (what, note) = (format!("  {name}"), all.as_str());
            match missing {
                0 => row(&what, "fits".to_owned(), note),
                missing => row(&what, bytes(*missing), format!("missing {note}").trim_end()),
            }
        };
        let usable = format!("assuming {USABLE_PERCENT}% of a GPU's memory is usable");
        let note = if self.memory.on_gpu { usable.as_str() } else { "" };
        std::iter::once(row("memory fit", String::new(), note)).chain(self.fits.iter().map(fit)).collect()
    }

    fn savings(&self) -> Vec<Row> {
        let what = |first: bool| if first { "savings per rank" } else { "" };
        let numbered = self.savings.iter().enumerate();
        let set = |saving: &Saving| saving.set.join(", ");
        numbered.map(|(i, saving)| row(what(i == 0), bytes(saving.bytes), set(saving))).collect()
    }

    fn traffic(&self) -> Vec<Row> {
        let traffic = &self.traffic;
        if traffic.total == 0 {
            return Vec::new();
        }
        let Experiment { sharding, train, .. } = &self.experiment;
        let reduced = if uses_gloo(sharding, train) { "doubled: Gloo uses all-reduce" } else { "" };
        let kinds = [
            ("  all-gather", traffic.kinds.all_gather, "weights"),
            ("  reduce-scatter", traffic.kinds.reduce_scatter, reduced),
            ("  all-reduce", traffic.kinds.all_reduce, "across replicas"),
        ];
        let mut rows =
            vec![row("sent per step and rank", bytes(traffic.total), "independent of gradient accumulation")];
        let there = kinds.into_iter().filter(|(_, amount, _)| *amount > 0);
        rows.extend(there.map(|(what, amount, note)| row(what, bytes(amount), note)));
        let known = if self.interconnects.is_empty() { "unknown" } else { "" };
        let note =
            if known.is_empty() { "to hide communication behind compute" } else { "until the first steps" };
        rows.push(row("minimum interconnect", known.to_owned(), note));
        rows.extend(self.interconnects.iter().map(|link| {
            let speed = link
                .flops_per_second
                .map_or("as measured".to_owned(), |flops| format!("at {}FLOP/s", scaled(flops)));
            let amount = format!("{}/s", bytes(link.bytes_per_second as u64));
            row(&format!("  {}", link.device), amount, format!("{:.2} s per step {speed}", link.step_seconds))
        }));
        rows
    }

    fn work(&self) -> Vec<Row> {
        let Estimate { flops_per_token, flops, tokens_per_step, tokens, .. } = &self.estimate;
        let unknown = ("unknown".to_owned(), "until prepared");
        if let Some(epochs) = self.experiment.train.epochs {
            return vec![
                row("FLOPs per token", scaled(*flops_per_token), "forward and backward"),
                row("tokens per step", HumanCount(*tokens_per_step).to_string(), ""),
                row("total tokens", "unknown".to_owned(), "until prepared"),
                row("epochs", epochs.to_string(), ""),
            ];
        }
        let (epochs, note) = self.epochs.map_or(unknown, |epochs| (format!("{epochs:.2}"), ""));
        let steps = format!("{} steps", self.experiment.train.steps);
        let mut rows = vec![
            row("FLOPs per token", scaled(*flops_per_token), "forward and backward"),
            row("total FLOPs", scaled(*flops), ""),
            row("tokens per step", HumanCount(*tokens_per_step).to_string(), ""),
            row("total tokens", HumanCount(*tokens).to_string(), steps),
            row("epochs", epochs, note),
        ];
        if let mix @ [_, _, ..] = self.sources.as_slice() {
            rows.extend(mix.iter().map(|PlannedSource { source, epochs }| {
                let note = format!(
                    "{:.0}% of the sequences, from {} tokens",
                    100.0 * source.share,
                    HumanCount(source.tokens)
                );
                row(&format!("  {}", source.name), format!("{epochs:.2}"), note)
            }));
        }
        rows
    }

    fn disk(&self) -> Vec<Row> {
        let disk = &self.disk;
        let free = self.disk_free.map(|free| format!(", {} free", bytes(free))).unwrap_or_default();
        vec![
            row("disk", bytes(disk.total()), format!("by the end of the run{free}")),
            row("  checkpoint", bytes(disk.checkpoint), format!("up to {} at a time", disk.num_checkpoints)),
            row("  export", bytes(disk.export), ""),
        ]
    }

    /// Training and its evaluations, whose forward pass costs a third of a training step. The run's own throughput
    /// takes precedence over a calibration.
    fn time(&self) -> Vec<Row> {
        if self.experiment.train.epochs.is_some() {
            return vec![row("time", "unknown".to_owned(), "until prepared")];
        }
        let (what, speed, tokens, how) = match (self.throughput, self.calibration) {
            (Some(Throughput { tokens_per_second: speed, secs_left }), _) => {
                ("time left", speed, secs_left * speed, "as measured in this run".to_owned())
            }
            (None, Some(Calibration { tokens_per_second: speed, measured })) => {
                let day = measured.with_timezone(&Local).format("%Y-%m-%d");
                ("time", speed, self.estimate.tokens as f64, format!("as measured by --calibrate on {day}"))
            }
            (None, None) => {
                return vec![row(
                    "time",
                    "unknown".to_owned(),
                    "until the first steps; measure it with --calibrate",
                )];
            }
        };
        let duration = |secs: f64| {
            let duration = Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX);
            HumanDuration(duration).to_string()
        };
        let mut rows =
            vec![row(what, duration(tokens / speed), format!("training, at {speed:.0} tokens/s, {how}"))];
        let evaluate = &self.experiment.evaluate;
        if let Some(held) = self.validation_tokens.filter(|_| evaluate.every_steps > 0) {
            let scored = evaluate.max_tokens.map_or(held, |most| most.min(held)) as f64;
            let steps = tokens / self.estimate.tokens_per_step as f64;
            let times = (steps / evaluate.every_steps as f64).ceil();
            let note = format!("{times:.0} evaluations of {}", HumanCount(scored as u64));
            rows.push(row("", duration(times * scored / 3.0 / speed), note));
        }
        rows
    }
}

fn mesh(mesh: &Mesh) -> String {
    match (mesh.shards, mesh.replicas) {
        (1, 1) => "one rank".to_owned(),
        (shards, 1) => format!("{shards} shards"),
        (1, replicas) => format!("{replicas} replicas"),
        (shards, replicas) => {
            let assumed = if mesh.assumed { ", assumed" } else { "" };
            format!("{replicas} replicas of {shards} shards{assumed}")
        }
    }
}

/// A number with an SI prefix and one decimal: 22.9 G.
fn scaled(number: f64) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P", "E", "Z"];
    let last = prefixes.len() - 1;
    let power = prefixes.iter().enumerate().position(|(power, _)| number < 1000f64.powi(power as i32 + 1));
    let power = power.unwrap_or(last);
    format!("{:.1} {}", number / 1000f64.powi(power as i32), prefixes[power])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_scaled() {
        for (number, text) in [(5.0, "5.0 "), (22.93e9, "22.9 G"), (1e24, "1000.0 Z")] {
            assert_eq!(scaled(number), text);
        }
    }

    #[test]
    fn a_mesh_says_what_was_assumed() {
        let show = |shards, replicas, assumed| mesh(&Mesh { shards, replicas, assumed });
        assert_eq!(show(1, 1, false), "one rank");
        assert_eq!(show(5, 1, false), "5 shards");
        assert_eq!(show(1, 4, false), "4 replicas");
        assert_eq!(show(8, 2, false), "2 replicas of 8 shards");
        assert_eq!(show(8, 2, true), "2 replicas of 8 shards, assumed");
    }
}
