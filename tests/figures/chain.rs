//! A training step as the driver executes it, and the cost of its order.

use std::path::Path;
use std::sync::{Arc, Mutex};

use oss_config::{
    Experiment, Model, OptimizerKind, Overrides, ParamDtype, Preset, Sharding, StateDtype, Strategy, Update,
    load,
};
use oss_data::sources::Watch;
use oss_run::plan::communication::traffic;
use oss_run::plan::memory::{Memory, memory};
use oss_run::plan::{NetworkAccess, complete};
use oss_runs::run_dir::RunsDir;
use oss_train::distributed::Mesh;
use oss_train::model::{Initial, Sequences};
use oss_train::optimizer::StorageConfig;
use oss_train::train::{MicroBatch, PassOptions, ShardedModel, UnitShard, forward_backward};
use tch::{Device, Kind, Tensor};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::check;
use crate::svg::{Scale, Svg};

/// An event that the driver reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Happened {
    what: String,
    unit: usize,
    micro_batch: Option<usize>,
}

impl Visit for Happened {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "unit" => self.unit = value as usize,
            "micro_batch" => self.micro_batch = Some(value as usize),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.what = format!("{value:?}");
        }
    }
}

/// Records every event that names a unit.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Happened>>>);

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().fields().field("unit").is_some() {
            let mut happened = Happened::default();
            event.record(&mut happened);
            self.0.lock().unwrap().push(happened);
        }
    }
}

const RANKS: usize = 4;
const MICRO_BATCHES: usize = 4;
const LENGTH: i64 = 64;

/// Four blocks; the sizes of embedding and block have the same ratio as in the 20b preset.
fn small() -> Experiment {
    let model = Model { vocab_size: Some(704), num_hidden_layers: 4, ..Preset::Tiny.model() };
    let sharding = Sharding { strategy: Strategy::Fsdp, ranks: RANKS as u64, ..Sharding::default() };
    let mut experiment = Experiment { model, sharding, ..Experiment::default() };
    experiment.train.device = "cpu".into();
    experiment
}

/// Runs forward and backward of rank 0 among simulated ranks; returns the events, and the bytes of each unit.
fn traced(experiment: &Experiment) -> (Vec<Happened>, Vec<f64>) {
    let model = &experiment.model;
    let mesh = Mesh::simulated(&experiment.sharding, 0, Device::Cpu).unwrap();
    let mut initial = Initial::new(model, 1);
    let mut sharded =
        ShardedModel::load(model, &mut initial, &mesh, &StorageConfig::f32(Kind::Float)).unwrap();
    let micro_batch = |_| {
        let tokens = Tensor::arange(LENGTH + 1, (Kind::Int64, Device::Cpu)).unsqueeze(0);
        MicroBatch {
            inputs: Sequences { tokens: tokens.narrow(1, 0, LENGTH).contiguous(), documents: None },
            targets: tokens.narrow(1, 1, LENGTH).flatten(0, -1),
        }
    };
    let batch: Vec<MicroBatch> = (0..MICRO_BATCHES).map(micro_batch).collect();
    let options = PassOptions {
        kind: Kind::Float,
        activation_checkpointing: true,
        router_aux_loss_coef: 0.0,
        loss_scale: 1.0,
    };
    let recorder = Recorder::default();
    let subscriber = tracing_subscriber::registry().with(recorder.clone());
    let _no_grad = tch::no_grad_guard();
    tracing::subscriber::with_default(subscriber, || {
        forward_backward(model, &mut sharded, &batch, options).unwrap();
    });
    let elements = |unit: &UnitShard| (unit.layout.matrices + unit.layout.rest) as f64;
    let bytes = sharded.units().iter().map(|unit| 4.0 * elements(unit)).collect();
    (recorder.0.lock().unwrap().clone(), bytes)
}

/// One micro-batch in one unit.
struct Cell {
    unit: usize,
    micro_batch: usize,
    class: &'static str,
}

