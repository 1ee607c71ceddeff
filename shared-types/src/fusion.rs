//! Chains of stages that one kernel computes: what a declaration says, and the parameters of the kernels that are generated
//! from it.
//!
//! A chain is a struct with a field for each stage and `#[derive(FusionBuilder)]`; [`chains`] has those of this library. Its
//! values come in segments (or products, where a matrix is in it): `batch` of them, `inner` values each before the stage
//! that contracts them and `outer` after it.

use crate::activation::Activation;
use crate::dtype::{DType, Element};
use crate::gemv::GemvCut;
use crate::view::{In, Out};

pub mod chains;

pub use chains::FUSIONS;
pub use kasmina_macros::{FusionBuilder, fusion_composition, fusion_kernels};

/// What the fields of a declaration are: the kinds of stages.
pub mod kind {
    /// Each value from the one before it and the operands at its place.
    #[derive(Clone, Copy, Debug)]
    pub struct Map;
    /// Σ of each segment.
    #[derive(Clone, Copy, Debug)]
    pub struct Sum;
    /// Σ of each segment over the number of its values.
    #[derive(Clone, Copy, Debug)]
    pub struct Mean;
    /// The largest of each segment; NaN where one is.
    #[derive(Clone, Copy, Debug)]
    pub struct Max;
    /// The smallest of each segment; NaN where one is.
    #[derive(Clone, Copy, Debug)]
    pub struct Min;
    /// A·x, A `[outer, inner]`.
    #[derive(Clone, Copy, Debug)]
    pub struct Gemv;
    /// Aᵀ·x, A `[inner, outer]`.
    #[derive(Clone, Copy, Debug)]
    pub struct GemvTransposed;
    /// A·Bᵀ of the segments as rows of A and weights B, `[outer, inner]`. The stages after it are its epilogue: the kernel is
    /// that of the product, which has them by itself.
    #[derive(Clone, Copy, Debug)]
    pub struct Matmul;
}

/// What a stage does; [`kind`] says of each what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageKind {
    /// [`kind::Map`].
    Map,
    /// [`kind::Sum`].
    Sum,
    /// [`kind::Mean`].
    Mean,
    /// [`kind::Max`].
    Max,
    /// [`kind::Min`].
    Min,
    /// [`kind::Gemv`].
    Gemv,
    /// [`kind::GemvTransposed`].
    GemvTransposed,
    /// [`kind::Matmul`].
    Matmul,
}

impl StageKind {
    /// Whether a value that comes out depends on many that go in.
    pub const fn contracts(self) -> bool {
        !matches!(self, Self::Map)
    }

    /// Whether a segment comes to one value.
    pub const fn reduces(self) -> bool {
        matches!(self, Self::Sum | Self::Mean | Self::Max | Self::Min)
    }
}

/// Which elements an operand has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// `[batch, inner]`.
    Inner,
    /// `[batch, outer]`.
    Outer,
    /// `[batch]`.
    Each,
    /// `[inner]`: the same for all segments.
    InnerColumn,
    /// `[outer]`: the same for all segments.
    OuterColumn,
    /// `[batch, outer, inner]`, or transposed.
    Matrix,
    /// `[outer, inner]`: the same for all segments.
    Weights,
}

/// How many values there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FusionShape {
    /// Segments or products.
    pub batch: usize,
    /// Values of each before the contraction.
    pub inner: usize,
    /// Values of each after it: 1 after a reduction, `inner` where there is none.
    pub outer: usize,
}

impl FusionShape {
    /// Elements of an operand.
    pub const fn elements(&self, extent: Extent) -> usize {
        match extent {
            Extent::Inner => self.batch * self.inner,
            Extent::Outer => self.batch * self.outer,
            Extent::Each => self.batch,
            Extent::InnerColumn => self.inner,
            Extent::OuterColumn => self.outer,
            Extent::Weights => self.inner * self.outer,
            Extent::Matrix => self.batch * self.inner * self.outer,
        }
    }
}

/// An operand of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Its name.
    pub name: &'static str,
    /// Its elements.
    pub extent: Extent,
}

/// What the kernel of a product of matrices does in place of a stage after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// It adds the operand of this number, a value for each column.
    Bias(usize),
    /// It applies the function.
    Activation(Activation),
}

