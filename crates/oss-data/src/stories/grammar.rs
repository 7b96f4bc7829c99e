//! The template language of the stories.
//!
//! A template is text with choices and slots. `[a|b|c]` stands for one of its parts, chosen by the story's random
//! stream; a part may be empty and may contain choices itself. `{slot}` stands for the scene's value of the slot,
//! `{Slot}` for the same with a capital letter, and `{a slot}` or `{A slot}` puts the correct article, `a` or `an`,
//! before it.

use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

/// What the slots of one story stand for.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    slots: Vec<(&'static str, String)>,
}

impl Scene {
    /// Sets a slot, replacing what it stood for.
    pub fn set(&mut self, slot: &'static str, value: impl Into<String>) {
        self.slots.retain(|(known, _)| *known != slot);
        self.slots.push((slot, value.into()));
    }

    /// What a slot stands for.
    pub fn get(&self, slot: &str) -> Option<&str> {
        self.slots.iter().find(|(known, _)| *known == slot).map(|(_, value)| value.as_str())
    }

    /// Writes out a template. A slot that the scene does not know is written as it stands, which a test over every
    /// template rules out.
    pub fn expand(&self, template: &str, random: &mut Random) -> String {
        let mut out = String::with_capacity(template.len());
        self.expand_into(template, random, &mut out);
        out
    }

    fn expand_into(&self, template: &str, random: &mut Random, out: &mut String) {
        let mut rest = template;
        while let Some(at) = rest.find(['[', '{']) {
            out.push_str(&rest[..at]);
            let (inside, after) = bracketed(&rest[at..]);
            if rest[at..].starts_with('[') {
                let parts = alternatives(inside);
                self.expand_into(random.pick(&parts), random, out);
            } else {
                self.slot_into(inside, out);
            }
            rest = after;
        }
        out.push_str(rest);
    }

    fn slot_into(&self, written: &str, out: &mut String) {
        let (article, name) = match written.split_once(' ') {
            Some((article, name)) => (Some(article), name),
            None => (None, written),
        };
        let Some(value) = self.get(&name.to_ascii_lowercase()) else {
            out.push('{');
            out.push_str(written);
            out.push('}');
            return;
        };
        if let Some(article) = article {
            out.push_str(article);
            out.push_str(if starts_with_vowel_sound(value) { "n " } else { " " });
        }
        if name.starts_with(|letter: char| letter.is_ascii_uppercase()) {
            out.push_str(&capitalized(value));
        } else {
            out.push_str(value);
        }
    }
}

/// The text inside the bracket that `text` opens with, and what follows the bracket.
fn bracketed(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return (&text[1..at], &text[at + 1..]);
        }
    }
    (&text[1..], "")
}

/// The parts of a choice, cut at the bars of its own level.
fn alternatives(inside: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in inside.char_indices() {
        match letter {
            '[' => depth += 1,
            ']' => depth -= 1,
            '|' if depth == 0 => {
                parts.push(&inside[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inside[start..]);
    parts
}

fn starts_with_vowel_sound(text: &str) -> bool {
    let silent_h = ["honest", "hour"].iter().any(|word| text.starts_with(word));
    let spoken_you = ["unicorn", "useful", "one"].iter().any(|word| text.starts_with(word));
    silent_h || (text.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U']) && !spoken_you)
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// A story's own random stream.
pub struct Random(ChaCha8Rng);

impl Random {
    /// The stream of the generator `rng`.
    pub fn new(rng: ChaCha8Rng) -> Self {
        Self(rng)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // The high half of the product of a 32-bit draw and a bound far below 2^32 is uniform to within 2^-20.
        ((u64::from(self.0.next_u32()) * bound as u64) >> 32) as usize
    }

    /// True with a probability of `percent`.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`, which must not be empty.
    pub fn pick<'c, T: ?Sized>(&mut self, choices: &[&'c T]) -> &'c T {
        choices[self.below(choices.len())]
    }

    /// `count` different ones of `choices`, which must hold as many.
    pub fn pick_several<'c>(&mut self, choices: &[&'c str], count: usize) -> Vec<&'c str> {
        let mut left = choices.to_vec();
        (0..count).map(|_| left.swap_remove(self.below(left.len()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn slots_articles_and_choices() {
        let mut scene = Scene::default();
        scene.set("thing", "old kite");
        scene.set("he", "she");
        let mut random = Random::new(ChaCha8Rng::seed_from_u64(1));
        let text = scene.expand("{He} had {a thing}. {A thing}! [x|x] {a he} [|] {nothing}", &mut random);
        assert_eq!(text, "She had an old kite. An old kite! x a she  {nothing}");
        let nested = scene.expand("[a [b|b] {he}|a [b|b] {he}].", &mut random);
        assert_eq!(nested, "a b she.");
    }

    #[test]
    fn several_are_different() {
        let mut random = Random::new(ChaCha8Rng::seed_from_u64(2));
        for _ in 0..50 {
            let picked = random.pick_several(&["a", "b", "c"], 2);
            assert_ne!(picked[0], picked[1]);
        }
    }
}