/// A span during which a unit's weights or gradients are being communicated.
struct Travel {
    unit: usize,
    from: usize,
    to: usize,
    class: &'static str,
}

fn class_of(what: &str) -> Option<&'static str> {
    match what {
        "forward" => Some("s0"),
        "loss" => Some("s4"),
        "backward" => Some("s1"),
        _ => None,
    }
}

/// Cells in order, and the communication that overlaps them.
fn timeline(happened: &[Happened]) -> (Vec<Cell>, Vec<Travel>) {
    let (mut cells, mut travels): (Vec<Cell>, Vec<Travel>) = (Vec::new(), Vec::new());
    for Happened { what, unit, micro_batch } in happened {
        let (unit, now) = (*unit, cells.len());
        match what.as_str() {
            "gather begins" => travels.push(Travel { unit, from: now, to: now, class: "s2" }),
            "reduction begins" => travels.push(Travel { unit, from: now, to: now, class: "s3" }),
            "gathered" | "reduced" => {
                let class = if what == "gathered" { "s2" } else { "s3" };
                let begun = travels.iter_mut().rev().find(|t| t.unit == unit && t.class == class);
                // Weights that are still present are used without a gather.
                if let Some(travel) = begun.filter(|travel| travel.to == travel.from) {
                    travel.to = now;
                }
            }
            what => cells.extend(class_of(what).map(|class| Cell {
                unit,
                micro_batch: micro_batch.unwrap(),
                class,
            })),
        }
    }
    (cells, travels)
}

/// The same work one micro-batch at a time, as gradient accumulation is usually done; communication starts one cell
/// ahead.
fn micro_batch_major(units: usize) -> (Vec<Cell>, Vec<Travel>) {
    let (mut cells, mut travels) = (Vec::new(), Vec::new());
    let head = units - 1;
    for micro_batch in 0..MICRO_BATCHES {
        let forward = (0..head).map(|unit| (unit, "s0")).chain([(head, "s4")]);
        for (unit, class) in forward.chain((0..head).rev().map(|unit| (unit, "s1"))) {
            let now = cells.len();
            let is_there = class == "s1" && (unit == 0 || unit + 1 == head);
            if !is_there {
                travels.push(Travel { unit, from: now.saturating_sub(1), to: now, class: "s2" });
            }
            if class != "s0" {
                travels.push(Travel { unit, from: now + 1, to: now + 2, class: "s3" });
            }
            cells.push(Cell { unit, micro_batch, class });
        }
    }
    (cells, travels)
}

const LEFT: f64 = 92.0;
const SLOT: f64 = 18.0;
const ROW: f64 = 22.0;

fn draw_timeline(svg: &mut Svg, top: f64, units: usize, (cells, travels): &(Vec<Cell>, Vec<Travel>)) {
    let y = |unit: usize| top + (units - 1 - unit) as f64 * ROW;
    let x = |slot: usize| LEFT + slot as f64 * SLOT;
    for unit in 0..units {
        let name = match unit {
            0 => "embedding".to_owned(),
            unit if unit + 1 == units => "head + loss".to_owned(),
            unit => format!("block {}", unit - 1),
        };
        svg.text("end", LEFT - 14.0, y(unit) + 15.0, &name);
        svg.rect("none", [LEFT - 8.0, y(unit) + 1.0, cells.len() as f64 * SLOT + 16.0, ROW - 2.0]);
    }
    for Travel { unit, from, to, class } in travels {
        let (start, end) = (x(*from), x((*to).min(cells.len())).max(x(*from)));
        let is_gather = *class == "s2";
        // Communication that nothing hides still takes time: before the first cell, and after the last.
        let (start, end) = match end - start < 1.0 {
            true if is_gather => (start - 7.0, start + 1.0),
            true => (start - 1.0, start + 7.0),
            false => (start, end),
        };
        let place = if is_gather { 6.0 } else { 11.0 };
        svg.rect(class, [start + 1.0, y(*unit) + place, end - start - 2.0, 5.0]);
    }
    for (slot, Cell { unit, micro_batch, class }) in cells.iter().enumerate() {
        svg.rect(class, [x(slot) + 0.5, y(*unit) + 2.0, SLOT - 1.0, ROW - 4.0]);
        svg.text("on mid", x(slot) + SLOT / 2.0, y(*unit) + 15.0, &micro_batch.to_string());
    }
}

