//! What a layer answers instead of doing what it was told.

use kasmina_types::{BlueprintKind, SeedLifecycle, UpdateStatus};

/// A command or an input that a layer refuses. The layer is as it was.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// No such seed.
    #[error("layer `{layer}` has no seed {seed}; its {num_seeds} seeds are numbered from 0")]
    NoSuchSeed {
        /// The layer.
        layer: String,
        /// The seed asked for.
        seed: usize,
        /// Seeds that there are.
        num_seeds: usize,
    },
    /// A transition that the table does not have.
    #[error("seed {seed} is {from}, from which {to} is no legal transition; legal: {legal}")]
    IllegalTransition {
        /// The seed.
        seed: usize,
        /// Where it is.
        from: SeedLifecycle,
        /// Where it was to go.
        to: SeedLifecycle,
        /// Where it may go.
        legal: String,
    },
    /// A state from which `advance` has nowhere to go.
    #[error(
        "seed {seed} is {from}, which is terminal: it advances to no state, not even to DORMANT"
    )]
    Terminal {
        /// The seed.
        seed: usize,
        /// Where it is.
        from: SeedLifecycle,
    },
    /// A DORMANT seed that was told to advance.
    #[error(
        "seed {seed} is DORMANT and becomes GERMINATED with a blueprint: `germinate` it, instead of `advance`"
    )]
    NeedsBlueprint {
        /// The seed.
        seed: usize,
    },
    /// Gradients that are not there.
    #[error("there are no gradients yet: run a backward pass first")]
    NoGradients,
    /// A culled seed whose embargo has not ended.
    #[error("seed {seed} is CULLED and under an embargo for {epochs} more epochs")]
    Embargoed {
        /// The seed.
        seed: usize,
        /// Epochs to wait.
        epochs: u32,
    },
    /// A number outside its range.
    #[error("{what} is {got}, expected {expected}")]
    OutOfRange {
        /// What the number is.
        what: String,
        /// The number.
        got: f64,
        /// Its range.
        expected: &'static str,
    },
    /// An update that the device refused although the host saw nothing wrong.
    #[error("the device refused the update of seed {seed}: {status:?}")]
    Refused {
        /// The seed.
        seed: u32,
        /// Why.
        status: UpdateStatus,
    },
    /// A blueprint that is not there.
    #[error("blueprint {id} is not loaded{}", if *.evicted { "; it was evicted, load it again" } else { "" })]
    NotLoaded {
        /// The id.
        id: u16,
        /// Whether it once was.
        evicted: bool,
    },
    /// A blueprint that does not fit the layer.
    #[error("blueprint: {why}")]
    Blueprint {
        /// What is wrong, and what would be right.
        why: String,
    },
    /// No room for a blueprint, and nothing that may go.
    #[error(
        "no room for another blueprint: {slots} fit the budget of {budget_bytes} bytes, and a seed \
         that is not DORMANT uses each; `advance` a CULLED, CANCELLED or ROLLED_BACK seed to DORMANT, which \
         `rules.automatic_reset` does at an epoch's end, or raise `blueprint_budget_bytes`"
    )]
    BudgetExhausted {
        /// Blueprints that fit.
        slots: usize,
        /// The budget.
        budget_bytes: usize,
    },
    /// No room for a LINEAR blueprint's matrix, and nothing that may go.
    #[error(
        "no room for another LINEAR blueprint: {slots} fit `linear_budget_bytes`, {budget_bytes}, and a seed that is not \
         DORMANT uses each; `advance` a CULLED, CANCELLED or ROLLED_BACK seed to DORMANT, or raise the budget"
    )]
    LinearBudgetExhausted {
        /// Matrices that fit.
        slots: usize,
        /// The budget.
        budget_bytes: usize,
    },
    /// A blueprint of another kind than what it was asked for as.
    #[error("blueprint {id} is {kind}; {advice}")]
    OtherKind {
        /// The blueprint.
        id: u16,
        /// What it is.
        kind: BlueprintKind,
        /// What to ask instead.
        advice: &'static str,
    },
    /// A blueprint that a seed uses and that was to go.
    #[error("blueprint {id} is in use by seed {seed}, which is {lifecycle}")]
    InUse {
        /// The blueprint.
        id: u16,
        /// A seed that uses it.
        seed: usize,
        /// The seed's state.
        lifecycle: SeedLifecycle,
    },
    /// A state that is not what it was.
    #[error(
        "the state of layer `{layer}` has CRC-32 {got:08x}, expected {expected:08x}: it was changed \
         by something else than the layer; load a checkpoint"
    )]
    Integrity {
        /// The layer.
        layer: String,
        /// The CRC of the last legitimate change, or the one given with the state.
        expected: u32,
        /// The CRC of what is there.
        got: u32,
    },
    /// A code on the device that means nothing.
    #[error(
        "`{array}[{index}]` is {got} on the device, which is none of its codes: something else than the layer changed \
         it; load a checkpoint"
    )]
    Code {
        /// The array.
        array: &'static str,
        /// Where in it.
        index: usize,
        /// What is there.
        got: u16,
    },
    /// A state that does not fit the layer.
    #[error("the state does not fit the layer: {why}")]
    OtherShape {
        /// What does not fit.
        why: String,
    },
    /// Something that the configuration turned off.
    #[error("{what} is not available: `{option}` is off in the layer's configuration")]
    TurnedOff {
        /// What was asked for.
        what: &'static str,
        /// The option.
        option: &'static str,
    },
    /// A profiler whose times are not of this layer's work.
    #[error(
        "the profiler is not of {device}, where layer `{layer}` lives; make it with `layer.device()`"
    )]
    OtherProfiler {
        /// The layer.
        layer: String,
        /// Where it lives.
        device: String,
    },
    /// Replays of passes that no graph holds.
    #[error(
        "layer `{layer}` has no forward pass in a graph; capture one before you count its replays"
    )]
    NothingCaptured {
        /// The layer.
        layer: String,
    },
    /// An epoch's report that does not fit the layer.
    #[error("epoch report: {why}")]
    EpochReport {
        /// What is wrong.
        why: String,
    },
    /// A backward pass of a stack without a forward pass of the same batch before it.
    #[error("layer stack: no forward pass of {batch} rows came before this backward pass")]
    NoForward {
        /// Rows of the gradient.
        batch: usize,
    },
    /// Layers that do not fit each other.
    #[error("layer stack: {why}")]
    Stack {
        /// What does not fit.
        why: String,
    },
}

impl LayerError {
    pub(crate) fn illegal(seed: usize, from: SeedLifecycle, to: SeedLifecycle) -> Self {
        let legal: Vec<&str> = SeedLifecycle::ALL
            .into_iter()
            .filter(|&next| from.may_become(next))
            .map(SeedLifecycle::name)
            .collect();
        let legal = if legal.is_empty() { "none".into() } else { legal.join(", ") };
        Self::IllegalTransition { seed, from, to, legal }
    }
}

/// A configuration that cannot be honoured: which option, what it says, and why not.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value that an option cannot have.
    #[error("layer configuration: `{option}` is {got}; {expected}")]
    Value {
        /// The option.
        option: &'static str,
        /// What it says.
        got: String,
        /// What it may say, and why.
        expected: String,
    },
    /// Options that exclude each other, or an option that this device cannot honour.
    #[error("layer configuration: `{option}` is refused: {why}")]
    Refused {
        /// The option.
        option: &'static str,
        /// Why.
        why: String,
    },
    /// Text that is no configuration.
    #[error("layer configuration: not {format}: {why}")]
    Parse {
        /// JSON or TOML.
        format: &'static str,
        /// The parser's words.
        why: String,
    },
}
