//! A cache of the tokens of recent words.

use super::vocabulary::Key;

/// Number of cached words, a power of two, at 32 bytes each. Text consists mostly of few words, so the cache fits into
/// the core's own caches.
const NUM_SLOTS: usize = 1 << 16;

/// Maximum number of tokens of a cached word.
const MAX_TOKENS: usize = 4;

/// Marks the end of a word's tokens.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Slot {
    key: Option<Key>,
    tokens: [u32; MAX_TOKENS],
}

/// Stores the last word of each slot.
pub(super) struct Cache {
    slots: Vec<Slot>,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { slots: vec![Slot { key: None, tokens: [NONE; MAX_TOKENS] }; NUM_SLOTS] }
    }

    /// Appends the tokens of the word `key`; `make` appends them if they are not cached.
    #[inline]
    pub(super) fn extend(&mut self, key: Key, tokens: &mut Vec<u32>, make: impl FnOnce(&mut Vec<u32>)) {
        let slot = &mut self.slots[key.hash() as usize % NUM_SLOTS];
        let before = tokens.len();
        if slot.key == Some(key) {
            // Appended in one go and then truncated: no loop, and no branch on their number.
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