/// Bytes in memory at each slot: boundary activations, gathered weights, gradients of whole units.
fn held(happened: &[Happened], bytes: &[f64], model: &Model) -> Vec<[f64; 3]> {
    let rows = LENGTH as f64;
    let boundary = rows * model.hidden_size as f64 * 4.0;
    let choice = rows * model.num_experts_per_tok as f64 * 8.0;
    let (mut now, mut held) = ([0.0; 3], Vec::new());
    let (mut taken, mut gathered): (usize, Vec<usize>) = (usize::MAX, Vec::new());
    let mut reducing: Vec<usize> = Vec::new();
    for Happened { what, unit, micro_batch } in happened {
        let is_block = *unit > 0 && unit + 1 < bytes.len();
        match what.as_str() {
            "gather begins" => {
                gathered.retain(|unit| *unit == taken);
                gathered.push(*unit);
            }
            "gathered" => taken = *unit,
            "reduced" => reducing.retain(|other| other != unit),
            "forward" => now[0] += boundary + if is_block { choice } else { 0.0 },
            "loss" | "backward" if *micro_batch == Some(0) => reducing.push(*unit),
            _ => {}
        }
        now[1] = gathered.iter().map(|unit| bytes[*unit]).sum();
        now[2] = reducing.iter().map(|unit| bytes[*unit]).sum();
        assert!(gathered.len() <= 2 && reducing.len() <= 2);
        if class_of(what).is_some() {
            held.push(now);
        }
        if what == "backward" && is_block {
            now[0] -= boundary + choice;
        }
    }
    held
}

