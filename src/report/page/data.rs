//! The data for the page's script: one JSON document embedded in the page.

use serde::Serialize;

use super::super::curves::{Curve, Map};
use super::super::run::RunReport;
use super::super::thin::{Point, means, rounded, thin};
use super::curves::is_empty;
use super::metrics::{LOSS, LOSSES, Metric, metric};
use crate::sweep::Results;

/// Total number of points over all curves. At eleven bytes per point, plus a third for means, the page stays well below
/// two megabytes.
const POINTS: usize = 80_000;

/// Maximum points per curve, limited by the pixels of a screen.
const CURVE_POINTS: usize = 2000;

/// Maximum points per clock: the time between two steps changes little.
const CLOCK_POINTS: usize = 500;

/// All data to draw.
#[derive(Debug, Serialize)]
pub struct Data<'a> {
    runs: Vec<Run<'a>>,
    /// The charts, in page order.
    pub charts: Vec<Chart>,
    /// The metrics that have the same value everywhere: tag and value.
    #[serde(skip)]
    pub constants: Vec<(String, f64)>,
    maps: Vec<Matrix>,
    sweep: Option<&'a Results>,
    /// Whether a curve has fewer points than were logged.
    #[serde(skip)]
    pub thinned: bool,
}

#[derive(Debug, Serialize)]
struct Run<'a> {
    name: &'a str,
    tokens_per_step: Option<u64>,
    /// Seconds by step.
    clock: Option<Line>,
}

/// One metric of all runs; or two, the losses.
#[derive(Debug, Serialize)]
pub struct Chart {
    /// The TensorBoard tag, such as `train/lr`, or [`LOSS`].
    #[serde(skip)]
    pub tag: String,
    /// Its description.
    #[serde(skip)]
    pub metric: Metric,
    /// Whether smoothing is useful.
    smooth: bool,
    series: Vec<Series>,
}

impl Chart {
    /// Whether it has curves of both losses.
    pub fn has_both_losses(&self) -> bool {
        [true, false].iter().all(|held| self.series.iter().any(|series| series.held == *held))
    }
}

/// One metric of one run.
#[derive(Debug, Serialize)]
struct Series {
    /// Index of the run.
    run: usize,
    /// Whether it is the validation loss, in the chart of both losses.
    held: bool,
    line: Line,
    /// The interval means of a downsampled line.
    means: Option<Line>,
}

/// Points from left to right.
#[derive(Debug, Serialize)]
struct Line {
    /// Steps, delta-encoded.
    steps: Vec<u64>,
    values: Vec<Option<f64>>,
}

impl Line {
    fn of(points: &[Point], factor: f64) -> Self {
        let before = std::iter::once(0).chain(points.iter().map(|point| point.0));
        Self {
            steps: points.iter().zip(before).map(|(point, before)| point.0 - before).collect(),
            values: points.iter().map(|point| number(point.1 * factor)).collect(),
        }
    }
}

/// A heat map.
#[derive(Debug, Serialize)]
struct Matrix {
    /// Id of the element to draw in.
    id: String,
    rows: Vec<Vec<Option<f64>>>,
    /// The last step of each column; `None` if columns are experts.
    steps: Option<Vec<u64>>,
    /// Whether the values are loads relative to uniform, rather than numbers of experts.
    load: bool,
}

/// Element id of a run's map.
pub fn map_id(run: usize, name: &str) -> String {
    format!("map-{run}-{name}")
}

/// Name of the map of the final evaluation's expert load.
pub const EXPERTS: &str = "experts";

