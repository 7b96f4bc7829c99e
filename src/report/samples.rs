//! Samples generated during training and at the end.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::stages::sample::Samples;
use oss_runs::run_dir::RunDir;
use oss_train::generation::SampledText;

/// Maximum characters shown per text.
const TEXT_CHARACTERS: usize = 4000;

/// The samples at one point of training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Steps taken; `None` for the samples of the finished model from the sample stage.
    pub step: Option<u64>,
    /// The generated texts.
    pub samples: Vec<SampledText>,
}

/// The samples of `run` in step order, thinned out evenly until their texts fit into `bytes`; also the total number of
/// sampling points.
pub fn moments(run: &RunDir, bytes: usize) -> (Vec<Moment>, usize) {
    let mut moments: Vec<Moment> = run
        .step_samples()
        .into_iter()
        .filter_map(|(step, path)| Some(Moment { step: Some(step), samples: shortened(read(&path)?) }))
        .collect();
    let last = run.final_samples();
    if last.exists()
        && let Some(Samples { samples, .. }) = read(&last)
    {
        moments.push(Moment { step: None, samples: shortened(samples) });
    }
    let all = moments.len();
    let size = |moments: &[Moment]| -> usize {
        moments
            .iter()
            .flat_map(|moment| &moment.samples)
            .map(|sample| sample.prompt.len() + sample.text.len())
            .sum()
    };
    // The first and the last are always included.
    while moments.len() > 2 && size(&moments) > bytes {
        let last = moments.len() - 1;
        let mut index = 0;
        moments.retain(|_| {
            index += 1;
            (index - 1) % 2 == 0 || index - 1 == last
        });
    }
    (moments, all)
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    let read = fs::read(path).map_err(anyhow::Error::from);
    match read.and_then(|text| Ok(serde_json::from_slice(&text)?)) {
        Ok(samples) => Some(samples),
        Err(error) => {
            tracing::warn!("leaving {} out of the report ({error})\nhint: remove the file", path.display());
            None
        }
    }
}

fn shortened(mut samples: Vec<SampledText>) -> Vec<SampledText> {
    for text in samples.iter_mut().flat_map(|sample| [&mut sample.prompt, &mut sample.text]) {
        if let Some((end, _)) = text.char_indices().nth(TEXT_CHARACTERS) {
            text.truncate(end);
            text.push('…');
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_runs::run_dir::write_json;

    fn sample(text: &str) -> SampledText {
        SampledText { prompt: "p".into(), prompt_tokens: vec![1], tokens: vec![2], text: text.into() }
    }

    #[test]
    fn moments_are_thinned_out_and_keep_both_ends() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path());
        fs::create_dir_all(run.samples()).unwrap();
        for step in 1..=9 {
            write_json(&run.samples_at(step * 10), &[sample(&"a".repeat(99))]).unwrap();
        }
        fs::write(run.samples_at(95), "torn").unwrap();
        let samples =
            Samples { samples: vec![sample(&"ä".repeat(5000))], decoding: std::time::Duration::ZERO };
        write_json(&run.final_samples(), &samples).unwrap();
        let (all, number) = moments(&run, usize::MAX);
        assert_eq!((all.len(), number), (10, 10));
        assert_eq!(all[9].samples[0].text.chars().count(), TEXT_CHARACTERS + 1);
        let (few, number) = moments(&run, 8500);
        let steps: Vec<Option<u64>> = few.iter().map(|moment| moment.step).collect();
        assert_eq!(steps, [Some(10), Some(50), Some(90), None]);
        assert_eq!(number, 10);
    }
}