#[test]
fn a_step_traced_from_the_driver() {
    let experiment = small();
    let (happened, bytes) = traced(&experiment);
    let (units, head) = (bytes.len(), bytes.len() - 1);
    let count =
        |what: &str, unit: usize| happened.iter().filter(|h| h.what == what && h.unit == unit).count();
    for unit in 0..units {
        // Gathered twice, except the ends of the chain and the last block, which is still present when the backward
        // pass begins.
        let gathers = if unit == 0 || unit + 1 >= head { 1 } else { 2 };
        assert_eq!((count("gather begins", unit), count("reduction begins", unit)), (gathers, 1), "{unit}");
    }
    let moved: f64 = happened.iter().filter(|h| h.what == "gather begins").map(|h| bytes[h.unit]).sum();
    let others = (RANKS as f64 - 1.0) / RANKS as f64;
    assert_eq!(traffic(&experiment).all_gather as f64, moved * others, "`plan` reports different traffic");

    let ours = timeline(&happened);
    let usual = micro_batch_major(units);
    assert_eq!(ours.0.len(), usual.0.len(), "both orders must do the same work");
    let gathers =
        |(_, travels): &(Vec<Cell>, Vec<Travel>)| travels.iter().filter(|t| t.class == "s2").count();
    let reductions =
        |(_, travels): &(Vec<Cell>, Vec<Travel>)| travels.iter().filter(|t| t.class == "s3").count();

    let end = LEFT + ours.0.len() as f64 * SLOT;
    let mut svg = Svg::new(end + 24.0, 596.0, "A training step in unit-major and in micro-batch-major order");
    let title = |svg: &mut Svg, y: f64, name: &str, order: &(Vec<Cell>, Vec<Travel>)| {
        svg.text("h", 16.0, y, name);
        let counts = format!("{} all-gathers, {} reduce-scatters", gathers(order), reductions(order));
        svg.text("end b", end + 8.0, y, &counts);
    };
    title(&mut svg, 28.0, "Unit-major: traced from the driver", &ours);
    draw_timeline(&mut svg, 38.0, units, &ours);

    let held = held(&happened, &bytes, &experiment.model);
    let (top, bottom) = (210.0, 320.0);
    let most = held.iter().map(|held| held.iter().sum::<f64>()).fold(0.0, f64::max);
    let scale = Scale { values: (0.0, most * 1.08), pixels: (bottom, top), log: false };
    svg.text("b", 16.0, top - 10.0, "Memory in use");
    for kib in [0.0, 400.0, 800.0, 1200.0] {
        let y = scale.at(kib * 1024.0);
        svg.line("grid", (LEFT - 8.0, y), (end + 8.0, y));
        svg.text("end small dim", LEFT - 14.0, y + 4.0, &format!("{kib} KiB"));
    }
    let mut floor = vec![0.0; held.len()];
    for (part, class) in ["s0 soft", "s2 soft", "s3 soft"].iter().enumerate() {
        let (mut above, mut below) = (Vec::new(), Vec::new());
        for (slot, held) in held.iter().enumerate() {
            let (from, to) = (LEFT + slot as f64 * SLOT, LEFT + (slot + 1) as f64 * SLOT);
            let (low, high) = (scale.at(floor[slot]), scale.at(floor[slot] + held[part]));
            above.extend([(from, high), (to, high)]);
            below.extend([(from, low), (to, low)]);
            floor[slot] += held[part];
        }
        below.reverse();
        above.append(&mut below);
        svg.area(class, &above);
    }
    svg.line("axis", (LEFT - 8.0, bottom), (end + 8.0, bottom));
    let mut x = LEFT;
    for (class, words) in [
        ("s0 soft", "boundary activations"),
        ("s2 soft", "gathered weights: at most two units"),
        ("s3 soft", "gradients of whole units, f32: at most two"),
    ] {
        x = svg.key(class, x, 342.0, words);
    }

    title(&mut svg, 384.0, "Micro-batch-major, for comparison", &usual);
    draw_timeline(&mut svg, 394.0, units, &usual);
    let mut x = LEFT;
    for (class, words) in [
        ("s0", "forward (number: micro-batch)"),
        ("s4", "loss"),
        ("s1", "backward"),
        ("s2", "all-gather in flight"),
        ("s3", "reduce-scatter in flight"),
    ] {
        x = svg.key(class, x, 554.0, words);
    }
    svg.text(
        "small dim",
        LEFT,
        578.0,
        "Time runs to the right, one column per micro-batch and unit (not to scale). Rank 0 of 4, fsdp, 4 micro-batches, \
         activation checkpointing.",
    );
    check("unit-major-step.svg", &svg.finish());
}

/// A shipped experiment, with the vocabulary size filled in.
fn shipped(name: &str) -> Experiment {
    let resolved = load(Path::new("experiments").join(name).as_path(), &Overrides::default()).unwrap();
    let (runs, local) = (RunsDir::new("runs"), NetworkAccess::Local(Watch::quiet()));
    complete(&resolved, &runs, local).unwrap().experiment
}

const GB: f64 = 1e9;

