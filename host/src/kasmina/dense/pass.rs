//! What the passes do for seeds that hold a LINEAR blueprint, for one batch size.
//!
//! Forward: `z = W·x + b` of all active ones by one group of products, then one launch that blends. Backward: z again,
//! for the pass takes x and keeps nothing; ∂z with the sums over the batch; ∂W by one group, whose sums run over the batch
//! of all seeds that share the blueprint; Wᵀ·∂z by another; and one launch each that adds ∂b and blends ∂x. The lists
//! follow the seeds' states: they are made anew where these have changed, and not in a step.

use kasmina_types::{DenseSeed, DenseUsers, Layout, Numerical, SeedLifecycle};

use super::cpu::CpuSeeds;
use super::{DensePlace, DenseStore};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::dense_blend::{
    self as launcher, Arguments, BackwardArguments, DenseList, DenseSums, UserList,
};
use crate::error::Error;
use crate::kasmina::blend_forward::LayerElement;
use crate::kasmina::{GradientBuffers, LayerState, NumericalMode};
use crate::linear::{Chosen, GroupFusion, GroupedPlan, GroupedProblem, LinearOptions, Operands};

const OP: &str = "KasminaLayer: seeds that hold a LINEAR blueprint";

/// A seed that holds a LINEAR blueprint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder {
    pub(super) seed: usize,
    pub(super) blueprint: u16,
    pub(super) lifecycle: SeedLifecycle,
    pub(super) place: DensePlace,
    /// Where b begins among the state's weights.
    pub(super) offset: usize,
}

/// The work for one batch size, as long as the store's generation is this one.
pub(crate) struct DensePass<T: LayerElement> {
    batch: usize,
    generation: u64,
    /// Of the products.
    options: LinearOptions,
    /// Those that are active or train: blueprint by blueprint, of each first those that train it, in their order.
    holders: Vec<Holder>,
    forward: Option<Forward<T>>,
    backward: Option<Backward<T>>,
    /// z, and in the backward pass Wᵀ·∂z: `[listed, batch, C]`.
    z: Buffer<f32>,
    /// The flags of the adaptive mode as they were before the pass, `[num_seeds]`.
    flags: Buffer<u8>,
    cpu: Option<CpuSeeds>,
}

/// Of the active seeds.
struct Forward<T: LayerElement> {
    list: DenseList,
    products: GroupedPlan<T, f32>,
}

/// Of all holders.
struct Backward<T: LayerElement> {
    list: DenseList,
    users: UserList,
    products: GroupedPlan<T, f32>,
    weights: GroupedPlan<T, f32>,
    /// Of the active ones, in the order of the forward list.
    input: GroupedPlan<T, f32>,
    grad_z: Buffer<T>,
    kept_input: Buffer<T>,
    sums: DenseSums,
}

impl<T: LayerElement> DensePass<T> {
    /// The lists for `batch` rows as the seeds are now, whose products may be off by `tolerance`.
    pub(crate) fn new(
        device: &Device,
        batch: usize,
        state: &LayerState,
        store: &DenseStore<T>,
        tolerance: f64,
    ) -> Result<Self, Error> {
        device.refuse_capture(OP)?;
        let holders = holders(state, store)?;
        let mut pass = Self {
            batch,
            generation: store.generation(),
            options: LinearOptions { tolerance, ..LinearOptions::default() },
            forward: None,
            backward: None,
            z: Buffer::zeroed(device, 0)?,
            flags: Buffer::zeroed(device, state.num_seeds())?,
            cpu: None,
            holders,
        };
        if KernelDevice::of(device).is_none() {
            pass.cpu = Some(CpuSeeds { batch });
            return Ok(pass);
        }
        let shape = Shape::of(batch, state);
        // With room for the backward pass: where it is stays as it is, which groups on warpgroups go by.
        pass.z = Buffer::zeroed(device, shape.place(pass.holders.len()))?;
        let active: Vec<Holder> = pass.active().copied().collect();
        if !active.is_empty() {
            let list = list(device, shape, &active)?;
            let products = before_activation(device, shape, pass.options, &active)?;
            pass.forward = Some(Forward { list, products });
        }
        Ok(pass)
    }

