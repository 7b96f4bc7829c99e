//! Spelling suggestions.

use strsim::{jaro_winkler, osa_distance};

/// The valid words closest to `typed`, most likely first: several if they are equally close, none if all are too far.
pub fn nearest<'a>(typed: &str, valid: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let typed = folded(typed);
    let near = valid.into_iter().filter_map(|word| {
        let distance = osa_distance(&typed, &folded(word));
        let longest = typed.chars().count().max(word.chars().count());
        (distance <= (longest / 3).max(1) && distance < longest).then_some((distance, word))
    });
    let near: Vec<_> = near.collect();
    let least = near.iter().map(|(distance, _)| *distance).min();
    let mut best: Vec<&str> =
        near.into_iter().filter(|(distance, _)| Some(*distance) == least).map(|(_, word)| word).collect();
    best.sort_by(|a, b| jaro_winkler(&typed, &folded(b)).total_cmp(&jaro_winkler(&typed, &folded(a))));
    best
}

/// Ignores case and the kind of dash.
fn folded(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_typos() {
        let words = ["lr", "betas", "eps", "weight_decay", "max_grad_norm"];
        assert_eq!(nearest("rl", words), ["lr"]);
        assert_eq!(nearest("wieght_decay", words), ["weight_decay"]);
        assert_eq!(nearest("Max-Grad-Norm", words), ["max_grad_norm"]);
        assert!(nearest("momentum", words).is_empty());
    }

    #[test]
    fn shows_every_equally_near_word() {
        assert_eq!(nearest("top_x", ["top_k", "top_p"]), ["top_k", "top_p"]);
        assert_eq!(nearest("20", ["120b", "20b"]), ["20b"]);
    }
}
