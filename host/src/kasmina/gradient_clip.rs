//! Clipping of the gradients of a layer's parameters.

use kasmina_kernels::instances::{self, Clip};
use kasmina_reference::kasmina as reference;
use kasmina_types::ClipFigures;
pub use kasmina_types::ClipTotals;

use super::state::LayerState;
use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::gradient_clip::{self as launcher, Arguments};
use crate::error::Error;

const OP: &str = "gradient_clip";

/// How gradients are clipped. Values that are NaN or infinite are counted, never changed, and never reach
/// another value.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ClipMode {
    /// Not at all.
    #[default]
    None,
    /// Each value to ± the limit, which is above 0.
    ByValue(f32),
    /// All by one factor, so that the norm over the whole layer is no more than the limit. One value that
    /// is not finite leaves all gradients as they are: [`ClipReport::nonfinite`] says so, and the step is
    /// better left out.
    GlobalNorm(f32),
    /// Each seed by a factor c of its own, so that its norm n is no more than `factor` times its running norm
    /// r from before; then r becomes `decay`·r + (1 − `decay`)·n, with the n from before clipping, so that a
    /// lasting rise is followed. n² is (∂L/∂α)² and the square of the norm of what the seed adds to ∂L/∂w; the
    /// first n of a seed is its first r, and clips nothing; where n is 0, r stays.
    ///
    /// ∂L/∂α is multiplied by c. ∂L/∂w and ∂L/∂s are a blueprint's, summed over the seeds that share it: they
    /// are multiplied by the mean of its seeds' c, weighed with the norms of what each adds to ∂L/∂w; that is c
    /// where it has one seed. So ‖∂L/∂w‖ is bounded as if each seed's part had been clipped before the sum. A
    /// seed whose n is not finite is left as it is, and its r, and what its blueprint's seeds share.
    Adaptive {
        /// The largest norm as a multiple of the running norm, above 0.
        factor: f32,
        /// Share of the running norm that stays, at least 0 and below 1.
        decay: f32,
    },
}

/// The gradients of a layer's parameters, clipped in place.
#[derive(Debug)]
pub struct ClipTargets<'a> {
    /// ∂L/∂w, laid out as the state's weights.
    pub weights: &'a mut Buffer<f32>,
    /// ∂L/∂s, `[num_blueprints]`.
    pub scales: &'a mut Buffer<f32>,
    /// ∂L/∂α, `[num_seeds]`.
    pub alpha: &'a mut Buffer<f32>,
    /// Norm of what each seed adds to ∂L/∂w, `[num_seeds]`, which only [`ClipMode::Adaptive`] reads.
    pub seed_norms: &'a Buffer<f32>,
}

/// What the last run found and did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClipReport {
    /// √Σ g² over all finite values, before clipping.
    pub norm: f64,
    /// What the gradients were multiplied by; of several factors the smallest. 1 where nothing was scaled.
    pub coefficient: f64,
    /// Values that clipping by value changed.
    pub clipped_values: u32,
    /// Units that were scaled down; by the norm of all it is all units or none. In the adaptive way seeds.
    pub clipped_units: u32,
    /// Values that are NaN or infinite.
    pub nonfinite: u32,
    /// Units with such a value. In the adaptive way seeds whose norm is not finite.
    pub nonfinite_units: u32,
}

/// Clips the gradients of a layer's parameters.
///
/// They are cut into *units*: unit b is the weights and the scale of blueprint b, and the α of every seed
/// that has it. Unit 0, of blueprint 0, 'none', has the α of the seeds without one. The adaptive way goes
/// seed by seed.
///
/// [`Self::run`] allocates nothing on a device that runs kernels; [`Self::report`] reads what it left.
#[derive(Debug)]
pub struct GradientClip {
    device: Device,
    num_seeds: usize,
    num_blueprints: usize,
    chunk_size: usize,
    mode: ClipMode,
    grid: u32,
    running_norm: Buffer<f32>,
    partials: Buffer<ClipFigures>,
    figures: Buffer<ClipFigures>,
    totals: Buffer<ClipTotals>,
    arrivals: Buffer<u32>,
}