    /// Whether it is for the seeds as they are.
    pub(crate) fn is_current(&self, store: &DenseStore<T>) -> bool {
        self.generation == store.generation()
    }

    /// Makes what a backward pass needs.
    pub(crate) fn prepare_backward(
        &mut self,
        device: &Device,
        state: &LayerState,
        store: &DenseStore<T>,
    ) -> Result<(), Error> {
        if self.backward.is_some() || self.cpu.is_some() {
            return Ok(());
        }
        device.refuse_capture(OP)?;
        let (shape, options) = (Shape::of(self.batch, state), self.options);
        let list = list(device, shape, &self.holders)?;
        let users = users(state, store, &self.holders)?;
        self.backward = Some(Backward {
            users: UserList::new(device, &list, &users)?,
            products: before_activation(device, shape, options, &self.holders)?,
            weights: weight_gradients(device, shape, options, store, &users)?,
            input: through_weights(device, shape, options, &self.holders)?,
            grad_z: Buffer::zeroed(device, list.elements())?,
            kept_input: Buffer::zeroed(device, list.elements())?,
            sums: DenseSums::new(device, &list)?,
            list,
        });
        Ok(())
    }

    /// What the groups give, and how they are computed; nothing on the CPU.
    pub(crate) fn chosen(&self) -> Vec<(&'static str, Chosen)> {
        let forward = self.forward.iter().map(|pass| ("forward z", pass.products.chosen()));
        let backward = self.backward.iter().flat_map(|pass| {
            [
                ("backward z", pass.products.chosen()),
                ("grad_weights", pass.weights.chosen()),
                ("grad_input", pass.input.chosen()),
            ]
        });
        forward.chain(backward).collect()
    }

    fn active(&self) -> impl Iterator<Item = &Holder> {
        self.holders.iter().filter(|holder| holder.lifecycle.is_active())
    }

    /// Keeps the flags of the adaptive mode, which the forward pass over the elements changes.
    pub(crate) fn keep_flags(
        &mut self,
        state: &LayerState,
        mode: NumericalMode,
    ) -> Result<(), Error> {
        match mode {
            NumericalMode::Adaptive { .. } if !self.holders.is_empty() => {
                self.flags.copy_from_buffer(&state.unstable)
            }
            _ => Ok(()),
        }
    }

    /// Writes the active seeds' columns of `output`, after the pass over the elements.
    pub(crate) fn forward(
        &mut self,
        device: &Device,
        state: &LayerState,
        store: &DenseStore<T>,
        mode: NumericalMode,
        input: &Buffer<T>,
        output: &mut Buffer<T>,
    ) -> Result<(), Error> {
        if let Some(cpu) = &self.cpu {
            return cpu.forward(state, store, &self.holders, (mode, &self.flags), input, output);
        }
        let (Some(kernels), Some(pass)) = (KernelDevice::of(device), &mut self.forward) else {
            return Ok(());
        };
        let operands =
            Operands { bias: Some(&state.weights), ..Operands::new(input, &store.weights) };
        pass.products.run(&operands, &mut self.z, None)?;
        launcher::launch(
            kernels,
            Arguments {
                list: &pass.list,
                state,
                unstable: &self.flags,
                numerical: mode.parameters(OP)?,
                gradient: false,
                input,
                z: &self.z,
                output,
            },
        )
    }

