//! The trials of a sweep: a pure function of its `[sweep]` section.

use std::collections::BTreeSet;

use serde_json::Value;

use super::SweepError;
use oss_config::{Candidates, Range, Sweep, SweepMethod, Values, takes_integers};

/// Maximum number of skipped or repeated draws per accepted one.
const DRAWS_PER_TRIAL: u64 = 1000;

/// The values of each trial, in order, without duplicates and combinations excluded by `skip`. A sweep that grows keeps
/// its earlier draws.
///
/// # Errors
/// Every combination is skipped, or there are fewer than `num_trials` different ones.
pub fn trials(sweep: &Sweep) -> Result<Vec<Values>, SweepError> {
    let is_wanted = |values: &Values| {
        let matches = |condition: &std::collections::BTreeMap<String, _>| {
            condition.iter().all(|(key, condition): (&String, &oss_config::Condition)| {
                values.get(key).is_some_and(|value| condition.matches(value))
            })
        };
        !sweep.skip.iter().any(matches)
    };
    let mut seen = BTreeSet::new();
    let mut is_new = |values: &Values| seen.insert(serde_json::to_string(values).unwrap_or_default());
    let trials: Vec<Values> = match sweep.method {
        SweepMethod::List => sweep.trials.iter().filter(|v| is_wanted(v) && is_new(v)).cloned().collect(),
        SweepMethod::Grid => grid(sweep).into_iter().filter(|v| is_wanted(v) && is_new(v)).collect(),
        SweepMethod::Random => {
            let wanted = sweep.num_trials.unwrap_or(0);
            let draws = (0..wanted.saturating_mul(DRAWS_PER_TRIAL)).map(|index| draw(sweep, index));
            let kept: Vec<Values> =
                draws.filter(|v| is_wanted(v) && is_new(v)).take(wanted as usize).collect();
            if (kept.len() as u64) < wanted {
                return Err(SweepError::TooFew { found: kept.len(), wanted });
            }
            kept
        }
    };
    if trials.is_empty() { Err(SweepError::AllSkipped) } else { Ok(trials) }
}

/// All combinations; the last key varies fastest.
fn grid(sweep: &Sweep) -> Vec<Values> {
    let mut combinations = vec![Values::new()];
    for (key, candidates) in &sweep.parameters {
        let Candidates::Choice(choices) = candidates else { continue };
        let extended = combinations.iter().flat_map(|values| {
            choices.iter().map(move |choice| {
                let mut values = values.clone();
                values.insert(key.clone(), choice.clone());
                values
            })
        });
        combinations = extended.collect();
    }
    combinations
}

/// The values of one draw. Each key is drawn independently, so adding a key does not change the others.
fn draw(sweep: &Sweep, index: u64) -> Values {
    let value = |key: &String, candidates: &Candidates| {
        let share = uniform(sweep.seed, key, index);
        match candidates {
            Candidates::Choice(choices) => choices[(share * choices.len() as f64) as usize].clone(),
            Candidates::Range(range) => within(range, share, takes_integers(key)),
        }
    };
    sweep.parameters.iter().map(|(key, candidates)| (key.clone(), value(key, candidates))).collect()
}

/// A number in [0, 1) from 53 bits of a hash.
fn uniform(seed: u64, key: &str, index: u64) -> f64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(&index.to_le_bytes()).update(key.as_bytes());
    let bits = hasher.finalize().as_bytes()[..8].iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The number at fraction `share` of a range.
fn within(range: &Range, share: f64, whole: bool) -> Value {
    let &Range { min, max, log, step } = range;
    let step = step.or(whole.then_some(1.0));
    // A stepped range is extended by one step, or its last value would never be drawn.
    let end = step.map_or(max, |step| min + (((max - min) / step).floor() + 1.0) * step);
    let number =
        if log { (min.ln() + share * (end.ln() - min.ln())).exp() } else { min + share * (end - min) };
    let number = match step {
        Some(step) => min + ((number - min) / step).floor() * step,
        None => number,
    };
    if whole { Value::from(number.min(max) as i64) } else { Value::from(rounded(number).clamp(min, max)) }
}

