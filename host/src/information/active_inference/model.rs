//! A linear Gaussian model with one observation, and beliefs about its states.

use kasmina_reference::information::active_inference as reference;
pub use kasmina_reference::information::active_inference::{
    Belief, ExpectedFreeEnergy, FreeEnergy, Posterior, Preferences,
};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, CowArray, Ix1, Ix2};

use super::error::InferenceError;

/// Steps of the power iteration at most.
pub(super) const CURVATURE_STEPS: u32 = 300;
/// The relative change of λ at which it ends.
pub(super) const CURVATURE_TOLERANCE: f64 = 1e-5;

/// x ~ N(m0, diag v0), o = J·x + b + e with e ~ N(0, diag 1/π).
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianModel {
    jacobian: Array2<f64>,
    offset: Array1<f64>,
    obs_precision: Array1<f64>,
    observation: Array1<f64>,
    prior_mean: Array1<f64>,
    prior_var: Array1<f64>,
}

/// Collects the arrays of a [`GaussianModel`].
#[derive(Debug, Clone)]
pub struct GaussianModelBuilder {
    jacobian: Array2<f64>,
    offset: Option<Array1<f64>>,
    obs_precision: Option<Array1<f64>>,
    observation: Option<Array1<f64>>,
    prior_mean: Option<Array1<f64>>,
    prior_var: Option<Array1<f64>>,
}

impl GaussianModelBuilder {
    /// b, `[observations]`; 0 where it is not given.
    pub fn offset<'a>(mut self, offset: impl Into<CowArray<'a, f64, Ix1>>) -> Self {
        self.offset = Some(offset.into().into_owned());
        self
    }

    /// π, the inverse variances of the observations, `[observations]`; 1 where it is not given.
    pub fn obs_precision<'a>(mut self, precision: impl Into<CowArray<'a, f64, Ix1>>) -> Self {
        self.obs_precision = Some(precision.into().into_owned());
        self
    }

    /// o, `[observations]`.
    pub fn observation<'a>(mut self, observation: impl Into<CowArray<'a, f64, Ix1>>) -> Self {
        self.observation = Some(observation.into().into_owned());
        self
    }

    /// m0, `[states]`; 0 where it is not given.
    pub fn prior_mean<'a>(mut self, mean: impl Into<CowArray<'a, f64, Ix1>>) -> Self {
        self.prior_mean = Some(mean.into().into_owned());
        self
    }

    /// v0, `[states]`; 1 where it is not given.
    pub fn prior_var<'a>(mut self, variance: impl Into<CowArray<'a, f64, Ix1>>) -> Self {
        self.prior_var = Some(variance.into().into_owned());
        self
    }

    /// The model.
    ///
    /// # Errors
    /// [`InferenceError::NoObservation`], or [`InferenceError::Model`]: no states or observations, arrays that do not
    /// fit J, numbers that are not finite, precisions and variances that are not above 0.
    pub fn build(self) -> Result<GaussianModel, InferenceError> {
        let (rows, columns) = self.jacobian.dim();
        let model = GaussianModel {
            offset: self.offset.unwrap_or_else(|| Array1::zeros(rows)),
            obs_precision: self.obs_precision.unwrap_or_else(|| Array1::ones(rows)),
            observation: self.observation.ok_or(InferenceError::NoObservation)?,
            prior_mean: self.prior_mean.unwrap_or_else(|| Array1::zeros(columns)),
            prior_var: self.prior_var.unwrap_or_else(|| Array1::ones(columns)),
            jacobian: self.jacobian,
        };
        model.reference().check()?;
        Ok(model)
    }
}