    /// Writes the active seeds' columns of `grad_input`, the gradients of the LINEAR blueprints, and α's gradients and the
    /// figures of the seeds that train them, after the pass over the elements.
    #[expect(clippy::too_many_arguments, reason = "the operands of a pass and what it is of")]
    pub(crate) fn backward(
        &mut self,
        device: &Device,
        state: &LayerState,
        store: &mut DenseStore<T>,
        mode: NumericalMode,
        (input, grad_output): (&Buffer<T>, &Buffer<T>),
        grad_input: &mut Buffer<T>,
        gradients: &mut GradientBuffers,
    ) -> Result<(), Error> {
        if let Some(cpu) = &self.cpu {
            let operands = (input, grad_output);
            return cpu.backward(
                state,
                store,
                &self.holders,
                mode,
                operands,
                grad_input,
                gradients,
            );
        }
        let (Some(kernels), Some(pass)) = (KernelDevice::of(device), &mut self.backward) else {
            return Ok(());
        };
        let numerical: Numerical = mode.parameters(OP)?;
        let GradientBuffers {
            grad_weights,
            grad_scales,
            grad_alpha,
            gradient_norm,
            gradient_variance,
            gradient_max,
            ..
        } = gradients;
        let grad_store = store.gradients.as_mut().expect("the layer has prepared for training");
        let weights = &store.weights;
        if pass.list.len() > 0 {
            let operands = Operands { bias: Some(&state.weights), ..Operands::new(input, weights) };
            pass.products.run(&operands, &mut self.z, None)?;
            let launched = launcher::launch_backward(
                kernels,
                BackwardArguments {
                    list: &pass.list,
                    state,
                    input,
                    grad_output,
                    z: &self.z,
                    grad_z: &mut pass.grad_z,
                    kept_input: &mut pass.kept_input,
                    sums: &mut pass.sums,
                    figures: [grad_alpha, gradient_norm, gradient_variance, gradient_max],
                },
            );
            if launched.is_err() {
                pass.sums.recover(device)?;
            }
            launched?;
        }
        pass.weights.run(&Operands::new(&pass.grad_z, &pass.kept_input), grad_store, None)?;
        let (list, users, sums) = (&pass.list, &pass.users, &pass.sums);
        launcher::launch_merge(kernels, list, users, sums, grad_weights, grad_scales)?;
        let Some(forward) = &self.forward else { return Ok(()) };
        pass.input.run(&Operands::new(&pass.grad_z, weights), &mut self.z, None)?;
        launcher::launch(
            kernels,
            Arguments {
                list: &forward.list,
                state,
                // As the pass over the elements, which reads them and changes none.
                unstable: &state.unstable,
                numerical,
                gradient: true,
                input: grad_output,
                z: &self.z,
                output: grad_input,
            },
        )
    }
}

/// Rows, seeds and columns of a seed.
#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    seeds: usize,
    chunk: usize,
}

impl Shape {
    fn of(batch: usize, state: &LayerState) -> Self {
        Self { batch, seeds: state.num_seeds(), chunk: state.chunk_size() }
    }

    /// A listed seed's rows in an array `[listed, batch, C]`.
    fn place(&self, listed: usize) -> usize {
        listed * self.batch * self.chunk
    }
}

/// The seeds that hold a LINEAR blueprint and are active or train it.
fn holders<T: LayerElement>(
    state: &LayerState,
    store: &DenseStore<T>,
) -> Result<Vec<Holder>, Error> {
    let (lifecycle, ids) = (state.lifecycle.to_vec()?, state.blueprint_id.to_vec()?);
    let offsets = state.blueprint_offset.to_vec()?;
    let mut holders: Vec<_> = (0..state.num_seeds())
        .filter_map(|seed| {
            let (blueprint, lifecycle) = (ids[seed], SeedLifecycle::from_u8(lifecycle[seed])?);
            let place = store.place(blueprint)?;
            let offset = offsets[usize::from(blueprint)] as usize;
            let computes = lifecycle.is_active() || lifecycle.trains();
            computes.then_some(Holder { seed, blueprint, lifecycle, place, offset })
        })
        .collect();
    holders.sort_by_key(|holder| (holder.blueprint, !holder.lifecycle.trains(), holder.seed));
    Ok(holders)
}

