//! Successive halving: which trials are promoted to the next rung.
//!
//! Synchronous: a rung is decided once all of its trials have reached it; the best 1/`reduction_factor` are promoted
//! (arXiv:1502.07943). Asynchronous: a trial is promoted as soon as it is among the best of those that have reached its
//! rung (ASHA, arXiv:1810.05934); the rest is decided like a synchronous rung. Decisions are made once and recorded in
//! the ledger; this file only makes them.

use std::cmp::Ordering;

use oss_config::{Direction, Halving};

/// The steps of each rung; the last is the whole run.
pub fn rungs(halving: &Halving, steps: u64) -> Vec<u64> {
    let mut rungs: Vec<u64> =
        std::iter::successors(Some(halving.min_steps), |rung| rung.checked_mul(halving.reduction_factor))
            .take_while(|rung| *rung < steps)
            .collect();
    rungs.push(steps);
    rungs
}

/// A trial of a cohort.
#[derive(Clone, Debug, PartialEq)]
pub struct Contender {
    /// Run id.
    pub id: String,
    /// Index of its target rung.
    pub rung: usize,
    /// Whether it has reached that rung.
    pub reached: bool,
    /// It does not continue: it failed, or was ended at its rung.
    pub out: bool,
    /// The metric at each rung it has reached; `None` if not finite.
    pub metrics: Vec<Option<f64>>,
}

/// The decision about a trial that has reached its rung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is promoted to the next rung.
    Promote(String),
    /// It ends at this rung.
    End(String),
}

/// The decisions that can be made now, given trials in the order of their numbers.
pub fn decide(
    contenders: &[Contender],
    rungs: usize,
    reduction: usize,
    direction: Direction,
    asynchronous: bool,
) -> Vec<Decision> {
    let last = rungs - 1;
    if asynchronous {
        for rung in (0..last).rev() {
            let there: Vec<&Contender> = contenders.iter().filter(|trial| has_reached(trial, rung)).collect();
            let best = ranked(&there, rung, direction).into_iter().take(there.len() / reduction);
            let promoted: Vec<Decision> = best
                .filter(|trial| is_undecided(trial, rung))
                .map(|trial| Decision::Promote(trial.id.clone()))
                .collect();
            if !promoted.is_empty() {
                return promoted;
            }
        }
    }
    for rung in 0..last {
        // Trials on lower rungs may still arrive here, so nothing above the lowest open rung can be decided.
        let undecided = |trial: &&Contender| trial.rung == rung && !trial.out;
        if contenders.iter().any(|trial| undecided(&trial) && !trial.reached) {
            return Vec::new();
        }
        let waiting: Vec<&Contender> = contenders.iter().filter(undecided).collect();
        if waiting.is_empty() {
            continue;
        }
        let came = contenders.iter().filter(|trial| trial.rung >= rung).count();
        let gone_on = contenders.iter().filter(|trial| trial.rung > rung).count();
        let places = (came / reduction).max(1).saturating_sub(gone_on);
        let order = ranked(&waiting, rung, direction);
        return order
            .into_iter()
            .enumerate()
            .map(|(place, trial)| match place < places {
                true => Decision::Promote(trial.id.clone()),
                false => Decision::End(trial.id.clone()),
            })
            .collect();
    }
    Vec::new()
}

fn has_reached(trial: &Contender, rung: usize) -> bool {
    trial.rung > rung || (trial.rung == rung && trial.reached)
}

fn is_undecided(trial: &Contender, rung: usize) -> bool {
    trial.rung == rung && trial.reached && !trial.out
}

/// Best first; trials without a value come last, and ties keep their order.
fn ranked<'a>(trials: &[&'a Contender], rung: usize, direction: Direction) -> Vec<&'a Contender> {
    let mut ranked = trials.to_vec();
    ranked.sort_by(|a, b| better(at(a, rung), at(b, rung), direction));
    ranked
}

fn at(trial: &Contender, rung: usize) -> Option<f64> {
    trial.metrics.get(rung).copied().flatten()
}

