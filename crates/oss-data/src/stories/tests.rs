use std::collections::HashSet;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::grammar::Random;
use super::{Stories, plots};
use crate::sources::{CorpusRange, Generator};

fn story(seed: u64, number: u64) -> String {
    Stories.text(seed, number)
}

fn words(story: &str) -> usize {
    story.split_whitespace().count()
}

#[test]
fn a_story_depends_on_seed_and_number_alone() {
    let forwards: Vec<_> = (0..20).map(|number| story(7, number)).collect();
    let backwards: Vec<_> = (0..20).rev().map(|number| story(7, number)).collect();
    assert!(forwards.iter().eq(backwards.iter().rev()));
    assert_ne!(forwards[0], forwards[1]);
    assert_ne!(story(7, 0), story(8, 0));
}

/// Prepared data is found by the version, so a changed story needs a new one.
#[test]
fn a_version_keeps_its_stories() {
    let mut hasher = blake3::Hasher::new();
    for number in 0..1_000 {
        hasher.update(story(CorpusRange::TRAINING.seed, number).as_bytes());
    }
    let digest = hasher.finalize().to_hex();
    assert_eq!(
        (Stories.version(), &digest[..16]),
        (1, "241f63ed231953d4"),
        "raise the version and put the new digest here"
    );
}

#[test]
fn mean_bytes_matches_the_stories() {
    let sample = 2_000;
    let bytes: usize = (0..sample).map(|number| story(CorpusRange::TRAINING.seed, number).len()).sum();
    let mean = bytes as u64 / sample;
    assert!(mean.abs_diff(Stories.mean_bytes()) < Stories.mean_bytes() / 20, "{mean}");
}

#[test]
fn stories_have_the_right_length_and_are_distinct() {
    let mut seen = HashSet::new();
    for CorpusRange { seed, .. } in [CorpusRange::TRAINING, CorpusRange::VALIDATION] {
        for number in 0..3_000 {
            let story = story(seed, number);
            assert!((80..=200).contains(&words(&story)), "{} words:\n{story}", words(&story));
            assert!(seen.insert(story), "story {number} of seed {seed} was told before");
        }
    }
}

/// Every way of telling every beat is reached by enough stories of each plot, so this reads every template.
#[test]
fn every_template_gives_well_formed_sentences() {
    for (index, plot) in plots::ALL.iter().enumerate() {
        for seed in 0..400 {
            let mut random = Random::new(ChaCha8Rng::seed_from_u64(seed));
            let story = plots::tell_plot(plot, &mut random);
            for paragraph in story.split("\n\n") {
                if let Some(problem) = problem(paragraph) {
                    panic!("plot {index}: {problem}:\n{paragraph}");
                }
            }
        }
    }
}

fn problem(paragraph: &str) -> Option<String> {
    if paragraph.contains(['{', '}', '[', ']', '|']) {
        return Some("a slot or a choice is left over".into());
    }
    if paragraph.contains("  ")
        || paragraph.contains(" .")
        || paragraph.contains(" ,")
        || paragraph.contains("..")
    {
        return Some("the spacing is wrong".into());
    }
    if paragraph.matches('"').count() % 2 == 1 {
        return Some("a quotation does not end".into());
    }
    let inside = paragraph.trim_end_matches('"');
    if !inside.ends_with(['.', '!', '?']) {
        return Some("the last sentence does not end".into());
    }
    let mut starts = true;
    let letters: Vec<char> = paragraph.chars().collect();
    for (at, letter) in letters.iter().enumerate() {
        if starts && letter.is_alphabetic() {
            if letter.is_lowercase() {
                return Some(format!("a sentence starts with {letter:?}"));
            }
            starts = false;
        }
        let ends = matches!(letter, '.' | '!' | '?') && letters.get(at + 1).is_some_and(|next| *next == ' ');
        let quoted_end = *letter == '.' && letters.get(at + 1) == Some(&'"');
        starts |= ends || quoted_end;
    }
    for word in paragraph.split_whitespace().collect::<Vec<_>>().windows(2) {
        let next = word[1].trim_start_matches('"');
        let vowel = next.starts_with(['a', 'e', 'i', 'o', 'u']) && !next.starts_with("one");
        let vowel = vowel || next.starts_with("hour");
        if (word[0].eq_ignore_ascii_case("a") && vowel) || (word[0].eq_ignore_ascii_case("an") && !vowel) {
            return Some(format!("the article of {next:?} is wrong"));
        }
        if matches!(word[0], "a" | "an") && matches!(next, "a" | "an" | "the") {
            return Some("an article follows an article".into());
        }
        let bare = |word: &str| word.trim_matches(|letter: char| !letter.is_alphabetic()).to_lowercase();
        if bare(word[0]) == bare(word[1])
            && !word[0].ends_with([',', '.', '!', '?', '"'])
            && !bare(word[0]).is_empty()
        {
            return Some(format!("{:?} is written twice", word[0]));
        }
    }
    None
}