#[test]
fn accumulation_costs_bytes_in_one_order_and_memory_in_the_other() {
    let micro_batches: Vec<f64> = (0..=6).map(|power| f64::from(1 << power)).collect();
    let with = |count: f64, recompute: bool| {
        let mut experiment = shipped("20b_tinystories.toml");
        experiment.train.global_batch_size = 5 * count as i64;
        experiment.train.activation_checkpointing = recompute;
        experiment
    };
    let sent = |count: f64| traffic(&with(count, false)).total() as f64 / GB;
    let kept = |count: f64, recompute: bool| memory(&with(count, recompute)).activations as f64 / GB;
    assert_eq!(sent(8.0), sent(1.0));
    assert!((sent(1.0) - 130.7).abs() < 0.1, "the page says 131 GB: {}", sent(1.0));

    let mut svg = Svg::new(960.0, 426.0, "What accumulation costs in unit-major and micro-batch-major order");
    let panel = |svg: &mut Svg, left: f64, title: &str, values: (f64, f64), ticks: &[f64]| {
        let x = Scale { values: (1.0, 64.0), pixels: (left, left + 350.0), log: true };
        let y = Scale { values, pixels: (330.0, 60.0), log: true };
        svg.text("h", left, 32.0, title);
        for tick in ticks {
            svg.line("grid", (left, y.at(*tick)), (left + 350.0, y.at(*tick)));
            let words = if *tick >= 1000.0 { format!("{} TB", tick / 1000.0) } else { format!("{tick} GB") };
            svg.text("end small dim", left - 8.0, y.at(*tick) + 4.0, &words);
        }
        for count in &micro_batches {
            svg.text("mid small dim", x.at(*count), 348.0, &format!("{count}"));
        }
        svg.text("mid small dim", left + 175.0, 368.0, "micro-batches accumulated per step and rank");
        svg.line("axis", (left, 330.0), (left + 350.0, 330.0));
        svg.line("mark", (x.at(8.0), 60.0), (x.at(8.0), 330.0));
        (x, y)
    };
    let curve = |svg: &mut Svg, class: &str, (x, y): (Scale, Scale), of: &dyn Fn(f64) -> f64| {
        let points: Vec<(f64, f64)> =
            micro_batches.iter().map(|count| (x.at(*count), y.at(of(*count)))).collect();
        svg.path(&format!("line {class}"), &points);
        let fill = class.replace('l', "s");
        points.iter().for_each(|point| svg.dot(&fill, *point, 3.0));
    };

    let ticks = [100.0, 300.0, 1000.0, 3000.0, 10000.0];
    let place = panel(&mut svg, 80.0, "Bytes sent per step and rank", (80.0, 12000.0), &ticks);
    curve(&mut svg, "l1", place, &|count| count * sent(1.0));
    curve(&mut svg, "l0", place, &sent);
    svg.text("b", place.0.at(9.0), place.1.at(sent(1.0)) - 10.0, &format!("unit-major: {:.0} GB", sent(1.0)));
    svg.text("b", place.0.at(9.0), place.1.at(500.0), "micro-batch-major");
    let at_eight = format!("{:.2} TB at 8", 8.0 * sent(1.0) / 1000.0);
    svg.text("end b", place.0.at(7.2), place.1.at(8.0 * sent(1.0)) - 4.0, &at_eight);

    let ticks = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];
    let place = panel(&mut svg, 560.0, "Activations stored per rank", (0.05, 150.0), &ticks);
    curve(&mut svg, "l1", place, &|_| kept(1.0, false));
    curve(&mut svg, "l1 dash", place, &|_| kept(1.0, true));
    curve(&mut svg, "l0", place, &|count| kept(count, false));
    curve(&mut svg, "l0 dash", place, &|count| kept(count, true));
    let label = |svg: &mut Svg, count: f64, value: f64, up: f64, words: String| {
        svg.text("end b", place.0.at(count), place.1.at(value) - up, &words);
    };
    label(&mut svg, 7.2, kept(8.0, false), 18.0, format!("unit-major: {:.1} GB at 8", kept(8.0, false)));
    let checkpointed = format!("checkpointed: {:.2} GB at 8", kept(8.0, true));
    svg.text("b", place.0.at(8.8), place.1.at(kept(8.0, true)) + 20.0, &checkpointed);
    label(&mut svg, 64.0, kept(1.0, false), -16.0, "micro-batch-major".to_owned());
    label(&mut svg, 64.0, kept(1.0, true), 8.0, "micro-batch-major, checkpointed".to_owned());
    for (line, words) in [
        "experiments/20b_tinystories.toml: 20.9 B parameters, 5 ranks, sequences of 512 tokens, bf16 products.",
        "Dashed vertical line: the unmodified experiment. Computed by plan; not run.",
    ]
    .into_iter()
    .enumerate()
    {
        svg.text("small dim", 80.0, 396.0 + 16.0 * line as f64, words);
    }
    check("unit-major-cost.svg", &svg.finish());
}

