//! Which places of the table of operations are free.

/// Runs of free places, first fit.
pub(super) struct Places {
    /// Beginnings and lengths, ascending, no two adjacent.
    free: Vec<(usize, usize)>,
}

impl Places {
    pub(super) fn new(len: usize) -> Self {
        Self { free: vec![(0, len)] }
    }

    /// Takes a run, or answers the length of the longest that is free.
    pub(super) fn take(&mut self, len: usize) -> Result<usize, usize> {
        let Some(at) = self.free.iter().position(|&(_, free)| free >= len) else {
            return Err(self.free.iter().map(|&(_, free)| free).max().unwrap_or(0));
        };
        let (first, free) = self.free[at];
        if free == len {
            self.free.remove(at);
        } else {
            self.free[at] = (first + len, free - len);
        }
        Ok(first)
    }

    /// Gives a run back that was taken.
    pub(super) fn give(&mut self, first: usize, len: usize) {
        let at = self.free.partition_point(|&(start, _)| start < first);
        self.free.insert(at, (first, len));
        self.join(at);
        if at > 0 {
            self.join(at - 1);
        }
    }

    /// Joins a run with the next one, if they touch.
    fn join(&mut self, at: usize) {
        if let [(first, len), (next, more), ..] = self.free[at..]
            && first + len == next
        {
            self.free[at].1 = len + more;
            self.free.remove(at + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_back_together() {
        let mut places = Places::new(10);
        let taken = [3, 2, 5].map(|len| (places.take(len).unwrap(), len));
        assert_eq!(taken.map(|(first, _)| first), [0, 3, 5]);
        assert_eq!(places.take(1), Err(0));
        let [a, b, c] = taken;
        places.give(a.0, a.1);
        places.give(c.0, c.1);
        assert_eq!(places.take(6), Err(5));
        places.give(b.0, b.1);
        assert_eq!(places.take(10), Ok(0));
    }
}