impl<'a> Data<'a> {
    /// The data for `runs` and a sweep.
    pub fn of(runs: &'a [RunReport], sweep: Option<&'a Results>) -> Self {
        let mut groups: Vec<(&str, Vec<(usize, &Curve)>)> = Vec::new();
        for (run, curve) in runs
            .iter()
            .enumerate()
            .flat_map(|(run, report)| report.curves.iter().map(move |curve| (run, curve)))
        {
            let tag = if LOSSES.contains(&curve.tag.as_str()) { LOSS } else { curve.tag.as_str() };
            match groups.iter_mut().find(|(known, _)| *known == tag) {
                Some((_, curves)) => curves.push((run, curve)),
                None => groups.push((tag, vec![(run, curve)])),
            }
        }
        let mut constants = Vec::new();
        groups.retain(|(tag, curves)| {
            let constant = constant(curves);
            constants.extend(constant.map(|value| ((*tag).to_owned(), value * metric(tag).factor)));
            constant.is_none()
        });
        let num_curves: usize = groups.iter().map(|(_, curves)| curves.len()).sum();
        let most = (POINTS / num_curves.max(1)).clamp(8, CURVE_POINTS);
        let mut charts: Vec<Chart> = groups.iter().map(|(tag, curves)| chart(tag, curves, most)).collect();
        charts.sort_by_key(|chart| chart.metric.place);
        let known = |run: &'a RunReport| Run {
            name: &run.name,
            tokens_per_step: run.facts.estimate.as_ref().map(|estimate| estimate.tokens_per_step),
            clock: run.clock.as_ref().map(|clock| Line::of(&thin(clock, CLOCK_POINTS), 1.0)),
        };
        Self {
            runs: runs.iter().map(known).collect(),
            charts,
            constants,
            maps: runs.iter().enumerate().flat_map(|(run, report)| matrices(run, report)).collect(),
            sweep,
            thinned: groups.iter().flat_map(|(_, curves)| curves).any(|(_, curve)| curve.points.len() > most),
        }
    }

    /// The document, escaped so that it cannot close the element around it.
    pub fn to_json(&self) -> String {
        // Lists, strings and numbers always serialize to JSON.
        serde_json::to_string(self).expect("the data is JSON").replace('<', "\\u003c")
    }
}

/// The value of all points, if there are several of the same.
fn constant(curves: &[(usize, &Curve)]) -> Option<f64> {
    let mut values = curves.iter().flat_map(|(_, curve)| &curve.points).map(|point| point.1);
    let first = values.next()?;
    let mut others = values.peekable();
    (others.peek().is_some() && others.all(|value| value == first)).then_some(first)
}

fn chart(tag: &str, curves: &[(usize, &Curve)], most: usize) -> Chart {
    let about = metric(tag);
    let series = |(run, curve): &(usize, &Curve)| {
        let held = curve.tag == LOSSES[1];
        let smooths = about.smooth && !held && curve.points.len() > most;
        Series {
            run: *run,
            held,
            line: Line::of(&thin(&curve.points, most), about.factor),
            means: smooths.then(|| Line::of(&means(&curve.points, most / 3), about.factor)),
        }
    };
    Chart {
        tag: tag.to_owned(),
        metric: about,
        smooth: about.smooth,
        series: curves.iter().map(series).collect(),
    }
}

fn matrices(run: usize, report: &RunReport) -> Vec<Matrix> {
    let cells = |rows: &[Vec<f64>], factor: f64| -> Vec<Vec<Option<f64>>> {
        rows.iter().map(|row| row.iter().map(|value| number(value * factor)).collect()).collect()
    };
    let in_training =
        report.maps.iter().filter(|map| !is_empty(map)).map(|Map { name, steps, rows }| Matrix {
            id: map_id(run, name),
            rows: cells(rows, 1.0),
            steps: Some(steps.clone()),
            load: !name.starts_with("dead_experts"),
        });
    let at_the_end = report.evaluated.iter().map(|report| {
        let load = &report.evaluation.expert_load;
        Matrix {
            id: map_id(run, EXPERTS),
            // Fractions relative to a uniform load.
            rows: cells(load, load.first().map_or(1, Vec::len) as f64),
            steps: None,
            load: true,
        }
    });
    in_training.chain(at_the_end).collect()
}

fn number(value: f64) -> Option<f64> {
    value.is_finite().then(|| rounded(value))
}
