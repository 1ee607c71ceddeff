//! The life of a seed, and the one table of its legal transitions.

use core::fmt;

/// The state of a seed, as one byte in the state arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SeedLifecycle {
    /// Waiting; the identity.
    Dormant = 0,
    /// Holds a blueprint that does not train yet; the identity.
    Germinated = 1,
    /// The blueprint learns on detached input; the forward pass is the identity.
    Training = 2,
    /// α ramps up.
    Grafting = 3,
    /// α stays, the blueprint is frozen.
    Stabilization = 4,
    /// Measured against its absence, frozen.
    Evaluating = 5,
    /// Trains with the host network.
    FineTuning = 6,
    /// Part of the network for good, frozen. Terminal.
    Fossilized = 7,
    /// Removed for bad results; the identity until its embargo ends.
    Culled = 8,
    /// Given up before grafting; the identity.
    Cancelled = 9,
    /// Taken back after grafting began; the identity.
    RolledBack = 10,
}

use SeedLifecycle::{
    Cancelled, Culled, Dormant, Evaluating, FineTuning, Fossilized, Germinated, Grafting,
    RolledBack, Stabilization, Training,
};

/// Every legal transition, `(from, to)`.
pub const TRANSITIONS: [(SeedLifecycle, SeedLifecycle); 19] = [
    (Dormant, Germinated),
    (Germinated, Training),
    (Germinated, Cancelled),
    (Training, Grafting),
    (Training, Culled),
    (Training, Cancelled),
    (Grafting, Stabilization),
    (Stabilization, Evaluating),
    (Evaluating, FineTuning),
    (Evaluating, Culled),
    (FineTuning, Fossilized),
    (FineTuning, Culled),
    (Grafting, RolledBack),
    (Stabilization, RolledBack),
    (Evaluating, RolledBack),
    (FineTuning, RolledBack),
    (Culled, Dormant),
    (Cancelled, Dormant),
    (RolledBack, Dormant),
];

impl SeedLifecycle {
    /// Every state, in the order of its byte.
    pub const ALL: [Self; 11] = [
        Dormant,
        Germinated,
        Training,
        Grafting,
        Stabilization,
        Evaluating,
        FineTuning,
        Fossilized,
        Culled,
        Cancelled,
        RolledBack,
    ];

    /// The state of a byte, if it is one.
    #[inline]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Dormant,
            1 => Germinated,
            2 => Training,
            3 => Grafting,
            4 => Stabilization,
            5 => Evaluating,
            6 => FineTuning,
            7 => Fossilized,
            8 => Culled,
            9 => Cancelled,
            10 => RolledBack,
            _ => return None,
        })
    }

    /// Whether the seed changes its input: GRAFTING to FOSSILIZED.
    pub const fn is_active(self) -> bool {
        matches!(self, Grafting | Stabilization | Evaluating | FineTuning | Fossilized)
    }

    /// Whether the seed's blueprint receives gradients: TRAINING, GRAFTING and FINE_TUNING.
    pub const fn trains(self) -> bool {
        matches!(self, Training | Grafting | FineTuning)
    }

    /// Whether a seed may pass from this state to `to`.
    pub const fn may_become(self, to: Self) -> bool {
        let mut i = 0;
        while i < TRANSITIONS.len() {
            if TRANSITIONS[i].0 as u8 == self as u8 && TRANSITIONS[i].1 as u8 == to as u8 {
                return true;
            }
            i += 1;
        }
        false
    }

    /// The name in the field's spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Dormant => "DORMANT",
            Germinated => "GERMINATED",
            Training => "TRAINING",
            Grafting => "GRAFTING",
            Stabilization => "STABILIZATION",
            Evaluating => "EVALUATING",
            FineTuning => "FINE_TUNING",
            Fossilized => "FOSSILIZED",
            Culled => "CULLED",
            Cancelled => "CANCELLED",
            RolledBack => "ROLLED_BACK",
        }
    }
}

impl fmt::Display for SeedLifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_published_ones() {
        for (byte, state) in SeedLifecycle::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, byte);
            assert_eq!(SeedLifecycle::from_u8(byte as u8), Some(state));
        }
        assert_eq!(SeedLifecycle::from_u8(11), None);
        assert_eq!(SeedLifecycle::from_u8(255), None);
    }

    #[test]
    fn active_is_grafting_to_fossilized() {
        let active = SeedLifecycle::ALL.map(SeedLifecycle::is_active);
        assert_eq!(active.map(u8::from), [0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0]);
    }

    #[test]
    fn frozen_blueprints_do_not_train() {
        let trains = SeedLifecycle::ALL.map(SeedLifecycle::trains);
        assert_eq!(trains.map(u8::from), [0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn fossilized_is_terminal_and_every_other_state_has_a_way_out() {
        for from in SeedLifecycle::ALL {
            let leaves = SeedLifecycle::ALL.into_iter().any(|to| from.may_become(to));
            assert_eq!(leaves, from != SeedLifecycle::Fossilized, "{from}");
        }
    }

    #[test]
    fn rollback_starts_at_grafting_and_ends_before_fossilized() {
        for from in SeedLifecycle::ALL {
            let expected = (3..=6).contains(&(from as u8));
            assert_eq!(from.may_become(SeedLifecycle::RolledBack), expected, "{from}");
        }
    }
}
