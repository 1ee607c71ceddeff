//! How a resident kernel is set up.

use std::time::Duration;

use kasmina_types::tiles::manifold::domain;

use super::error::PersistentError;

/// Whose operations a resident kernel has: fewer make a smaller kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Domains {
    /// Those of the layer.
    Layer,
    /// Those of active inference.
    Information,
    /// Those of linear algebra.
    Linear,
    /// All.
    #[default]
    All,
}

impl Domains {
    pub(super) const fn bits(self) -> u32 {
        match self {
            Self::Layer => domain::LAYER,
            Self::Information => domain::INFORMATION,
            Self::Linear => domain::LINEAR,
            Self::All => domain::ALL,
        }
    }
}

/// Settings of a [`PersistentExecutor`](super::PersistentExecutor).
#[derive(Clone, Debug, PartialEq)]
pub struct PersistentConfig {
    /// Whose operations the kernel has.
    pub domains: Domains,
    /// The share of the multiprocessors that it occupies, over 0 to 1; at least one for each group. Other kernels have the
    /// rest.
    pub share: f64,
    /// Groups of a single block, each of which works on a small item of its own; at least 1. What is left of the share is
    /// one group for larger items.
    pub small_groups: u32,
    /// Items that a group's ring holds; a power of two. A submission to a full one waits.
    pub ring_capacity: usize,
    /// Operations of all programs together.
    pub operations: usize,
    /// How long an item may be in work. After that the kernel counts as stalled.
    pub deadline: Duration,
    /// How long the kernel stays without work. The next item launches it again.
    pub idle_limit: Duration,
    /// How long the kernel stays when the host gives no sign of life.
    pub host_limit: Duration,
}

impl Default for PersistentConfig {
    fn default() -> Self {
        Self {
            domains: Domains::All,
            share: 0.25,
            small_groups: 3,
            ring_capacity: 1024,
            operations: 8192,
            deadline: Duration::from_secs(10),
            idle_limit: Duration::from_secs(1),
            host_limit: Duration::from_secs(5),
        }
    }
}

/// Lines of a ring at most.
const MOST_LINES: usize = 1 << 20;

/// Operations at most: their table takes 512 bytes for each.
const MOST_OPERATIONS: usize = 1 << 20;

impl PersistentConfig {
    pub(super) fn check(&self) -> Result<(), PersistentError> {
        let refuse =
            |setting, got: f64, expected| Err(PersistentError::Setting { setting, got, expected });
        if !(self.share > 0.0 && self.share <= 1.0) {
            return refuse("share", self.share, "over 0, at most 1");
        }
        if self.small_groups == 0 || self.small_groups > 64 {
            return refuse("small_groups", self.small_groups.into(), "1 to 64");
        }
        if !self.ring_capacity.is_power_of_two() || self.ring_capacity > MOST_LINES {
            let expected = "a power of two, at most 2^20";
            return refuse("ring_capacity", self.ring_capacity as f64, expected);
        }
        if self.operations == 0 || self.operations > MOST_OPERATIONS {
            return refuse("operations", self.operations as f64, "1 to 2^20");
        }
        for (setting, limit) in [
            ("deadline", self.deadline),
            ("idle_limit", self.idle_limit),
            ("host_limit", self.host_limit),
        ] {
            if limit < Duration::from_millis(1) {
                return refuse(setting, limit.as_secs_f64(), "1 ms or more, in seconds");
            }
        }
        Ok(())
    }

    /// Blocks of each group, of `most` that the device holds at once.
    pub(super) fn groups(&self, most: u32) -> Result<Vec<u32>, PersistentError> {
        let blocks = ((self.share * f64::from(most)).round() as u32).max(self.small_groups);
        if blocks > most {
            let (setting, got) = ("small_groups", f64::from(self.small_groups));
            let expected = "no more than the blocks that the device holds at once";
            return Err(PersistentError::Setting { setting, got, expected });
        }
        let mut groups = vec![1; self.small_groups as usize];
        if blocks > self.small_groups {
            groups.push(blocks - self.small_groups);
        }
        Ok(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_cut_into_groups() {
        let config = PersistentConfig { share: 0.25, small_groups: 3, ..Default::default() };
        assert_eq!(config.groups(132).unwrap(), [1, 1, 1, 30]);
        assert_eq!(config.groups(4).unwrap(), [1, 1, 1]);
        assert!(config.groups(2).is_err());
        let all = PersistentConfig { share: 1.0, small_groups: 1, ..Default::default() };
        assert_eq!(all.groups(2).unwrap(), [1, 1]);
    }

    #[test]
    fn settings_that_mean_nothing_are_refused() {
        let default = PersistentConfig::default;
        assert_eq!(default().check(), Ok(()));
        for (setting, config) in [
            ("share", PersistentConfig { share: f64::NAN, ..default() }),
            ("share", PersistentConfig { share: 1.5, ..default() }),
            ("small_groups", PersistentConfig { small_groups: 0, ..default() }),
            ("ring_capacity", PersistentConfig { ring_capacity: 3, ..default() }),
            ("operations", PersistentConfig { operations: 0, ..default() }),
            ("deadline", PersistentConfig { deadline: Duration::ZERO, ..default() }),
        ] {
            let refused = config.check().unwrap_err();
            assert!(matches!(refused, PersistentError::Setting { setting: s, .. } if s == setting));
        }
    }
}