/// A stage of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name, which is also that of the functions that compute it.
    pub name: &'static str,
    /// What it does.
    pub kind: StageKind,
    /// The kernel that computes it alone; none for a product of matrices, whose kernel is no chain's.
    pub entry: Option<&'static str>,
    /// Whether tensor cores may compute it.
    pub tensor_eligible: bool,
    /// What the kernel of the chain's product of matrices has in its place.
    pub epilogue: Option<Epilogue>,
}

/// What is declared of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// Its name.
    pub name: &'static str,
    /// What it computes, in a line.
    pub computes: &'static str,
    /// The kernel that computes all stages; none where a product of matrices has them as its epilogue, if it has them.
    pub entry: Option<&'static str>,
    /// Element type of operands, values and results.
    pub dtype: DType,
    /// Operands, in the order of the stages that name them first.
    pub operands: &'static [Operand],
    /// Stages, in their order.
    pub stages: &'static [Stage],
}

impl Declaration {
    /// Launches fewer than with a kernel for each stage.
    pub const fn launches_saved(&self) -> usize {
        self.stages.len() - 1
    }

    /// The stage that contracts, by number from 0.
    pub fn contraction(&self) -> Option<usize> {
        self.stages.iter().position(|stage| stage.kind.contracts())
    }

    /// The kind of the contraction.
    pub fn contracts(&self) -> Option<StageKind> {
        self.contraction().map(|at| self.stages[at].kind)
    }

    /// The epilogue that a product of matrices has in place of the stages after it: the number of the bias's operand, and the
    /// activation. None where the chain has no product, or a stage that is not in the product's kernel.
    pub fn epilogue(&self) -> Option<(Option<usize>, Activation)> {
        if self.contracts() != Some(StageKind::Matmul) {
            return None;
        }
        let (mut bias, mut activation) = (None, Activation::None);
        for stage in &self.stages[1..] {
            match stage.epilogue? {
                Epilogue::Bias(operand) => bias = Some(operand),
                Epilogue::Activation(function) => activation = function,
            }
        }
        Some((bias, activation))
    }

    /// Values that stage `number` leaves for the next, or as the result.
    pub fn extent_after(&self, number: usize) -> Extent {
        match self.contraction() {
            Some(at) if number >= at => Extent::Outer,
            _ => Extent::Inner,
        }
    }

    /// Arrays between stages of `[batch, inner]` and of `[batch, outer]`, which the fused kernel keeps in registers.
    pub fn intermediates(&self) -> [usize; 2] {
        let between = self.launches_saved();
        let inner = (0..between).filter(|&at| self.extent_after(at) == Extent::Inner).count();
        [inner, between - inner]
    }

    /// Bytes that are neither written nor read again.
    pub fn bytes_saved(&self, shape: &FusionShape) -> usize {
        let [inner, outer] = self.intermediates();
        let elements =
            inner * shape.elements(Extent::Inner) + outer * shape.elements(Extent::Outer);
        2 * elements * self.dtype.size_bytes()
    }
}

/// A declared chain. `#[derive(FusionBuilder)]` implements it.
pub trait Fusion: 'static {
    /// What operands, values and results are stored and computed in; sums are in f64.
    type Element: Element;
    /// An operand `B` under each name.
    type Inputs<B>: IntoIterator<Item = B>;

    /// What is declared.
    const DECLARATION: Declaration;

    /// Operands from those in the declaration's order; none if there are too few.
    fn inputs<B>(operands: impl IntoIterator<Item = B>) -> Option<Self::Inputs<B>>;
}

/// Operands that a chain has at most.
pub const MOST_OPERANDS: usize = 8;

/// What the kernels of chains take, fused ones and those of a stage alone.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct FusionArguments {
    /// The chain's operands, in their order, each with the elements that its extent says.
    pub operands: [In<u8>; MOST_OPERANDS],
    /// For a stage alone: what the stage before it left. Otherwise empty.
    pub values: In<u8>,
    /// The results, every element written.
    pub output: Out<u8>,
    /// Who computes what. Of a sum or of values one by one, `rows` is 1 and `columns` are the values of a segment.
    pub cut: GemvCut,
}

crate::assert_layout!(FusionArguments, size = 224, align = 16, {
    operands: 0, values: 128, output: 144, cut: 160,
});
