//! The order in which entries are evicted.

use std::cmp;
use std::collections::BinaryHeap;
use std::mem;

use crate::token::request::TokenRequest;

/// Candidates of removed entries that are kept beside those of the entries that there are, however
/// few these are.
const SPARE: usize = 64;

/// An entry that may be evicted, and the turn of a use of it.
pub(super) struct Candidate {
    pub(super) used: u64,
    pub(super) request: TokenRequest,
}

/// The candidates, the least recently used first.
///
/// A candidate stays here when its entry is removed, since a heap finds only the first one. Once
/// more than half of them are of no use, all are sorted out, some at each call.
#[derive(Default)]
pub(super) struct ByUse {
    heap: BinaryHeap<Candidate>,
    /// Candidates that are yet to be sorted out.
    unsorted: Vec<Candidate>,
}

impl ByUse {
    pub(super) fn push(&mut self, candidate: Candidate) {
        self.heap.push(candidate);
    }

    /// Removes the least recently used.
    pub(super) fn pop(&mut self) -> Option<Candidate> {
        self.heap.pop()
    }

    /// Drops the candidates that are not current, if there are many besides those of `entries`
    /// entries. Looks at no more than `max_scan` of them.
    pub(super) fn sort_out(
        &mut self,
        entries: usize,
        max_scan: usize,
        is_current: impl Fn(&Candidate) -> bool,
    ) {
        if self.unsorted.is_empty() && self.heap.len() > 2 * entries + SPARE {
            self.unsorted = mem::take(&mut self.heap).into_vec();
        }
        for _ in 0..max_scan {
            match self.unsorted.pop() {
                Some(candidate) if is_current(&candidate) => self.heap.push(candidate),
                Some(_) => {}
                None => return,
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len() + self.unsorted.len()
    }
}

/// The least recently used is the greatest, which the heap gives first.
impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        other.used.cmp(&self.used)
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}
