//! The data for the page's script: one JSON document embedded in the page.

use serde::Serialize;

use super::super::curves::Map;
use super::super::run::RunReport;
use super::super::thin::{Point, means, rounded, thin};
use super::metrics::{Metric, metric};
use crate::sweep::Results;

/// Total number of points over all curves. At eleven bytes per point, plus a third for means, the page stays well below
/// two megabytes.
const POINTS: usize = 80_000;

/// Maximum points per curve, limited by the pixels of a screen.
const CURVE_POINTS: usize = 2000;

/// All data to draw.
#[derive(Debug, Serialize)]
pub struct Data<'a> {
    runs: Vec<Run<'a>>,
    /// The charts, in page order.
    pub charts: Vec<Chart>,
    maps: Vec<Matrix>,
    sweep: Option<&'a Results>,
    /// Whether a curve has fewer points than were logged.
    #[serde(skip)]
    pub thinned: bool,
}

#[derive(Debug, Serialize)]
struct Run<'a> {
    label: &'a str,
    tokens_per_step: Option<u64>,
}

/// One metric of all runs.
#[derive(Debug, Serialize)]
pub struct Chart {
    /// The TensorBoard tag: `train/loss`.
    #[serde(skip)]
    pub tag: String,
    /// Its description.
    #[serde(skip)]
    pub metric: Metric,
    /// Whether smoothing is useful.
    smooth: bool,
    series: Vec<Series>,
}

/// One metric of one run.
#[derive(Debug, Serialize)]
struct Series {
    /// Index of the run.
    run: usize,
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
        let num_curves: usize = runs.iter().map(|run| run.curves.len()).sum();
        let most = (POINTS / num_curves.max(1)).clamp(8, CURVE_POINTS);
        let (mut charts, mut thinned): (Vec<Chart>, bool) = (Vec::new(), false);
        for (run, report) in runs.iter().enumerate() {
            for curve in &report.curves {
                let metric = metric(&curve.tag);
                let is_thinned = curve.points.len() > most;
                let means = (is_thinned && metric.smooth).then(|| means(&curve.points, most / 3));
                let series = Series {
                    run,
                    line: Line::of(&thin(&curve.points, most), metric.factor),
                    means: means.map(|points| Line::of(&points, metric.factor)),
                };
                thinned |= is_thinned;
                match charts.iter_mut().find(|chart| chart.tag == curve.tag) {
                    Some(chart) => chart.series.push(series),
                    None => charts.push(Chart {
                        tag: curve.tag.clone(),
                        smooth: metric.smooth,
                        series: vec![series],
                        metric,
                    }),
                }
            }
        }
        charts.sort_by_key(|chart| chart.metric.place);
        let known = |run: &'a RunReport| Run {
            label: &run.label,
            tokens_per_step: run.facts.estimate.as_ref().map(|estimate| estimate.tokens_per_step),
        };
        let maps = runs.iter().enumerate().flat_map(|(run, report)| matrices(run, report)).collect();
        Self { runs: runs.iter().map(known).collect(), charts, maps, sweep, thinned }
    }

    /// The document, escaped so that it cannot close the element around it.
    pub fn to_json(&self) -> String {
        // Lists, strings and numbers always serialize to JSON.
        serde_json::to_string(self).expect("the data is JSON").replace('<', "\\u003c")
    }
}

fn matrices(run: usize, report: &RunReport) -> Vec<Matrix> {
    let cells = |rows: &[Vec<f64>], factor: f64| -> Vec<Vec<Option<f64>>> {
        rows.iter().map(|row| row.iter().map(|value| number(value * factor)).collect()).collect()
    };
    let in_training = report.maps.iter().map(|Map { name, steps, rows }| Matrix {
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
