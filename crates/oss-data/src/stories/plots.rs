//! The plots: what happens in a story, beat by beat, and the ways of telling each beat.

mod feelings;
mod finding;
mod growing;
mod helping;
mod together;

use super::cast::{self, Who};
use super::grammar::{Random, Scene};

/// A kind of story.
pub struct Plot {
    /// Who may be its hero.
    pub who: Who,
    /// Variations, one of which sets the plot's own slots; the values are templates.
    pub props: &'static [Props],
    /// Paragraphs of beats.
    pub paragraphs: &'static [&'static [Beat]],
}

/// Slots and what they stand for in one variation of a plot.
pub type Props = &'static [(&'static str, &'static str)];

/// One step of a plot.
pub struct Beat {
    /// Percentage of stories that include it.
    pub percent: usize,
    /// Ways of telling it.
    pub ways: &'static [&'static str],
}

/// A beat that is always told.
pub const fn always(ways: &'static [&'static str]) -> Beat {
    Beat { percent: 100, ways }
}

/// A beat that `percent` of stories include.
pub const fn sometimes(percent: usize, ways: &'static [&'static str]) -> Beat {
    Beat { percent, ways }
}

/// Who the story is about.
pub const INTRODUCTION: Beat = always(&[
    "Once upon a time, there was {a trait} little {kind} named {hero}.",
    "Once upon a time, {a trait} little {kind} named {hero} lived {home}.",
    "Once upon a time, there was a little {kind} named {hero} who lived {home}.",
    "Once there was {a trait} little {kind} called {hero}.",
    "There was once {a trait} {kind} named {hero}, who lived {home}.",
    "{Hero} was {a trait} little {kind} who lived {home}.",
    "Long ago, [in a quiet valley|beside a wide river|near the mountains], there lived {a trait} little {kind} named {hero}.",
]);

/// What the hero likes.
pub const HABIT: Beat = sometimes(
    40,
    &[
        "{He} loved to {hobby}.",
        "Every day, {he} liked to {hobby}.",
        "More than anything, {he} loved to {hobby}.",
        "{He} liked to {hobby}, and {he} had a smile for everyone.",
    ],
);

/// Every plot, each as likely as the others.
pub const ALL: &[&Plot] = &[
    &finding::LOST,
    &finding::WRONG_TURN,
    &finding::SURPRISE,
    &growing::LEARNED,
    &growing::PLANTED,
    &growing::FEARED,
    &helping::RESCUED,
    &helping::MENDED,
    &helping::VISITED,
    &feelings::BROKEN,
    &feelings::QUARREL,
    &feelings::SHARED,
    &together::RACE,
    &together::RAINY_DAY,
    &together::NEWCOMER,
];

/// Longest story, in words.
pub const MAX_WORDS: usize = 200;

/// Tells one story.
pub fn tell(random: &mut Random) -> String {
    let plot = random.pick(ALL);
    tell_plot(plot, random)
}

/// Tells one story of a plot; one that comes out too long is told again.
pub fn tell_plot(plot: &Plot, random: &mut Random) -> String {
    loop {
        let story = tell_once(plot, random);
        if story.split_whitespace().count() <= MAX_WORDS {
            return story;
        }
    }
}

/// Casts the plot, sets its props, and writes out its beats.
fn tell_once(plot: &Plot, random: &mut Random) -> String {
    let mut scene = cast::set_scene(plot.who, random);
    let props = plot.props[random.below(plot.props.len())];
    for (slot, template) in props {
        let value = scene.expand(template, random);
        scene.set(slot, value);
    }
    let paragraphs: Vec<String> =
        plot.paragraphs.iter().map(|beats| tell_beats(beats, &scene, random)).collect();
    paragraphs.join("\n\n")
}

fn tell_beats(beats: &[Beat], scene: &Scene, random: &mut Random) -> String {
    let mut sentences = Vec::new();
    for beat in beats {
        if random.chance(beat.percent) {
            sentences.push(scene.expand(random.pick(beat.ways), random));
        }
    }
    sentences.join(" ")
}
