//! Metrics from `metrics.jsonl`: scalars as curves, per-layer metrics as heat maps.

use std::collections::HashMap;

use super::thin::Point;
use oss_runs::monitor::{DETAILS, MetricsLine, scalars};

/// A scalar over the steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// The TensorBoard tag: `train/loss`.
    pub tag: String,
    /// Its values, in step order.
    pub points: Vec<Point>,
}

/// A list of numbers over the steps, such as the maximum expert load of each layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// Name of the list: `max_load_layers`.
    pub name: String,
    /// The last step of each column.
    pub steps: Vec<u64>,
    /// `[position][column]`: the maximum of the position over the column's steps; NaN if there is none.
    pub rows: Vec<Vec<f64>>,
}

/// All curves in `lines`, in order of first appearance.
pub fn curves(lines: &[MetricsLine]) -> Vec<Curve> {
    let mut places = HashMap::new();
    let mut curves: Vec<Curve> = Vec::new();
    for line in lines {
        for (tag, value) in scalars(&line.fields) {
            let place = *places.entry(tag).or_insert_with_key(|tag| {
                curves.push(Curve { tag: tag.clone(), points: Vec::new() });
                curves.len() - 1
            });
            curves[place].points.push((line.step, value));
        }
    }
    curves
}

/// The name of the list that a tag belongs to: `max_load_layers` for `verbose/max_load_layers/03`.
fn list_of(tag: &str) -> Option<&str> {
    let (name, position) = tag.strip_prefix(DETAILS)?.rsplit_once('/')?;
    position.bytes().all(|byte| byte.is_ascii_digit()).then_some(name)
}

/// Moves list elements out of `curves` into one map per list, with at most `most` columns.
pub fn take_maps(curves: &mut Vec<Curve>, most: usize) -> Vec<Map> {
    let mut lists: Vec<(String, Vec<Curve>)> = Vec::new();
    for curve in std::mem::take(curves) {
        let Some(name) = list_of(&curve.tag).map(str::to_owned) else {
            curves.push(curve);
            continue;
        };
        match lists.iter_mut().find(|(known, _)| *known == name) {
            Some((_, rows)) => rows.push(curve),
            None => lists.push((name, vec![curve])),
        }
    }
    lists.into_iter().map(|(name, rows)| map(name, &rows, most)).collect()
}

fn map(name: String, rows: &[Curve], most: usize) -> Map {
    let mut all: Vec<u64> = rows.iter().flat_map(|row| row.points.iter().map(|point| point.0)).collect();
    all.sort_unstable();
    all.dedup();
    let columns = all.len().min(most);
    let steps: Vec<u64> = (1..=columns).map(|column| all[column * all.len() / columns - 1]).collect();
    let cells = |row: &Curve| {
        let mut cells = vec![f64::NAN; steps.len()];
        for (step, value) in &row.points {
            let cell = &mut cells[steps.partition_point(|last| last < step)];
            *cell = cell.max(*value);
        }
        cells
    };
    Map { rows: rows.iter().map(cells).collect(), name, steps }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(values: &[serde_json::Value]) -> Vec<MetricsLine> {
        let line = |(index, value): (usize, &serde_json::Value)| MetricsLine {
            step: index as u64 + 1,
            fields: value.as_object().cloned().unwrap_or_default(),
        };
        values.iter().enumerate().map(line).collect()
    }

    #[test]
    fn every_scalar_is_a_curve_with_its_tag() {
        let lines = lines(&[
            json!({"loss": 3.0, "lr": 0.1}),
            json!({"val_loss": 2.5}),
            json!({"loss": null, "lr": 0.2}),
        ]);
        let curves = curves(&lines);
        let tags: Vec<&str> = curves.iter().map(|curve| curve.tag.as_str()).collect();
        assert_eq!(tags, ["train/loss", "train/lr", "validation/loss"]);
        assert_eq!(curves[0].points[0], (1, 3.0));
        assert!(curves[0].points[1].0 == 3 && curves[0].points[1].1.is_nan());
        assert_eq!(curves[2].points, [(2, 2.5)]);
    }

    #[test]
    fn lists_become_maps_that_preserve_peaks() {
        let line = |step: u64| json!({"loss": 1.0, "load": [1.0, if step == 4 { 9.0 } else { 2.0 }]});
        let lines = lines(&(0..10).map(line).collect::<Vec<_>>());
        let mut all = curves(&lines);
        let maps = take_maps(&mut all, 5);
        assert_eq!(all.len(), 1);
        assert_eq!(maps[0].name, "load");
        assert_eq!(maps[0].steps, [2, 4, 6, 8, 10]);
        assert_eq!(maps[0].rows, [[1.0; 5], [2.0, 2.0, 9.0, 2.0, 2.0]]);
    }
}