impl GradientClip {
    /// Plans the clipping for layers of this shape.
    ///
    /// # Errors
    /// [`Error::Setting`] for a limit or a factor that is not above 0, or a decay outside [0, 1); more
    /// parameters than 32-bit counts hold; a capture of the device's stream; memory exhausted, or a failed
    /// call.
    pub fn new(
        device: &Device,
        num_seeds: usize,
        num_blueprints: usize,
        chunk_size: usize,
        mode: ClipMode,
    ) -> Result<Self, Error> {
        mode.check()?;
        let weights = num_blueprints.saturating_mul(chunk_size);
        let parameters = weights.saturating_add(num_blueprints).saturating_add(num_seeds) as u64;
        let (what, limit) = ("parameters", i32::MAX as u64);
        if parameters > limit {
            return Err(Error::TooLarge { op: OP, what, got: parameters, limit });
        }
        device.refuse_capture(OP)?;
        let units = num_blueprints.max(1);
        let mut grid = 1;
        if let Some(kernels) = KernelDevice::of(device) {
            for &clip in mode.kernels() {
                let resident = kernels.resident_blocks(instances::gradient_clip(clip))?;
                grid = resident.min(units as u32);
            }
        }
        Ok(Self {
            device: device.clone(),
            num_seeds,
            num_blueprints,
            chunk_size,
            mode,
            grid,
            running_norm: Buffer::from_slice(device, &vec![f32::NAN; num_seeds])?,
            partials: Buffer::zeroed(device, units)?,
            figures: Buffer::from_slice(device, &[ClipFigures::EMPTY])?,
            totals: Buffer::zeroed(device, 1)?,
            arrivals: Buffer::zeroed(device, 1)?,
        })
    }

    /// How gradients are clipped.
    pub fn mode(&self) -> ClipMode {
        self.mode
    }

    /// Clips the gradients of the layer `state`, which says whose each is.
    ///
    /// # Errors
    /// A state or gradients that do not fit the plan, which leaves the gradients as they were, or a failed
    /// call.
    pub fn run(&mut self, state: &LayerState, mut gradients: ClipTargets<'_>) -> Result<(), Error> {
        check_length(OP, "state", self.num_seeds, state.num_seeds())?;
        check_length(OP, "blueprints", self.num_blueprints, state.num_blueprints())?;
        check_length(OP, "chunk_size", self.chunk_size, state.chunk_size())?;
        state.alpha.check_device(OP, "state", &self.device)?;
        let ClipTargets { weights, scales, alpha, seed_norms } = &gradients;
        for (name, expected, buffer) in [
            ("grad_weights", state.weights.len(), &**weights),
            ("grad_scales", self.num_blueprints, &**scales),
            ("grad_alpha", self.num_seeds, &**alpha),
            ("gradient_norm", self.num_seeds, *seed_norms),
        ] {
            check_length(OP, name, expected, buffer.len())?;
            buffer.check_device(OP, name, &self.device)?;
        }
        if self.mode == ClipMode::None {
            return Ok(());
        }
        let Some(kernels) = KernelDevice::of(&self.device) else {
            return self.run_on_cpu(state, &mut gradients);
        };
        let (limit, factor, decay) = match self.mode {
            ClipMode::None => (0.0, 0.0, 0.0),
            ClipMode::ByValue(limit) | ClipMode::GlobalNorm(limit) => (limit, 0.0, 0.0),
            ClipMode::Adaptive { factor, decay } => (0.0, factor, decay),
        };
        let mut launched = Ok(());
        for &clip in self.mode.kernels() {
            let mut arguments = Arguments {
                clip,
                grid: self.grid,
                state,
                gradients: gradients.reborrow(),
                running_norm: &mut self.running_norm,
                partials: &mut self.partials,
                figures: &mut self.figures,
                totals: &mut self.totals,
                arrivals: &mut self.arrivals,
                limit,
                factor,
                decay,
            };
            launched = launcher::launch(kernels, &mut arguments);
            if launched.is_err() {
                break;
            }
        }
        if launched.is_err() {
            // A launch that broke off leaves arrivals that are not zero.
            self.arrivals = Buffer::zeroed(&self.device, self.arrivals.len())?;
        }
        launched
    }

