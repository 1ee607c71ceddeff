//! Vector clocks: what a thread of a cluster, or a word that atomics meet on, knows of the others.

use std::sync::Arc;

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;

/// For each thread of the cluster the latest stamp that happened before now.
///
/// A stamp is a thread's own count of releases. The own warp is held in place, the others behind a
/// pointer that stays empty until a named barrier or an atomic carries knowledge between warps.
#[derive(Clone)]
pub(crate) struct Clock {
    pub(crate) warp: usize,
    pub(crate) local: [u32; LANES],
    pub(crate) far: Option<Arc<[u32]>>,
    /// What an arrival from another block hands on that orders no writes between blocks: of each thread the latest stamp
    /// that a copy may count as before it.
    pub(crate) over: Option<Arc<[u32]>>,
}

impl Clock {
    pub(crate) fn new(warp: usize) -> Self {
        Self { warp, local: [0; LANES], far: None, over: None }
    }

    /// Whether what `thread` did at `stamp` happened before.
    pub(crate) fn knows(&self, thread: usize, stamp: u32) -> bool {
        (thread / LANES == self.warp && self.local[thread % LANES] >= stamp)
            || self.far.as_ref().is_some_and(|far| far[thread] >= stamp)
    }

    /// The latest stamp of `thread` that is known, 0 where none is.
    pub(crate) fn stamp_of(&self, thread: usize) -> u32 {
        let near = if thread / LANES == self.warp { self.local[thread % LANES] } else { 0 };
        near.max(self.far.as_ref().map_or(0, |far| far[thread]))
    }

    /// Learns all that `other` knows, in a cluster of `threads` (a whole number of warps).
    pub(crate) fn join(&mut self, other: &Self, threads: usize) {
        if let Some(theirs) = &other.far {
            raise_all(&mut self.far, theirs);
        }
        if let Some(theirs) = &other.over {
            raise_all(&mut self.over, theirs);
        }
        if other.warp == self.warp {
            raise(&mut self.local, &other.local);
        } else {
            self.learn_far(other.warp, &other.local, threads);
        }
    }

    /// Learns that what `other` knows is over, and no more.
    pub(crate) fn learn_over(&mut self, other: &Self, threads: usize) {
        for theirs in [&other.far, &other.over].into_iter().flatten() {
            raise_all(&mut self.over, theirs);
        }
        let over = self.over.get_or_insert_with(|| vec![0; threads].into());
        raise_shared(over, other.warp * LANES, &other.local);
    }

    /// Whether what `thread` did at `stamp` is known to be over, if not to be seen.
    pub(crate) fn knows_over(&self, thread: usize, stamp: u32) -> bool {
        self.over.as_ref().is_some_and(|over| over[thread] >= stamp)
    }

    /// Puts the own warp's part behind the pointer too, so that a clone of it says everything.
    pub(crate) fn fold(&mut self, threads: usize) {
        let local = self.local;
        self.learn_far(self.warp, &local, threads);
    }

    fn learn_far(&mut self, warp: usize, stamps: &[u32; LANES], threads: usize) {
        let far = self.far.get_or_insert_with(|| vec![0; threads].into());
        raise_shared(far, warp * LANES, stamps);
    }
}

fn raise_all(mine: &mut Option<Arc<[u32]>>, theirs: &Arc<[u32]>) {
    match mine {
        None => *mine = Some(theirs.clone()),
        Some(mine) if Arc::ptr_eq(mine, theirs) => {}
        // What is the same is shared, not copied.
        Some(mine) if mine.iter().zip(theirs.iter()).all(|(m, t)| m <= t) => {
            *mine = theirs.clone();
        }
        Some(mine) => raise_shared(mine, 0, theirs),
    }
}

fn raise(mine: &mut [u32], theirs: &[u32]) {
    for (m, t) in mine.iter_mut().zip(theirs) {
        *m = (*m).max(*t);
    }
}

/// Raises `mine[start..]` to `theirs`, and copies a shared `mine` only where that changes it.
fn raise_shared(mine: &mut Arc<[u32]>, start: usize, theirs: &[u32]) {
    let range = start..start + theirs.len();
    if mine[range.clone()].iter().zip(theirs).any(|(m, t)| m < t) {
        raise(&mut Arc::make_mut(mine)[range], theirs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knowledge_crosses_warps_through_a_join() {
        let (mut a, mut b) = (Clock::new(0), Clock::new(1));
        a.local[3] = 7;
        b.join(&a, 64);
        assert!(b.knows(3, 7));
        assert!(!b.knows(3, 8));
        assert!(!b.knows(35, 1));
    }

    #[test]
    fn a_join_does_not_write_into_what_others_share() {
        let (mut a, mut b) = (Clock::new(0), Clock::new(1));
        a.local[0] = 5;
        a.fold(64);
        b.join(&a, 64);
        b.local[1] = 9;
        b.fold(64);
        assert!(b.knows(33, 9) && b.knows(0, 5));
        assert!(!a.knows(33, 9));
    }
}
