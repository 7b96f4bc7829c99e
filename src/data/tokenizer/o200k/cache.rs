//! The tokens of words that are none themselves.

use super::vocabulary::Key;

/// Words that are remembered, a power of two; 64 bytes each, so that a thread's cache fits a core's second-level cache.
const NUM_SLOTS: usize = 1 << 13;

/// Most tokens of a word that is remembered.
const MAX_TOKENS: usize = 11;

/// A word and its tokens: one cache line.
#[derive(Clone, Copy)]
struct Slot {
    key: Option<Key>,
    len: u32,
    tokens: [u32; MAX_TOKENS],
}

/// Remembers the last word of each slot.
pub(super) struct Cache {
    slots: Vec<Slot>,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { slots: vec![Slot { key: None, len: 0, tokens: [0; MAX_TOKENS] }; NUM_SLOTS] }
    }

    /// Appends the tokens of the word `key`, which `make` appends if they are not here.
    pub(super) fn extend(&mut self, key: Key, tokens: &mut Vec<u32>, make: impl FnOnce(&mut Vec<u32>)) {
        let slot = &mut self.slots[key.hash() as usize % NUM_SLOTS];
        if slot.key == Some(key) {
            tokens.extend_from_slice(&slot.tokens[..slot.len as usize]);
            return;
        }
        let before = tokens.len();
        make(tokens);
        let made = &tokens[before..];
        if let Some(place) = slot.tokens.get_mut(..made.len()) {
            place.copy_from_slice(made);
            slot.len = made.len() as u32;
            slot.key = Some(key);
        }
    }
}