fn list(device: &Device, shape: Shape, holders: &[Holder]) -> Result<DenseList, Error> {
    let entries = holders.iter().map(|holder| DenseSeed {
        seed: holder.seed as u32,
        activation: holder.place.activation as u32,
        _padding: [0; 2],
    });
    let entries: Vec<_> = entries.collect();
    DenseList::new(device, [shape.batch, shape.seeds, shape.chunk], &entries)
}

/// Every loaded LINEAR blueprint, with the seeds that train it.
fn users<T: LayerElement>(
    state: &LayerState,
    store: &DenseStore<T>,
    holders: &[Holder],
) -> Result<Vec<DenseUsers>, Error> {
    let offsets = state.blueprint_offset.to_vec()?;
    let of = |(id, _): (u16, DensePlace)| {
        let trains = |holder: &Holder| holder.blueprint == id && holder.lifecycle.trains();
        let seeds = holders.iter().filter(|holder| trains(holder)).count();
        let first = holders.iter().position(trains).unwrap_or(0);
        DenseUsers {
            blueprint: id.into(),
            offset: offsets[usize::from(id)],
            first: first as u32,
            seeds: seeds as u32,
        }
    };
    Ok(store.loaded().map(of).collect())
}

/// z = x_chunk·Wᵀ + b of each.
fn before_activation<T: LayerElement>(
    device: &Device,
    shape: Shape,
    options: LinearOptions,
    holders: &[Holder],
) -> Result<GroupedPlan<T, f32>, Error> {
    let Shape { batch, seeds, chunk } = shape;
    let layout = Layout::NT;
    let problems = holders.iter().enumerate().map(|(listed, holder)| GroupedProblem {
        a: holder.seed * chunk,
        lda: seeds * chunk,
        b: holder.place.slot * chunk * chunk,
        bias: holder.offset,
        d: shape.place(listed),
        ..GroupedProblem::new(layout, batch, chunk, chunk)
    });
    let fusion = GroupFusion { bias: true, ..GroupFusion::default() };
    plan(device, layout, options, fusion, problems)
}

/// ∂W = Σ ∂zᵀ·x, over the batch of all seeds that train the blueprint; 0 where none does.
fn weight_gradients<T: LayerElement>(
    device: &Device,
    shape: Shape,
    options: LinearOptions,
    store: &DenseStore<T>,
    users: &[DenseUsers],
) -> Result<GroupedPlan<T, f32>, Error> {
    let Shape { batch, chunk, .. } = shape;
    let layout = Layout::TN;
    let problems = store.loaded().zip(users).map(|((_, place), users)| {
        let begin = if users.seeds == 0 { 0 } else { shape.place(users.first as usize) };
        GroupedProblem {
            a: begin,
            b: begin,
            d: place.slot * chunk * chunk,
            ..GroupedProblem::new(layout, chunk, chunk, users.seeds as usize * batch)
        }
    });
    plan(device, layout, options, GroupFusion::default(), problems)
}

/// ∂z·W of the active ones, one after the other.
fn through_weights<T: LayerElement>(
    device: &Device,
    shape: Shape,
    options: LinearOptions,
    holders: &[Holder],
) -> Result<GroupedPlan<T, f32>, Error> {
    let Shape { batch, chunk, .. } = shape;
    let layout = Layout::NN;
    let active = holders.iter().enumerate().filter(|(_, holder)| holder.lifecycle.is_active());
    let problems = active.enumerate().map(|(number, (listed, holder))| GroupedProblem {
        a: shape.place(listed),
        b: holder.place.slot * chunk * chunk,
        d: shape.place(number),
        ..GroupedProblem::new(layout, batch, chunk, chunk)
    });
    plan(device, layout, options, GroupFusion::default(), problems)
}

fn plan<T: LayerElement>(
    device: &Device,
    layout: Layout,
    options: LinearOptions,
    fusion: GroupFusion,
    problems: impl Iterator<Item = GroupedProblem>,
) -> Result<GroupedPlan<T, f32>, Error> {
    let problems: Vec<_> = problems.collect();
    GroupedPlan::new(device, layout, options, fusion, &problems)
}
