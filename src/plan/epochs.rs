//! The number of steps that `train.epochs` stands for.

use anyhow::Result;

use super::corpus::Corpus;
use oss_data::Prepared;

/// The number of steps in which `epochs` passes over the training windows of all sources fit; `None` until they are
/// prepared.
///
/// # Errors
/// Those of [`Corpus::prepared_sources`].
pub fn steps(corpus: Corpus<'_>, epochs: f64) -> Result<Option<u64>> {
    let train = &corpus.experiment.train;
    let mut windows = 0;
    for key in corpus.prepared_sources()? {
        let Ok(prepared) = Prepared::open(&corpus.runs.prepared(&key.0)) else { return Ok(None) };
        windows += prepared.index().train.tokens.saturating_sub(1) / train.sequence_length.unsigned_abs();
    }
    Ok(Some(steps_of(windows, epochs, train.global_batch_size.unsigned_abs())))
}

fn steps_of(windows: u64, epochs: f64, batch: u64) -> u64 {
    ((windows as f64 * epochs / batch as f64).ceil() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_batch_may_begin_another_epoch() {
        assert_eq!(steps_of(100, 1.0, 10), 10);
        assert_eq!(steps_of(101, 1.0, 10), 11);
        assert_eq!(steps_of(100, 2.5, 10), 25);
        assert_eq!(steps_of(100, 0.001, 10), 1);
        assert_eq!(steps_of(0, 3.0, 10), 1, "too short a text is reported by the prepare stage");
    }
}
