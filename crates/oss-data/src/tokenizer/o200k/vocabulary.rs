//! Maps the bytes of a token to its ID.

use std::collections::HashMap;
use std::num::NonZero;

/// Length of the longest byte string that fits into a [`Key`].
const MAX_KEY_BYTES: usize = 15;

/// Up to 15 bytes as one number: the bytes from the lowest up, zeros, and their count in the highest. Two byte strings
/// are equal if and only if their keys are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(NonZero<u128>);

impl Key {
    /// The key of `text[start..end]`; `None` if that is empty or too long.
    #[inline]
    pub(super) fn of(text: &[u8], start: usize, end: usize) -> Option<Self> {
        let len = end - start;
        if len > MAX_KEY_BYTES {
            return None;
        }
        // Reading sixteen bytes is a single load, so what follows the string is masked out rather than skipped.
        let bytes = match text[start..].first_chunk::<16>() {
            Some(chunk) => u128::from_le_bytes(*chunk) & ((1 << (8 * len)) - 1),
            None => text[start..end].iter().rev().fold(0, |bytes, &byte| bytes << 8 | u128::from(byte)),
        };
        NonZero::new(bytes | (len as u128) << (8 * MAX_KEY_BYTES)).map(Self)
    }

    /// Multiplies both halves and folds the two halves of the product together.
    #[inline]
    pub(super) fn hash(self) -> u64 {
        let key = self.0.get();
        // Arbitrary odd numbers (fractional digits of pi), so that no half of a key is lost in a product with zero.
        let (low, high) = (key as u64 ^ 0x243f_6a88_85a3_08d3, (key >> 64) as u64 ^ 0x1319_8a2e_0370_7345);
        let product = u128::from(low) * u128::from(high);
        product as u64 ^ (product >> 64) as u64
    }
}

#[derive(Clone, Copy)]
struct Slot {
    key: Option<Key>,
    id: u32,
}

/// The ordinary tokens of an encoding. A token's ID is also its rank: the pair with the lower one is merged first.
pub(super) struct Vocabulary {
    /// Tokens that have a key, in an open-addressing hash table whose number of slots is a power of two.
    slots: Vec<Slot>,
    /// The other tokens.
    long: HashMap<Vec<u8>, u32>,
}

impl Vocabulary {
    pub(super) fn new(tokens: impl Iterator<Item = (Vec<u8>, u32)>) -> Self {
        let (short, long): (Vec<_>, Vec<_>) = tokens.partition(|(bytes, _)| bytes.len() <= MAX_KEY_BYTES);
        // Half empty, because most pairs that merging looks up are absent and end at the first empty slot.
        let num_slots = (2 * short.len() + 1).next_power_of_two();
        let mut slots = vec![Slot { key: None, id: 0 }; num_slots];
        for (bytes, id) in short {
            let Some(key) = Key::of(&bytes, 0, bytes.len()) else { continue };
            let mut at = key.hash() as usize % num_slots;
            while slots[at].key.is_some() {
                at = (at + 1) % num_slots;
            }
            slots[at] = Slot { key: Some(key), id };
        }
        Self { slots, long: long.into_iter().collect() }
    }

    /// The token with this key.
    #[inline]
    fn short(&self, key: Key) -> Option<u32> {
        let last = self.slots.len() - 1;
        let mut at = key.hash() as usize & last;
        loop {
            let slot = &self.slots[at];
            if slot.key == Some(key) {
                return Some(slot.id);
            }
            slot.key?;
            at = (at + 1) & last;
        }
    }

    /// The token with these bytes, which have no key.
    fn long(&self, bytes: &[u8]) -> Option<u32> {
        self.long.get(bytes).copied()
    }

    /// The token of `text[start..end]`.
    #[inline]
    pub(super) fn token(&self, text: &[u8], start: usize, end: usize) -> Option<u32> {
        match Key::of(text, start, end) {
            Some(key) => self.short(key),
            None => self.long(&text[start..end]),
        }
    }
}
