//! Telemetry arrays on a device, and their values.

use kasmina_types::SeedTelemetry;

use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::error::Error;

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        /// A layer's telemetry on a device, `[num_seeds]` each.
        #[derive(Debug)]
        pub struct TelemetryBuffers {
            $($(#[$doc])* pub $name: Buffer<$type>,)*
        }

        /// A layer's telemetry, `[num_seeds]` each. What it says of each array is at
        /// [`SeedTelemetry`].
        #[derive(Debug, Clone, PartialEq)]
        pub struct TelemetryValues {
            $($(#[$doc])* pub $name: Vec<$type>,)*
        }

        impl TelemetryBuffers {
            /// Arrays for `num_seeds` seeds.
            ///
            /// # Errors
            /// Memory exhausted, or a failed call.
            pub fn new(device: &Device, num_seeds: usize) -> Result<Self, Error> {
                Ok(Self { $($name: Buffer::zeroed(device, num_seeds)?),* })
            }

            /// The values, once everything queued before is done.
            ///
            /// # Errors
            /// What the queued work ran into, or a failed call.
            pub fn read(&self) -> Result<TelemetryValues, Error> {
                Ok(TelemetryValues { $($name: self.$name.to_vec()?),* })
            }

            /// Overwrites the values.
            pub(crate) fn write(&mut self, values: &TelemetryValues) -> Result<(), Error> {
                $(self.$name.copy_from_slice(&values.$name)?;)*
                Ok(())
            }

            /// Overwrites the values with those of other arrays, on the device.
            pub(crate) fn copy_from(&mut self, other: &Self) -> Result<(), Error> {
                $(self.$name.copy_from_buffer(&other.$name)?;)*
                Ok(())
            }

            /// Fills every byte of every array.
            ///
            /// # Errors
            /// A failed call.
            pub fn fill_bytes(&mut self, byte: u8) -> Result<(), Error> {
                $(self.$name.fill_bytes(byte)?;)*
                Ok(())
            }

            /// Refuses arrays that are not of `num_seeds` on `device`.
            pub(crate) fn check(
                &self,
                op: &'static str,
                num_seeds: usize,
                device: &Device,
            ) -> Result<(), Error> {
                $(
                    let name = concat!("telemetry.", stringify!($name));
                    check_length(op, name, num_seeds, self.$name.len())?;
                    self.$name.check_device(op, name, device)?;
                )*
                Ok(())
            }

            pub(crate) fn view_mut(&mut self) -> SeedTelemetry {
                SeedTelemetry { $($name: self.$name.view_mut()),* }
            }
        }
    };
}

figures! {
    /// Values observed.
    count: u32,
    /// Mean.
    mean: f32,
    /// Population variance.
    variance: f32,
    /// Smallest value.
    min: f32,
    /// Largest value.
    max: f32,
    /// Share of values with |x| < 1e-8.
    dead_ratio: f32,
    /// |mean| / √(variance + 1e-8).
    snr: f32,
    /// NaN and infinite values.
    nonfinite: u32,
}