/// Rounds to four significant digits, which is enough.
fn rounded(number: f64) -> f64 {
    format!("{number:.3e}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use oss_config::{Between, Condition};

    fn choice(values: &[f64]) -> Candidates {
        Candidates::Choice(values.iter().map(|value| json!(value)).collect())
    }

    fn sweep(method: SweepMethod, parameters: &[(&str, Candidates)]) -> Sweep {
        let parameters = parameters.iter().map(|(key, c)| ((*key).to_owned(), c.clone())).collect();
        Sweep { method, parameters, ..Sweep::default() }
    }

    fn shown(trials: &[Values]) -> Vec<String> {
        trials.iter().map(|values| serde_json::to_string(values).unwrap()).collect()
    }

    #[test]
    fn a_grid_is_every_combination_except_skipped_ones() {
        let mut sweep = sweep(
            SweepMethod::Grid,
            &[("optimizer.lr", choice(&[0.1, 0.2])), ("train.global_batch_size", choice(&[4.0, 8.0, 8.0]))],
        );
        assert_eq!(trials(&sweep).unwrap().len(), 4, "duplicate values count once");
        let condition = std::collections::BTreeMap::from([
            ("optimizer.lr".to_owned(), Condition::Between(Between { min: Some(0.15), max: None })),
            ("train.global_batch_size".to_owned(), Condition::Is(json!(4))),
        ]);
        sweep.skip = vec![condition];
        assert_eq!(
            shown(&trials(&sweep).unwrap()),
            [
                r#"{"optimizer.lr":0.1,"train.global_batch_size":4.0}"#,
                r#"{"optimizer.lr":0.1,"train.global_batch_size":8.0}"#,
                r#"{"optimizer.lr":0.2,"train.global_batch_size":8.0}"#,
            ]
        );
        sweep.skip.push(std::collections::BTreeMap::from([(
            "optimizer.lr".to_owned(),
            Condition::OneOf(vec![json!(0.1), json!(0.2)]),
        )]));
        assert!(matches!(trials(&sweep), Err(SweepError::AllSkipped)));
    }

    #[test]
    fn repeated_draws_are_not_trials() {
        let mut sweep = sweep(SweepMethod::Random, &[("optimizer.lr", choice(&[0.1, 0.2, 0.3]))]);
        sweep.num_trials = Some(3);
        assert_eq!(trials(&sweep).unwrap().len(), 3);
        sweep.num_trials = Some(4);
        assert!(matches!(trials(&sweep), Err(SweepError::TooFew { found: 3, wanted: 4 })));
    }

    #[test]
    fn log_ranges_are_sampled_evenly_per_decade() {
        let range = Range { min: 1e-5, max: 1e-2, log: true, step: None };
        let draws: Vec<f64> = (0..3000)
            .map(|i| within(&range, uniform(0, "optimizer.lr", i), false).as_f64().unwrap())
            .collect();
        for decade in [1e-5, 1e-4, 1e-3] {
            let inside = draws.iter().filter(|lr| (decade..decade * 10.0).contains(*lr)).count();
            assert!((900..1100).contains(&inside), "{inside} between {decade} and its tenfold");
        }
    }

    proptest! {
        #[test]
        fn draws_are_within_their_range(
            min in 1i64..100, width in 0i64..100, log: bool, step in prop::option::of(1i64..7), index in 0u64..1000,
        ) {
            let max = min + width;
            let range = Range { min: min as f64, max: max as f64, log, step: step.map(|step| step as f64) };
            let share = uniform(7, "k", index);
            let whole = within(&range, share, true).as_i64().unwrap();
            prop_assert!((min..=max).contains(&whole));
            prop_assert_eq!((whole - min) % step.unwrap_or(1), 0);
            let real = within(&range, share, false).as_f64().unwrap();
            prop_assert!((min as f64..=max as f64).contains(&real));
        }

        /// Growing a sweep keeps its trials and their order.
        #[test]
        fn growing_a_sweep_keeps_its_trials(few in 1u64..8, more in 0u64..8, seed: u64) {
            let range = Candidates::Range(Range { min: 1e-4, max: 1e-2, log: true, step: None });
            let mut sweep = sweep(SweepMethod::Random, &[("optimizer.lr", range)]);
            sweep.seed = seed;
            sweep.num_trials = Some(few);
            let before = trials(&sweep).unwrap();
            sweep.num_trials = Some(few + more);
            prop_assert_eq!(&trials(&sweep).unwrap()[..before.len()], &before[..]);
        }
    }
}
