//! Downsamples long curves while preserving outliers.

/// A value of a curve at a step; NaN if the measurement is not a number.
pub type Point = (u64, f64);

/// At most `most` of `points` (8 or more): the first and the last, and from each of the equal intervals between them
/// the minimum, the maximum and the first NaN. Peaks and gaps are preserved; nothing is averaged.
pub fn thin(points: &[Point], most: usize) -> Vec<Point> {
    let [first, between @ .., last] = points else { return points.to_vec() };
    if points.len() <= most {
        return points.to_vec();
    }
    let mut kept = vec![*first];
    kept.extend(stretches(between, (most - 2) / 3).flat_map(standing_out));
    kept.push(*last);
    kept
}

/// The mean of each of `most` equal intervals of `points`, at its last step: for smoothing, instead of the extremes.
/// NaNs are ignored.
pub fn means(points: &[Point], most: usize) -> Vec<Point> {
    let mean = |stretch: &[Point]| {
        let finite = || stretch.iter().map(|point| point.1).filter(|value| value.is_finite());
        let number = finite().count();
        (number > 0).then(|| Some((stretch.last()?.0, finite().sum::<f64>() / number as f64)))?
    };
    stretches(points, most).filter_map(mean).collect()
}

fn stretches(points: &[Point], number: usize) -> impl Iterator<Item = &[Point]> {
    let at = move |edge: usize| edge * points.len() / number;
    (0..number).map(move |stretch| &points[at(stretch)..at(stretch + 1)])
}

/// The points to keep of an interval, in order.
fn standing_out(stretch: &[Point]) -> Vec<Point> {
    let finite = || stretch.iter().enumerate().filter(|(_, (_, value))| value.is_finite());
    let by_value = |a: &(usize, &Point), b: &(usize, &Point)| a.1.1.total_cmp(&b.1.1);
    let mut kept: Vec<usize> = [
        finite().min_by(by_value).map(|(index, _)| index),
        finite().max_by(by_value).map(|(index, _)| index),
        stretch.iter().position(|(_, value)| !value.is_finite()),
    ]
    .into_iter()
    .flatten()
    .collect();
    kept.sort_unstable();
    kept.dedup();
    kept.into_iter().map(|index| stretch[index]).collect()
}

/// Rounds `value` to the digits that a chart can show, to save space.
pub fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_curve_is_unchanged() {
        let points: Vec<Point> = (0..8).map(|step| (step, 0.5)).collect();
        assert_eq!(thin(&points, 8), points);
        assert_eq!(thin(&[], 8), []);
    }

    #[test]
    fn a_single_peak_and_a_single_nan_are_preserved() {
        let mut points: Vec<Point> = (1..=10_000).map(|step| (step, 1.0 / step as f64)).collect();
        points[6_000].1 = 99.0;
        points[7_000].1 = f64::NAN;
        let kept = thin(&points, 500);
        assert!(kept.len() <= 500);
        assert!(kept.contains(&(6_001, 99.0)));
        assert!(kept.iter().any(|(step, value)| *step == 7_001 && value.is_nan()));
        assert_eq!((kept[0].0, kept.last().map(|point| point.0)), (1, Some(10_000)));
    }

    #[test]
    fn means_cover_each_interval_and_ignore_nans() {
        let points = [(1, 1.0), (2, 3.0), (3, f64::NAN), (4, 5.0), (5, f64::NAN), (6, f64::NAN)];
        assert_eq!(means(&points, 3), [(2, 2.0), (4, 5.0)]);
    }

    #[test]
    fn rounding_shortens_numbers() {
        assert_eq!(rounded(0.390_697_442_646_629_87), 0.390_697);
        assert_eq!(rounded(547_241_984.0), 547_242_000.0);
        assert_eq!(rounded(-3e-4), -3e-4);
        assert!(rounded(f64::NAN).is_nan());
    }

    proptest! {
        #[test]
        fn thinning_preserves_extremes_and_order(
            values in prop::collection::vec(prop_oneof![8 => -1e3..1e3f64, 1 => Just(f64::NAN)], 1..400),
            most in 8usize..60,
        ) {
            let points: Vec<Point> = values.iter().enumerate().map(|(step, value)| (step as u64, *value)).collect();
            let kept = thin(&points, most);
            prop_assert!(kept.len() <= most.max(points.len().min(most)));
            prop_assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0));
            let extremes = |points: &[Point]| {
                let finite = || points.iter().map(|point| point.1).filter(|value| value.is_finite());
                (finite().reduce(f64::min), finite().reduce(f64::max), points.iter().any(|point| point.1.is_nan()))
            };
            prop_assert_eq!(extremes(&kept), extremes(&points));
        }
    }
}
