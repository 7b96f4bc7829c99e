//! The tokens of the words that were last seen.

use super::vocabulary::Key;

/// Words that are remembered, a power of two; 32 bytes each. Text keeps coming back to few of them, which stay in the
/// core's own caches.
const NUM_SLOTS: usize = 1 << 16;

/// Most tokens of a word that is remembered.
const MAX_TOKENS: usize = 4;

/// Stands where a word has no more tokens.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Slot {
    key: Option<Key>,
    tokens: [u32; MAX_TOKENS],
}

/// Remembers the last word of each slot.
pub(super) struct Cache {
    slots: Vec<Slot>,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { slots: vec![Slot { key: None, tokens: [NONE; MAX_TOKENS] }; NUM_SLOTS] }
    }

    /// Appends the tokens of the word `key`, which `make` appends if they are not here.
    #[inline]
    pub(super) fn extend(&mut self, key: Key, tokens: &mut Vec<u32>, make: impl FnOnce(&mut Vec<u32>)) {
        let slot = &mut self.slots[key.hash() as usize % NUM_SLOTS];
        let before = tokens.len();
        if slot.key == Some(key) {
            // All at once and the surplus taken back: no loop, and no branch on how many there are.
            tokens.extend_from_slice(&slot.tokens);
            tokens.truncate(before + slot.tokens.iter().filter(|&&token| token != NONE).count());
            return;
        }
        make(tokens);
        let made = &tokens[before..];
        if made.len() <= MAX_TOKENS {
            slot.tokens = [NONE; MAX_TOKENS];
            slot.tokens[..made.len()].copy_from_slice(made);
            slot.key = Some(key);
        }
    }
}
