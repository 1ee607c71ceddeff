//! Models and beliefs in a device's memory.

use kasmina_types::DType;
use kasmina_types::active_inference::STATE_ALIGN;
use ndarray::ArrayView2;

use super::error::InferenceError;
use super::model::{Belief, GaussianModel};
use super::options::InferenceOptions;
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::active_inference::{Models, OP, check_counts};
use crate::error::Error;

/// Checks models of one shape and puts them on a device, with their priors as beliefs. Returns them as the device has
/// them, too. κ is left to the caller.
pub(super) fn place(
    device: &Device,
    models: &[GaussianModel],
    options: &InferenceOptions,
) -> Result<(Vec<GaussianModel>, Models), Error> {
    let first = models.first().ok_or(InferenceError::NoModels)?;
    let expected = (first.observations(), first.states());
    for (model, other) in models.iter().enumerate() {
        let got = (other.observations(), other.states());
        if got != expected {
            return Err(InferenceError::Shapes { model, expected, got }.into());
        }
    }
    check_counts(models.len(), expected.0, expected.1)?;
    device.refuse_capture(OP)?;
    let stored = options.stored(models)?;
    let memory = upload(device, &stored, options.jacobian)?;
    Ok((stored, memory))
}

/// Replaces the beliefs.
pub(super) fn set_beliefs(
    memory: &mut Models,
    models: &[GaussianModel],
    beliefs: &[Belief],
) -> Result<(), Error> {
    let (expected, got) = (models.len(), beliefs.len());
    if expected != got {
        return Err(InferenceError::Beliefs { expected, got }.into());
    }
    for (number, (model, belief)) in models.iter().zip(beliefs).enumerate() {
        let checked = model.reference().check_belief(&belief.mean, &belief.variance);
        checked.map_err(|source| InferenceError::InBatch { model: number, source })?;
    }
    let stride = memory.stride();
    let means = padded(beliefs.iter().map(|belief| belief.mean.as_slice()), stride, 0.0);
    let variances = padded(beliefs.iter().map(|belief| belief.variance.as_slice()), stride, 1.0);
    memory.mean.copy_from_slice(&means)?;
    memory.variance.copy_from_slice(&variances)
}

/// The beliefs, once everything queued before is done.
pub(super) fn beliefs(memory: &Models) -> Result<Vec<Belief>, Error> {
    let (means, variances) = (memory.mean.to_vec()?, memory.variance.to_vec()?);
    let (stride, states) = (memory.stride(), memory.states);
    let own = |values: &[f64]| values[..states].to_vec();
    let rows = means.chunks(stride).zip(variances.chunks(stride));
    Ok(rows.map(|(mean, variance)| Belief { mean: own(mean), variance: own(variance) }).collect())
}

/// The rows of two arrays, `[models, states]`, as beliefs.
pub(super) fn beliefs_of_rows(
    means: ArrayView2<'_, f64>,
    variances: ArrayView2<'_, f64>,
) -> Result<Vec<Belief>, Error> {
    let (expected, got) = (means.nrows(), variances.nrows());
    if expected != got {
        return Err(InferenceError::Beliefs { expected, got }.into());
    }
    let rows = means.outer_iter().zip(variances.outer_iter());
    Ok(rows.map(|(m, v)| Belief { mean: m.to_vec(), variance: v.to_vec() }).collect())
}

/// Rows one after the other, each filled up to `stride`.
pub(super) fn padded<'a>(
    rows: impl Iterator<Item = &'a [f64]>,
    stride: usize,
    fill: f64,
) -> Vec<f64> {
    let mut all = Vec::new();
    for row in rows {
        all.extend_from_slice(row);
        all.extend(std::iter::repeat_n(fill, stride - row.len()));
    }
    all
}

/// The models in a device's memory, with their priors as beliefs; κ and figures are zeros.
fn upload(device: &Device, models: &[GaussianModel], dtype: DType) -> Result<Models, Error> {
    let (observations, states) = (models[0].observations(), models[0].states());
    let stride = states.next_multiple_of(STATE_ALIGN);
    let references: Vec<_> = models.iter().map(GaussianModel::reference).collect();
    let rows = || references.iter().flat_map(|model| model.jacobian.into_outer_iter());
    let jacobian = match dtype {
        DType::F32 => {
            let mut values = Vec::with_capacity(models.len() * observations * stride);
            for row in rows() {
                values.extend(row.iter().map(|&j| j as f32));
                values.resize(values.len() + stride - states, 0.0);
            }
            Buffer::from_slice(device, bytemuck::cast_slice::<f32, u8>(&values))?
        }
        _ => {
            let mut values = Vec::with_capacity(models.len() * observations * stride);
            for row in rows() {
                values.extend(row.iter());
                values.resize(values.len() + stride - states, 0.0);
            }
            Buffer::from_slice(device, bytemuck::cast_slice::<f64, u8>(&values))?
        }
    };
    let target: Vec<f64> = references
        .iter()
        .flat_map(|model| model.observation.iter().zip(model.offset).map(|(o, b)| o - b))
        .collect();
    let precision: Vec<f64> =
        references.iter().flat_map(|model| model.obs_precision).copied().collect();
    let means = padded(references.iter().map(|model| model.prior_mean), stride, 0.0);
    let variances = padded(references.iter().map(|model| model.prior_var), stride, 1.0);
    Ok(Models {
        dtype,
        models: models.len(),
        observations,
        states,
        jacobian,
        target: Buffer::from_slice(device, &target)?,
        obs_precision: Buffer::from_slice(device, &precision)?,
        prior_mean: Buffer::from_slice(device, &means)?,
        prior_var: Buffer::from_slice(device, &variances)?,
        variance: Buffer::from_slice(device, &variances)?,
        kappa: Buffer::zeroed(device, models.len())?,
        mean: Buffer::from_slice(device, &means)?,
        figures: Buffer::zeroed(device, models.len())?,
    })
}