    /// What the last run found and did, once everything queued before is done. Before the first run, and
    /// for [`ClipMode::None`], nothing.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn report(&self) -> Result<ClipReport, Error> {
        let figures = self.figures.to_vec()?[0];
        Ok(ClipReport {
            norm: figures.square_sum.sqrt(),
            coefficient: figures.coefficient,
            clipped_values: figures.clipped_values,
            clipped_units: figures.clipped_units,
            nonfinite: figures.nonfinite,
            nonfinite_units: figures.nonfinite_units,
        })
    }

    /// What all runs did together, those of replayed graphs with them, once everything queued before is done.
    /// The device adds them up: a run moves nothing to the host. For [`ClipMode::None`] nothing is counted.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn totals(&self) -> Result<ClipTotals, Error> {
        Ok(self.totals.to_vec()?[0])
    }

    /// Each seed's running norm, NaN before there is one, once everything queued before is done.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn running_norms(&self) -> Result<Vec<f32>, Error> {
        self.running_norm.to_vec()
    }

    /// Puts running norms in the place of the seeds', for example those of a checkpoint; the totals stay.
    ///
    /// # Errors
    /// Another number of seeds, which changes nothing, or a failed call.
    pub fn set_running_norms(&mut self, norms: &[f32]) -> Result<(), Error> {
        check_length(OP, "running_norms", self.running_norm.len(), norms.len())?;
        self.running_norm.copy_from_slice(norms)
    }

    /// Forgets the running norm of one seed, as after it got another blueprint; the totals stay. It is
    /// queued, and nothing crosses from the host.
    ///
    /// # Errors
    /// No such seed, or a failed call.
    pub fn reset_seed(&mut self, seed: usize) -> Result<(), Error> {
        // Bytes of ones are a NaN.
        self.running_norm.fill_range_bytes(seed, 1, 0xff)
    }

    /// Forgets the running norms of all seeds; the totals stay.
    ///
    /// # Errors
    /// A failed call.
    pub fn reset(&mut self) -> Result<(), Error> {
        // Bytes of ones are a NaN.
        self.running_norm.fill_bytes(0xff)
    }

    fn run_on_cpu(
        &mut self,
        state: &LayerState,
        gradients: &mut ClipTargets<'_>,
    ) -> Result<(), Error> {
        let wide = |buffer: &Buffer<f32>| -> Result<Vec<f64>, Error> {
            Ok(buffer.to_vec()?.into_iter().map(f64::from).collect())
        };
        let (mut weights, mut scales, mut alpha) =
            (wide(gradients.weights)?, wide(gradients.scales)?, wide(gradients.alpha)?);
        let mut running: Vec<Option<f64>> = wide(&self.running_norm)?
            .into_iter()
            .map(|norm| (!norm.is_nan()).then_some(norm))
            .collect();
        let clip = match self.mode {
            ClipMode::None => return Ok(()),
            ClipMode::ByValue(limit) => reference::Clip::ByValue(limit.into()),
            ClipMode::GlobalNorm(limit) => reference::Clip::GlobalNorm(limit.into()),
            ClipMode::Adaptive { factor, decay } => {
                reference::Clip::Adaptive { factor: factor.into(), decay: decay.into() }
            }
        };
        let clipped = reference::gradient_clip(
            clip,
            &mut reference::ParameterGradients {
                weights: &mut weights,
                scales: &mut scales,
                alpha: &mut alpha,
                blueprint_id: &state.blueprint_id.to_vec()?,
                blueprint_offset: &state.blueprint_offset.to_vec()?,
                seed_norms: &wide(gradients.seed_norms)?,
                chunk_size: self.chunk_size,
            },
            &mut running,
        );
        for (buffer, values) in [
            (&mut *gradients.weights, weights),
            (&mut *gradients.scales, scales),
            (&mut *gradients.alpha, alpha),
        ] {
            let host =
                buffer.as_host_slice_mut().expect("the CPU's buffers are in the host's memory");
            // A NaN keeps its bits.
            host.iter_mut().zip(values).filter(|(to, _)| to.is_finite()).for_each(|(to, value)| {
                *to = value as f32;
            });
        }
        let norms: Vec<f32> =
            running.iter().map(|norm| norm.map_or(f32::NAN, |norm| norm as f32)).collect();
        self.running_norm.copy_from_slice(&norms)?;
        let figures = ClipFigures {
            square_sum: clipped.norm * clipped.norm,
            coefficient: clipped.coefficient,
            nonfinite: clipped.nonfinite,
            clipped_values: clipped.clipped_values,
            clipped_units: clipped.clipped_units,
            nonfinite_units: clipped.nonfinite_units,
        };
        let totals = self.totals()?.plus(&figures);
        self.totals.copy_from_slice(&[totals])?;
        self.figures.copy_from_slice(&[figures])
    }
}

impl ClipTargets<'_> {
    /// The same gradients, for a shorter while.
    pub(crate) fn reborrow(&mut self) -> ClipTargets<'_> {
        let Self { weights, scales, alpha, seed_norms } = self;
        ClipTargets { weights, scales, alpha, seed_norms }
    }
}

impl ClipMode {
    /// The kernels to launch, one after the other.
    fn kernels(self) -> &'static [Clip] {
        match self {
            Self::None => &[],
            Self::ByValue(_) => &[Clip::Value],
            Self::GlobalNorm(_) => &[Clip::Norm, Clip::Scale],
            Self::Adaptive { .. } => &[Clip::Adaptive],
        }
    }

    fn check(self) -> Result<(), Error> {
        let wrong = |setting, got: f32, expected| {
            Err(Error::Setting { op: OP, setting, got: got.into(), expected })
        };
        match self {
            Self::ByValue(limit) | Self::GlobalNorm(limit)
                if !(limit.is_finite() && limit > 0.0) =>
            {
                wrong("limit", limit, "a finite number above 0")
            }
            Self::Adaptive { factor, .. } if !(factor.is_finite() && factor > 0.0) => {
                wrong("factor", factor, "a finite number above 0")
            }
            Self::Adaptive { decay, .. } if !(0.0..1.0).contains(&decay) => {
                wrong("decay", decay, "at least 0 and below 1")
            }
            _ => Ok(()),
        }
    }
}