impl GaussianModel {
    /// A model of J, `[observations, states]`: an array or a view of any layout.
    pub fn builder<'a>(jacobian: impl Into<CowArray<'a, f64, Ix2>>) -> GaussianModelBuilder {
        let jacobian = jacobian.into();
        GaussianModelBuilder {
            // Row-major, whatever it was.
            jacobian: Array2::from_shape_fn(jacobian.dim(), |at| jacobian[at]),
            offset: None,
            obs_precision: None,
            observation: None,
            prior_mean: None,
            prior_var: None,
        }
    }

    /// Observations.
    pub fn observations(&self) -> usize {
        self.jacobian.nrows()
    }

    /// States.
    pub fn states(&self) -> usize {
        self.jacobian.ncols()
    }

    /// J.
    pub fn jacobian(&self) -> ArrayView2<'_, f64> {
        self.jacobian.view()
    }

    /// o.
    pub fn observation(&self) -> ArrayView1<'_, f64> {
        self.observation.view()
    }

    /// b.
    pub fn offset(&self) -> ArrayView1<'_, f64> {
        self.offset.view()
    }

    /// π.
    pub fn obs_precision(&self) -> ArrayView1<'_, f64> {
        self.obs_precision.view()
    }

    /// m0.
    pub fn prior_mean(&self) -> ArrayView1<'_, f64> {
        self.prior_mean.view()
    }

    /// v0.
    pub fn prior_var(&self) -> ArrayView1<'_, f64> {
        self.prior_var.view()
    }

    /// The belief that is the prior.
    pub fn prior(&self) -> Belief {
        Belief { mean: self.prior_mean.to_vec(), variance: self.prior_var.to_vec() }
    }

    /// The exact posterior, on the host.
    ///
    /// # Errors
    /// A precision matrix that is not positive definite in f64.
    pub fn posterior(&self) -> Result<Posterior, InferenceError> {
        Ok(reference::posterior(&self.reference())?)
    }

    /// The diagonal variances of least free energy: 1/(1/v0 + Σ_i π_i J_ij²). On the host.
    pub fn optimum_variance(&self) -> Vec<f64> {
        reference::optimum_variance(&self.reference())
    }

    /// The free energy of a belief, on the host.
    ///
    /// # Errors
    /// A belief that does not fit.
    pub fn free_energy(&self, belief: &Belief) -> Result<FreeEnergy, InferenceError> {
        let model = self.reference();
        model.check_belief(&belief.mean, &belief.variance)?;
        Ok(reference::free_energy(&model, belief))
    }

    /// The expected free energy of a belief where some observations are preferred to others, on the host. The
    /// observation of the model does not count.
    ///
    /// # Errors
    /// A belief or preferences that do not fit.
    pub fn expected_free_energy(
        &self,
        belief: &Belief,
        preferences: &Preferences,
    ) -> Result<ExpectedFreeEnergy, InferenceError> {
        Ok(reference::expected_free_energy(&self.reference(), belief, preferences)?)
    }

    /// λmax of JᵀΠJ + V0⁻¹ by power iteration on the host, from below: as a rule within 1e-3 of itself, some parts in a
    /// hundred where many eigenvalues lie close below it.
    pub fn largest_curvature(&self) -> f64 {
        let steps = CURVATURE_STEPS as usize;
        reference::largest_curvature(&self.reference(), CURVATURE_TOLERANCE, steps)
    }

    /// As the reference takes it.
    pub(crate) fn reference(&self) -> reference::GaussianModel<'_> {
        fn slice(array: &Array1<f64>) -> &[f64] {
            array.as_slice().expect("owned arrays of one dimension are contiguous")
        }
        reference::GaussianModel {
            jacobian: self.jacobian.view(),
            offset: slice(&self.offset),
            obs_precision: slice(&self.obs_precision),
            observation: slice(&self.observation),
            prior_mean: slice(&self.prior_mean),
            prior_var: slice(&self.prior_var),
        }
    }

    /// The model with J rounded to f32; else the place and value of the first element that f32 does not hold.
    pub(super) fn rounded(&self) -> Result<Self, ((usize, usize), f64)> {
        let jacobian = self.jacobian.mapv(|j| f64::from(j as f32));
        match jacobian.indexed_iter().find(|(_, j)| !j.is_finite()) {
            Some((at, _)) => Err((at, self.jacobian[at])),
            None => Ok(Self { jacobian, ..self.clone() }),
        }
    }
}
