//! The order of the training data: every sample is a pure function of (seed, global sample index).
//!
//! The tokens of a source are cut into windows of T + 1 tokens with a stride of T, and visited in a different order in
//! each epoch. Sources take turns according to their weights.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use oss_config::error::UserError;

use super::permutation::Permutation;
use super::token_file::TokenFile;

/// Training samples in order.
#[derive(Debug)]
pub struct Batches {
    sources: Vec<Source>,
    seed: u64,
    sequence_length: usize,
    interleaving: Mutex<Interleaving>,
}

#[derive(Debug)]
struct Source {
    /// Fraction of the samples; the fractions add up to 1.
    share: f64,
    tokens: Arc<TokenFile>,
    windows: u64,
}

impl Batches {
    /// Samples of `sequence_length` predictions from sources with relative weights.
    ///
    /// # Errors
    /// If a source is shorter than one window.
    pub fn new(sources: Vec<(f64, Arc<TokenFile>)>, seed: u64, sequence_length: usize) -> Result<Self> {
        let total: f64 = sources.iter().map(|(weight, _)| weight).sum();
        let sources = sources
            .into_iter()
            .map(|(weight, tokens)| {
                let windows = (tokens.len().saturating_sub(1) / sequence_length) as u64;
                ensure!(
                    windows > 0,
                    UserError::failed(format!(
                        "{} has {} tokens, less than one window of train.sequence_length + 1 = {}",
                        tokens.path().display(),
                        tokens.len(),
                        sequence_length + 1
                    ))
                    .hint("lower train.sequence_length or add more text")
                );
                Ok(Source { share: weight / total, tokens, windows })
            })
            .collect::<Result<Vec<_>>>()?;
        let interleaving = Mutex::new(Interleaving::new(sources.len()));
        Ok(Self { sources, seed, sequence_length, interleaving })
    }

    /// The T + 1 tokens of a sample.
    pub fn sample(&self, global_index: u64) -> Vec<i64> {
        let (number, ordinal) = self.source_of(global_index);
        let source = &self.sources[number];
        let (epoch, place) = (ordinal / source.windows, ordinal % source.windows);
        let window = Permutation::new(source.windows, self.seed, &[number as u64, epoch]).apply(place);
        let start = window as usize * self.sequence_length;
        source.tokens[start..=start + self.sequence_length].iter().map(|&token| i64::from(token)).collect()
    }

    /// The source of a sample, and how many samples that source had before.
    fn source_of(&self, global_index: u64) -> (usize, u64) {
        if self.sources.len() == 1 {
            return (0, global_index);
        }
        let mut interleaving = self.interleaving.lock().unwrap_or_else(PoisonError::into_inner);
        if interleaving.next > global_index {
            *interleaving = Interleaving::new(self.sources.len());
        }
        loop {
            let (at, found) = interleaving.take(&self.sources);
            if at == global_index {
                return found;
            }
        }
    }
}

/// Smooth weighted round-robin: each sample comes from the source that is furthest behind its fraction.
///
/// The state is a cache: it follows from the number of samples alone, and going back restarts from 0.
#[derive(Debug)]
struct Interleaving {
    next: u64,
    taken: Vec<u64>,
}

impl Interleaving {
    fn new(sources: usize) -> Self {
        Self { next: 0, taken: vec![0; sources] }
    }

    fn take(&mut self, sources: &[Source]) -> (u64, (usize, u64)) {
        let at = self.next;
        let behind = |number: &usize| sources[*number].share * (at + 1) as f64 - self.taken[*number] as f64;
        // Ties go to the first source, however many there are.
        let number = (0..sources.len())
            .reduce(|best, number| if behind(&number) > behind(&best) { number } else { best })
            .unwrap_or(0);
        let ordinal = self.taken[number];
        self.taken[number] += 1;
        self.next += 1;
        (at, (number, ordinal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::error::ErrorReport;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Token i of source s is 1000 s + i.
    fn batches(lengths: &[usize], weights: &[f64], sequence_length: usize) -> (tempfile::TempDir, Batches) {
        let dir = tempfile::tempdir().unwrap();
        let sources = lengths.iter().zip(weights).enumerate().map(|(number, (&length, &weight))| {
            let path = dir.path().join(format!("{number}.bin"));
            let tokens: Vec<u32> = (0..length as u32).map(|i| number as u32 * 1000 + i).collect();
            std::fs::write(&path, bytemuck::cast_slice(&tokens)).unwrap();
            (weight, Arc::new(TokenFile::open(&path, length as u64).unwrap()))
        });
        let batches = Batches::new(sources.collect(), 7, sequence_length).unwrap();
        (dir, batches)
    }

    proptest! {
        #[test]
        fn each_epoch_visits_every_window_once(length in 5usize..200, sequence_length in 1usize..5) {
            let (_dir, batches) = batches(&[length], &[1.0], sequence_length);
            let windows = ((length - 1) / sequence_length) as u64;
            for epoch in 0..3 {
                let starts: BTreeSet<i64> =
                    (epoch * windows..(epoch + 1) * windows).map(|index| batches.sample(index)[0]).collect();
                let expected: BTreeSet<i64> = (0..windows as i64).map(|w| w * sequence_length as i64).collect();
                prop_assert_eq!(starts, expected);
            }
        }

        #[test]
        fn a_sample_depends_on_its_index_alone(order in proptest::collection::vec(0u64..300, 1..40)) {
            let (_dir, batches) = batches(&[90, 40, 70], &[3.0, 1.0, 0.5], 4);
            let in_order: Vec<Vec<i64>> = (0..300).map(|index| batches.sample(index)).collect();
            for index in order {
                prop_assert_eq!(&batches.sample(index), &in_order[index as usize]);
            }
        }
    }

    #[test]
    fn sources_keep_their_proportions_at_every_point() {
        let (_dir, batches) = batches(&[90, 40, 70], &[3.0, 1.0, 0.5], 4);
        let mut taken = [0.0; 3];
        for index in 0..500 {
            taken[(batches.sample(index)[0] / 1000) as usize] += 1.0;
            for (count, weight) in taken.iter().zip([3.0, 1.0, 0.5]) {
                let share = weight / 4.5 * (index + 1) as f64;
                assert!((count - share).abs() <= 1.0 + 1e-9, "after {index}: {taken:?}");
            }
        }
    }

    #[test]
    fn epochs_differ_and_windows_overlap_by_the_token_to_predict() {
        let (_dir, batches) = batches(&[41], &[1.0], 4);
        let epoch = |n: u64| (n * 10..n * 10 + 10).map(|index| batches.sample(index)[0]).collect::<Vec<_>>();
        assert_ne!(epoch(0), epoch(1));
        assert_eq!(batches.sample(0).len(), 5);
    }

    #[test]
    fn a_source_shorter_than_a_window_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("short.bin");
        std::fs::write(&path, [0; 16]).unwrap();
        let error =
            Batches::new(vec![(1.0, Arc::new(TokenFile::open(&path, 4).unwrap()))], 0, 4).unwrap_err();
        assert_eq!(ErrorReport::of(error).hints, ["lower train.sequence_length or add more text"]);
    }
}
