//! Merges byte pairs by rank.
//!
//! A piece starts as its bytes. Of all neighbors whose bytes together are a token, those with the lowest ID are merged
//! first, and the leftmost in case of ties, until no neighbors form a token.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::vocabulary::Vocabulary;

/// Longest piece whose pairs are searched linearly, which is quadratic but allocates no memory.
const MAX_SEARCHED: usize = 64;

/// Not a token; lower ranks are merges.
const NONE: u32 = u32::MAX;

/// Appends the tokens of `text[piece]`.
pub(super) fn merge(vocabulary: &Vocabulary, text: &[u8], piece: Range<usize>, tokens: &mut Vec<u32>) {
    if piece.len() <= MAX_SEARCHED {
        searched(vocabulary, text, piece, tokens);
    } else {
        queued(vocabulary, text, piece, tokens);
    }
}

fn searched(vocabulary: &Vocabulary, text: &[u8], piece: Range<usize>, tokens: &mut Vec<u32>) {
    let rank = |from: usize, to: usize| vocabulary.token(text, from, to).unwrap_or(NONE);
    let mut len = piece.len();
    // The start of each part, followed by the end of the piece; and the rank of each part merged with the next.
    let mut starts = [0; MAX_SEARCHED + 1];
    let mut ranks = [NONE; MAX_SEARCHED + 1];
    for (start, at) in starts.iter_mut().zip(piece.start..=piece.end) {
        *start = at;
    }
    for (pair, at) in ranks.iter_mut().zip(piece.start..piece.end - 1) {
        *pair = rank(at, at + 2);
    }
    loop {
        let lowest = ranks[..len].iter().enumerate().min_by_key(|&(_, &rank)| rank);
        let Some((at, _)) = lowest.filter(|&(_, &rank)| rank != NONE) else { break };
        starts.copy_within(at + 2..=len, at + 1);
        ranks.copy_within(at + 2..=len, at + 1);
        len -= 1;
        ranks[at] = if at + 1 < len { rank(starts[at], starts[at + 2]) } else { NONE };
        if at > 0 {
            ranks[at - 1] = rank(starts[at - 1], starts[at + 1]);
        }
    }
    tokens.extend(starts[..=len].windows(2).map(|part| rank(part[0], part[1])));
}

/// A part of a long piece, stored at the offset of its first byte.
#[derive(Clone, Copy)]
struct Part {
    /// Offset of the previous part; its own offset for the first.
    previous: u32,
    /// Offset of its end, which is the start of the next part.
    end: u32,
    /// Rank of it merged with the next part.
    rank: u32,
}

/// The same with a priority queue: `n log n` in the length of the piece.
fn queued(vocabulary: &Vocabulary, text: &[u8], piece: Range<usize>, tokens: &mut Vec<u32>) {
    let bytes = &text[piece];
    let rank = |from: u32, to: u32| vocabulary.token(bytes, from as usize, to as usize).unwrap_or(NONE);
    let len = bytes.len() as u32;
    let mut parts: Vec<Part> = (0..len)
        .map(|at| Part {
            previous: at.saturating_sub(1),
            end: at + 1,
            rank: if at + 2 <= len { rank(at, at + 2) } else { NONE },
        })
        .collect();
    let mut queue: BinaryHeap<Reverse<(u32, u32)>> = (0..len)
        .filter(|&at| parts[at as usize].rank != NONE)
        .map(|at| Reverse((parts[at as usize].rank, at)))
        .collect();
    while let Some(Reverse((queued_rank, at))) = queue.pop() {
        let left = parts[at as usize];
        // A merge changes the ranks around it and leaves the old ones in the queue.
        if left.rank != queued_rank {
            continue;
        }
        let right = parts[left.end as usize];
        parts[left.end as usize].rank = NONE;
        parts[at as usize].end = right.end;
        if right.end < len {
            parts[right.end as usize].previous = at;
        }
        let mut renew = |at: u32| {
            let next = parts[at as usize].end;
            let joined = if next < len { rank(at, parts[next as usize].end) } else { NONE };
            parts[at as usize].rank = joined;
            if joined != NONE {
                queue.push(Reverse((joined, at)));
            }
        };
        renew(at);
        if at > 0 {
            renew(left.previous);
        }
    }
    let mut at = 0;
    while at < len {
        let end = parts[at as usize].end;
        tokens.push(rank(at, end));
        at = end;
    }
}
