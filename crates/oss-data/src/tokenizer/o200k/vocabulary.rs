//! From the bytes of a token to its id.

use std::collections::HashMap;
use std::num::NonZero;

/// Longest run of bytes that is a [`Key`].
const MAX_KEY_BYTES: usize = 15;

/// Up to 15 bytes as one number: the bytes from the lowest on, zeros, and their count in the highest. Two runs of bytes
/// are the same if their keys are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(NonZero<u128>);

impl Key {
    /// The key of `text[start..end]`; none if that is empty or too long for one.
    #[inline]
    pub(super) fn of(text: &[u8], start: usize, end: usize) -> Option<Self> {
        let len = end - start;
        if len > MAX_KEY_BYTES {
            return None;
        }
        // Sixteen bytes at once are one load, so that what follows the run is masked out instead of left out.
        let bytes = match text[start..].first_chunk::<16>() {
            Some(chunk) => u128::from_le_bytes(*chunk) & ((1 << (8 * len)) - 1),
            None => text[start..end].iter().rev().fold(0, |bytes, &byte| bytes << 8 | u128::from(byte)),
        };
        NonZero::new(bytes | (len as u128) << (8 * MAX_KEY_BYTES)).map(Self)
    }

    /// Both halves multiplied, and the halves of the product folded together.
    #[inline]
    pub(super) fn hash(self) -> u64 {
        let key = self.0.get();
        // Odd numbers without a pattern (fractional digits of pi), so that no half of a key is lost in a product by zero.
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

/// The ordinary tokens of an encoding. A token's id is also its rank: of two pairs, the one with the lower merges first.
pub(super) struct Vocabulary {
    /// Tokens that have a key, by the hash of it and then the first free place; a power of two of slots.
    slots: Vec<Slot>,
    /// The others.
    long: HashMap<Vec<u8>, u32>,
}

impl Vocabulary {
    pub(super) fn new(tokens: impl Iterator<Item = (Vec<u8>, u32)>) -> Self {
        let (short, long): (Vec<_>, Vec<_>) = tokens.partition(|(bytes, _)| bytes.len() <= MAX_KEY_BYTES);
        // Half empty, since most pairs that merging asks for are not there and end at the first empty slot.
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

    /// The token of a key's bytes.
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

    /// The token of bytes that have no key.
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
