//! Telemetry of a seed: what its chunk of the input looked like, over the batch.

use crate::view::Out;

/// |x| below this counts as dead.
pub const DEAD_THRESHOLD: f32 = 1e-8;

/// Added to the variance under the signal-to-noise ratio's root.
pub const SNR_EPSILON: f32 = 1e-8;

/// One part's share of a seed's telemetry: what one block saw, ready to be merged by Chan's form of
/// Welford's update. The neutral element is [`TelemetryPartial::EMPTY`].
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TelemetryPartial {
    /// Finite values seen.
    pub finite: u32,
    /// Values that were NaN or infinite.
    pub nonfinite: u32,
    /// Values with |x| < [`DEAD_THRESHOLD`].
    pub dead: u32,
    /// Keeps the record at two 16-byte words.
    pub _padding: u32,
    /// Mean of the finite values.
    pub mean: f32,
    /// Sum of their squared deviations from the mean.
    pub m2: f32,
    /// Smallest finite value, +∞ if there is none.
    pub min: f32,
    /// Largest finite value, −∞ if there is none.
    pub max: f32,
}

crate::assert_layout!(TelemetryPartial, size = 32, align = 16, {
    finite: 0, nonfinite: 4, dead: 8, mean: 16, m2: 20, min: 24, max: 28,
});

// SAFETY: `repr(C)`, eight 4-byte fields, no implicit padding, and every bit pattern is a value.
unsafe impl bytemuck::Pod for TelemetryPartial {}
// SAFETY: as above.
unsafe impl bytemuck::Zeroable for TelemetryPartial {}

impl TelemetryPartial {
    /// Nothing seen.
    pub const EMPTY: Self = Self {
        finite: 0,
        nonfinite: 0,
        dead: 0,
        _padding: 0,
        mean: 0.0,
        m2: 0.0,
        min: f32::INFINITY,
        max: f32::NEG_INFINITY,
    };
}

/// Where the finished telemetry goes: one array per figure, `[num_seeds]` each.
///
/// `count` is every value observed, batch × chunk. Mean, variance (population), minimum, maximum and
/// signal-to-noise are over the finite ones, NaN if there is none; sums follow as
/// `mean · (count − nonfinite)`.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct SeedTelemetry {
    /// Values observed.
    pub count: Out<u32>,
    /// Mean.
    pub mean: Out<f32>,
    /// Population variance.
    pub variance: Out<f32>,
    /// Smallest value.
    pub min: Out<f32>,
    /// Largest value.
    pub max: Out<f32>,
    /// Values with |x| < 1e-8, as a share of `count`.
    pub dead_ratio: Out<f32>,
    /// |mean| / √(variance + 1e-8).
    pub snr: Out<f32>,
    /// NaN and infinite values.
    pub nonfinite: Out<u32>,
}

crate::assert_layout!(SeedTelemetry, size = 128, align = 16, {
    count: 0, mean: 16, variance: 32, min: 48, max: 64, dead_ratio: 80, snr: 96, nonfinite: 112,
});
