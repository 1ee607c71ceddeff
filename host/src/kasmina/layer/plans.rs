//! The passes' plans, one for each batch size that was seen lately.

use kasmina_types::ReductionStrategy;

use super::config::TelemetryReduction;
use super::report::LinearProduct;
use super::{KasminaLayer, LayerElement, selection};
use crate::buffer::Buffer;
use crate::error::Error;
use crate::kasmina::dense::DensePass;
use crate::kasmina::{BlendBackward, BlendForward, KernelInfo, TelemetryReduce, Tuning};
use crate::linear::Chosen;

/// Plans of up to a bounded number of batch sizes; the one used least recently goes.
pub(crate) struct Plans<T: LayerElement> {
    /// The one used last comes last.
    plans: Vec<Plan<T>>,
    most: usize,
}

/// What a layer needs for one batch size.
pub(crate) struct Plan<T: LayerElement> {
    pub(crate) batch: usize,
    pub(crate) forward: BlendForward<T>,
    /// For a strategy that is not the forward pass's own.
    pub(crate) reduce: Option<TelemetryReduce<T>>,
    pub(crate) backward: Option<BlendBackward<T>>,
    /// For the seeds that hold a LINEAR blueprint, where there is one.
    pub(crate) dense: Option<DensePass<T>>,
    /// For results whose place the layer is asked to have.
    pub(crate) output: Option<Buffer<T>>,
    pub(crate) grad_input: Option<Buffer<T>>,
}

impl<T: LayerElement> Plans<T> {
    pub(crate) fn new(most: usize) -> Self {
        Self { plans: Vec::with_capacity(most), most }
    }

    /// The plan used last.
    pub(crate) fn last(&mut self) -> Option<&mut Plan<T>> {
        self.plans.last_mut()
    }

    pub(crate) fn kernels(&self) -> Option<(Option<KernelInfo>, Option<KernelInfo>)> {
        let plan = self.plans.last()?;
        Some((plan.forward.kernel(), plan.backward.as_ref().and_then(BlendBackward::kernel)))
    }

    /// How the forward pass' variant was tuned.
    pub(crate) fn tuning(&self) -> Option<&Tuning> {
        self.plans.last()?.forward.tuning()
    }

    /// How the backward pass' variant was tuned.
    pub(crate) fn backward_tuning(&self) -> Option<&Tuning> {
        self.plans.last()?.backward.as_ref()?.tuning()
    }

    /// How the last plan multiplies for the seeds that hold a LINEAR blueprint.
    pub(crate) fn linear_products(&self) -> Vec<LinearProduct> {
        let dense = self.plans.last().and_then(|plan| plan.dense.as_ref());
        let products = dense.into_iter().flat_map(DensePass::chosen);
        let product = |(product, Chosen { precision, kernel, parts, .. })| LinearProduct {
            product,
            precision,
            kernel,
            parts,
        };
        products.map(product).collect()
    }

    /// Batch sizes that have a plan, the one used last at the end.
    pub(crate) fn batches(&self) -> Vec<usize> {
        self.plans.iter().map(|plan| plan.batch).collect()
    }

    /// Moves the plan of a batch size to the end; whether there is one.
    fn bring(&mut self, batch: usize) -> bool {
        let Some(at) = self.plans.iter().position(|plan| plan.batch == batch) else { return false };
        self.plans[at..].rotate_left(1);
        true
    }
}

impl<T: LayerElement> KasminaLayer<T> {
    /// Makes the plan for `batch` rows the last one.
    pub(crate) fn plan(&mut self, batch: usize) -> Result<(), Error> {
        if self.plans.bring(batch) {
            return Ok(());
        }
        let (forward, reduce) = self.plan_forward(batch)?;
        if self.plans.plans.len() == self.plans.most {
            self.plans.plans.remove(0);
        }
        let (backward, output, grad_input, dense) = (None, None, None, None);
        self.plans.plans.push(Plan { batch, forward, reduce, backward, dense, output, grad_input });
        Ok(())
    }

    /// Makes the last plan's lists of the seeds that hold a LINEAR blueprint right, for the passes of `batch` rows.
    pub(crate) fn plan_dense(&mut self, batch: usize, trains: bool) -> Result<(), Error> {
        let plan = self.plans.last().expect("just planned");
        if self.dense.is_empty() {
            plan.dense = None;
            return Ok(());
        }
        let (device, state, store) = (&self.device, &self.state, &mut self.dense);
        let tolerance = self.config.linear_tolerance;
        if plan.dense.as_ref().is_none_or(|pass| !pass.is_current(store)) {
            // The old lists go first, so that the new ones can take their memory.
            plan.dense = None;
            plan.dense = Some(DensePass::new(device, batch, state, store, tolerance)?);
        }
        if let (true, Some(pass)) = (trains, &mut plan.dense) {
            store.prepare_training(device)?;
            pass.prepare_backward(device, state, store)?;
        }
        Ok(())
    }

    /// The forward pass as it is configured, with the launch that reduces its telemetry if it has one.
    pub(crate) fn plan_forward(
        &self,
        batch: usize,
    ) -> Result<(BlendForward<T>, Option<TelemetryReduce<T>>), Error> {
        let (seeds, chunk) = (self.config.num_seeds, self.state.chunk_size());
        let forward = BlendForward::with_options(&self.device, batch, seeds, chunk, self.options)?;
        let strategy = match self.config.telemetry_reduction_strategy {
            TelemetryReduction::Mean => Some(ReductionStrategy::Mean),
            TelemetryReduction::Max => Some(ReductionStrategy::Max),
            _ => None,
        };
        let reduce = strategy
            .map(|strategy| TelemetryReduce::new(&self.device, batch, seeds, chunk, strategy))
            .transpose()?;
        Ok((forward, reduce))
    }

    /// As [`Self::plan`], with what a backward pass needs.
    pub(crate) fn plan_backward(&mut self, batch: usize) -> Result<(), Error> {
        self.plan(batch)?;
        let (seeds, chunk) = (self.config.num_seeds, self.state.chunk_size());
        let plan = self.plans.last().expect("just planned");
        if plan.backward.is_none() {
            let options = selection::of_backward(self.options);
            let backward = BlendBackward::with_options(&self.device, batch, seeds, chunk, options)?;
            plan.backward = Some(backward);
        }
        self.prepare_training()
    }
}
