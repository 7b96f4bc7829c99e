//! The loss as a static SVG for pages without JavaScript.

use maud::{Markup, html};

use super::super::run::RunReport;
use super::super::thin::{Point, thin};
use super::loss_color;
use super::metrics::LOSSES;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 320.0;
/// Margins for the axis labels.
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 28.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 10.0;
/// Maximum points per curve.
const POINTS: usize = 500;
const LINES: usize = 5;

/// Training loss (thin) and validation loss (thick) of every run; empty if there are none.
pub fn loss(runs: &[RunReport]) -> Markup {
    let curves: Vec<(usize, bool, Vec<Point>)> = runs
        .iter()
        .enumerate()
        .flat_map(|(run, report)| {
            LOSSES.map(|tag| {
                (run, tag == LOSSES[1], report.curve(tag).map(|curve| thin(&curve.points, POINTS)))
            })
        })
        .filter_map(|(run, held, points)| Some((run, held, points?)))
        .collect();
    let finite = || curves.iter().flat_map(|(_, _, points)| points).filter(|(_, value)| value.is_finite());
    let values = || finite().map(|(_, value)| *value);
    let (Some(low), Some(high)) = (values().reduce(f64::min), values().reduce(f64::max)) else {
        return html! {};
    };
    let last = finite().map(|(step, _)| *step).max().unwrap_or(1).max(1) as f64;
    let span = if high > low { high - low } else { 1.0 };
    let x = |step: u64| LEFT + (WIDTH - LEFT - RIGHT) * step as f64 / last;
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (value - low) / span);
    html! {
        svg class="picture" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label="loss by step" {
            @for line in 0..=LINES {
                @let part = line as f64 / LINES as f64;
                @let (value, step) = (low + span * part, (last * part).round() as u64);
                line class="grid" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(short(y(value))) y2=(short(y(value))) {}
                text x=(LEFT - 8.0) y=(short(y(value) + 4.0)) text-anchor="end" { (format!("{value:.2}")) }
                text x=(short(x(step))) y=(HEIGHT - 8.0) text-anchor="middle" { (step) }
            }
            @for (run, held, points) in &curves {
                path class={ "line run-" (loss_color(*run, *held, runs.len())) @if *held { " held" } }
                    d=(path(points, &x, &y)) {}
            }
        }
        p.note { "Loss in nats per token by step: training (thin) and validation (thick)." }
    }
}

/// A line through `points`, interrupted at NaNs.
fn path(points: &[Point], x: &dyn Fn(u64) -> f64, y: &dyn Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut pen_down = false;
    for (step, value) in points {
        if value.is_finite() {
            path.push_str(&format!(
                "{}{} {}",
                if pen_down { "L" } else { "M" },
                short(x(*step)),
                short(y(*value))
            ));
        }
        pen_down = value.is_finite();
    }
    path
}

/// A coordinate to a tenth of a pixel.
fn short(place: f64) -> String {
    format!("{place:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_nans() {
        let points = [(0, 1.0), (1, 2.0), (2, f64::NAN), (3, 4.0)];
        let drawn = path(&points, &|step| step as f64, &|value| value);
        assert_eq!(drawn, "M0.0 1.0L1.0 2.0M3.0 4.0");
    }
}
