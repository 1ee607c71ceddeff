//! How a grafting seed's α rises from epoch to epoch.

use core::fmt;

/// The rule by which α grows, as one byte in the state arrays. n is the seed's ramp length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum BlendSchedule {
    /// 1/n an epoch.
    FixedRamp = 0,
    /// (1/n)·clip(2·max(0, L₀−L)/L₀, 0.5, 3), L₀ the loss of the first grafting epoch.
    PerformanceLinked = 1,
    /// 2/n, 1/n or nothing, by the mean of the last five drifts.
    DriftControlled = 2,
    /// 1/n while the gradient's norm is in its band.
    GradNormGated = 3,
}

/// Epochs from α = 0 to 1 where nothing else is asked for.
pub const DEFAULT_RAMP_EPOCHS: u32 = 30;

/// Drifts that DRIFT_CONTROLLED averages.
pub const DRIFT_WINDOW: usize = 5;

/// θ of DRIFT_CONTROLLED.
pub const DRIFT_THRESHOLD: f32 = 0.12;

/// The band of GRAD_NORM_GATED, both ends in it.
pub const GRADIENT_NORM_BAND: [f32; 2] = [0.1, 1.0];

/// A first loss no larger than this links nothing: PERFORMANCE_LINKED is then FIXED_RAMP.
pub const SMALLEST_BASELINE_LOSS: f32 = 1e-12;

impl BlendSchedule {
    /// Every schedule, in the order of its byte.
    pub const ALL: [Self; 4] =
        [Self::FixedRamp, Self::PerformanceLinked, Self::DriftControlled, Self::GradNormGated];

    /// The schedule of a byte, if it is one.
    #[inline]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::FixedRamp,
            1 => Self::PerformanceLinked,
            2 => Self::DriftControlled,
            3 => Self::GradNormGated,
            _ => return None,
        })
    }

    /// The name in the field's spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FixedRamp => "FIXED_RAMP",
            Self::PerformanceLinked => "PERFORMANCE_LINKED",
            Self::DriftControlled => "DRIFT_CONTROLLED",
            Self::GradNormGated => "GRAD_NORM_GATED",
        }
    }
}

impl fmt::Display for BlendSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_schedules_are_each_others() {
        for (byte, schedule) in BlendSchedule::ALL.into_iter().enumerate() {
            assert_eq!(schedule as usize, byte);
            assert_eq!(BlendSchedule::from_u8(byte as u8), Some(schedule));
        }
        assert_eq!(BlendSchedule::from_u8(4), None);
    }
}