#[test]
fn twenty_billion_parameters_on_one_gpu() {
    let last = shipped("20b_1gpu.toml");
    let mut experiment = last.clone();
    experiment.train.param_dtype = ParamDtype::F32;
    experiment.train.activation_checkpointing = false;
    experiment.optimizer.kind = OptimizerKind::Adamw;
    (experiment.optimizer.state_dtype, experiment.optimizer.update) = (StateDtype::F32, Update::Step);
    let mut steps = vec![("defaults, bf16 products", memory(&experiment))];
    experiment.train.activation_checkpointing = true;
    steps.push(("+ activation checkpointing", memory(&experiment)));
    experiment.optimizer.state_dtype = StateDtype::EightBit;
    steps.push(("+ 8-bit moments", memory(&experiment)));
    experiment.train.param_dtype = ParamDtype::Bf16;
    steps.push(("+ bf16 weights", memory(&experiment)));
    experiment.optimizer.update = Update::InBackward;
    steps.push(("+ update in the backward", memory(&experiment)));
    assert_eq!(experiment, last, "the last bar must be the shipped experiment");

    type Part = (&'static str, &'static str, fn(&Memory) -> u64);
    let parts: [Part; 6] = [
        ("s0", "weights", |memory| memory.parameters),
        ("s0 soft", "bf16 copy", |memory| memory.compute_copy),
        ("s3", "gradients", |memory| memory.gradients),
        ("s4", "moments", |memory| memory.optimizer),
        ("s1", "activations", |memory| memory.activations),
        ("s5", "workspace", |memory| memory.workspace),
    ];
    let most = steps.iter().map(|(_, memory)| memory.total()).max().unwrap() as f64 / GB;
    let mut svg = Svg::new(960.0, 330.0, "Memory of 20.9 billion parameters on one GPU, setting by setting");
    let x = Scale { values: (0.0, most * 1.1), pixels: (190.0, 930.0), log: false };
    svg.text("h", 16.0, 28.0, "20.9 B parameters on one GPU: memory saved by each setting");
    for tick in (0..=4).map(|tick| f64::from(tick) * 100.0) {
        svg.line("grid", (x.at(tick), 48.0), (x.at(tick), 256.0));
        svg.text("mid small dim", x.at(tick), 272.0, &format!("{tick} GB"));
    }
    for (index, (name, memory)) in steps.iter().enumerate() {
        let y = 54.0 + 40.0 * index as f64;
        svg.text("end", 180.0, y + 19.0, name);
        let mut sum = 0.0;
        for (class, _, of) in &parts {
            let bytes = of(memory) as f64 / GB;
            svg.rect(class, [x.at(sum), y, x.at(sum + bytes) - x.at(sum), 28.0]);
            sum += bytes;
        }
        assert!((sum - memory.total() as f64 / GB).abs() < 1e-6, "the bars must add up to the total");
        svg.text("b", x.at(sum) + 8.0, y + 19.0, &format!("{sum:.1} GB"));
    }
    svg.line("mark", (x.at(141.0), 48.0), (x.at(141.0), 256.0));
    svg.text("small dim", x.at(141.0) + 4.0, 252.0, "141 GB: one H200");
    let mut left = 190.0;
    for (class, words, _) in &parts {
        left = svg.key(class, left, 300.0, words);
    }
    svg.text(
        "small dim",
        190.0,
        320.0,
        "experiments/20b_1gpu.toml: 5 sequences of 4,096 tokens per step. Computed by plan; not measured on a GPU.",
    );
    check("unit-major-memory.svg", &svg.finish());
}