/// Orders values with the better one first; `None` is worse than any number.
pub fn better(a: Option<f64>, b: Option<f64>, direction: Direction) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => match direction {
            Direction::Minimize => a.total_cmp(&b),
            Direction::Maximize => b.total_cmp(&a),
        },
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates a sweep with a known metric at every rung; returns the rung that each trial reached.
    fn simulate(metrics: &[Vec<f64>], reduction: usize, asynchronous: bool, workers: usize) -> Vec<usize> {
        let rungs = metrics[0].len();
        let mut trials: Vec<Contender> = (0..metrics.len())
            .map(|i| Contender {
                id: i.to_string(),
                rung: 0,
                reached: false,
                out: false,
                metrics: Vec::new(),
            })
            .collect();
        loop {
            for decision in decide(&trials, rungs, reduction, Direction::Minimize, asynchronous) {
                match decision {
                    Decision::Promote(id) => {
                        let trial = &mut trials[id.parse::<usize>().unwrap()];
                        trial.rung += 1;
                        trial.reached = false;
                    }
                    Decision::End(id) => trials[id.parse::<usize>().unwrap()].out = true,
                }
            }
            // Promoted trials first, like the scheduler.
            let mut open: Vec<usize> =
                (0..trials.len()).filter(|i| !trials[*i].out && !trials[*i].reached).collect();
            open.sort_by_key(|i| (std::cmp::Reverse(trials[*i].rung), *i));
            if open.is_empty() {
                return trials.iter().map(|trial| trial.rung).collect();
            }
            for i in open.into_iter().take(workers) {
                let rung = trials[i].rung;
                trials[i].reached = true;
                trials[i].metrics.push(Some(metrics[i][rung]));
            }
        }
    }

    /// At every rung, trials with smaller numbers are better.
    fn plain(trials: usize, rungs: usize) -> Vec<Vec<f64>> {
        (0..trials).map(|i| vec![i as f64; rungs]).collect()
    }

    #[test]
    fn rungs_end_with_the_whole_run() {
        let halving = |min_steps| Halving { min_steps, reduction_factor: 3, asynchronous: None };
        assert_eq!(rungs(&halving(10), 90), [10, 30, 90]);
        assert_eq!(rungs(&halving(10), 100), [10, 30, 90, 100]);
        assert_eq!(rungs(&halving(50), 100), [50, 100]);
    }

    #[test]
    fn a_third_is_promoted_and_the_best_wins() {
        for asynchronous in [false, true] {
            let came = simulate(&plain(27, 4), 3, asynchronous, 1);
            let at_least = |rung| came.iter().filter(|came| **came >= rung).count();
            assert_eq!((at_least(1), at_least(2), at_least(3)), (9, 3, 1), "{came:?}");
            assert_eq!(came[0], 3);
        }
    }

    #[test]
    fn parallel_workers_do_not_wait_and_the_best_still_wins() {
        let metrics: Vec<Vec<f64>> = (0..27).map(|i| vec![f64::from(i * 7 % 27); 4]).collect();
        let came = simulate(&metrics, 3, true, 4);
        assert_eq!(came[0], 3);
        let promoted = came.iter().filter(|came| **came >= 1).count();
        assert!((9..=13).contains(&promoted), "{came:?}");
        // Worst first: each new trial is the best so far, and the last one still wins.
        let rising: Vec<Vec<f64>> = plain(27, 4).into_iter().rev().collect();
        assert_eq!(simulate(&rising, 3, true, 4)[26], 3);
    }

    #[test]
    fn even_few_trials_have_a_winner() {
        for asynchronous in [false, true] {
            assert_eq!(simulate(&plain(2, 3), 3, asynchronous, 2), [2, 0]);
            assert_eq!(simulate(&plain(1, 3), 3, asynchronous, 1), [2]);
        }
    }

    #[test]
    fn a_rung_waits_for_all_of_its_trials() {
        let trial = |id: &str, reached, metric| Contender {
            id: id.into(),
            rung: 0,
            reached,
            out: false,
            metrics: vec![metric],
        };
        let mut trials = [trial("a", true, Some(2.0)), trial("b", true, None), trial("c", false, None)];
        let decided = |trials: &[Contender]| decide(trials, 2, 3, Direction::Minimize, false);
        assert_eq!(decided(&trials), []);
        trials[2].out = true;
        assert_eq!(decided(&trials), [Decision::Promote("a".into()), Decision::End("b".into())]);
        // If only half of the decisions are recorded, the rest come out the same.
        trials[0].rung = 1;
        assert_eq!(decided(&trials), [Decision::End("b".into())]);
    }

    #[test]
    fn any_number_beats_none_in_both_directions() {
        for direction in [Direction::Minimize, Direction::Maximize] {
            assert_eq!(better(Some(1e9), None, direction), Ordering::Less);
            assert_eq!(better(None, Some(-1e9), direction), Ordering::Greater);
        }
        assert_eq!(better(Some(1.0), Some(2.0), Direction::Maximize), Ordering::Greater);
    }
}
