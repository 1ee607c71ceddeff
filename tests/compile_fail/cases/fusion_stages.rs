//! Stages that contradict themselves or each other.

use kasmina_types::fusion::FusionBuilder;
use kasmina_types::fusion::kind::{Gemv, Map, Matmul, Sum};

#[derive(FusionBuilder)]
pub struct Unsaid {
    #[stage(1, inputs(a))]
    pub double: Map,
    #[stage(2)]
    pub total: Sum,
}

#[derive(FusionBuilder)]
pub struct NoReduction {
    #[stage(1, inputs(a), reduction = true)]
    pub double: Map,
    #[stage(2, reduction = true)]
    pub total: Sum,
}

#[derive(FusionBuilder)]
pub struct NothingToMultiply {
    #[stage(1, inputs(a), tensor_eligible = true)]
    pub double: Map,
    #[stage(2, reduction = true)]
    pub total: Sum,
}

#[derive(FusionBuilder)]
pub struct TwoPrecisions {
    #[stage(1, inputs(a), precision = "fp64")]
    pub double: Map,
    #[stage(2, reduction = true, precision = "fp32")]
    pub total: Sum,
}

#[derive(FusionBuilder)]
pub struct NoPrecision {
    #[stage(1, inputs(a), precision = "fp13")]
    pub double: Map,
    #[stage(2, reduction = true, precision = "fp13")]
    pub total: Sum,
}

#[derive(FusionBuilder)]
pub struct NoMatrix {
    #[stage(1, inputs(a))]
    pub double: Map,
    #[stage(2)]
    pub spread: Gemv,
}

#[derive(FusionBuilder)]
pub struct TwoShapes {
    #[stage(1, inputs(a))]
    pub double: Map,
    #[stage(2, inputs(a))]
    pub spread: Gemv,
}

#[derive(FusionBuilder)]
pub struct NoKind {
    #[stage(1, inputs(a))]
    pub double: Map,
    #[stage(2)]
    pub total: f32,
}

#[derive(FusionBuilder)]
pub struct NoStage {
    #[stage(1, inputs(a))]
    pub double: Map,
    pub total: Sum,
}

#[derive(FusionBuilder)]
pub struct Alone {
    #[stage(1, inputs(a, b), tensor_eligible = true)]
    pub product: Matmul,
}

#[derive(FusionBuilder)]
pub struct Unknown {
    #[stage(1, inputs(a), fast = true)]
    pub double: Map,
    #[stage(2, reduction = true)]
    pub total: Sum,
}

#[derive(FusionBuilder)]
pub struct NoProduct {
    #[stage(1, inputs(a))]
    pub double: Map,
    #[stage(2, columns(bias), epilogue = "bias")]
    pub bias: Map,
}

#[derive(FusionBuilder)]
pub struct NoActivation {
    #[stage(1, inputs(a, b))]
    pub product: Matmul,
    #[stage(2, epilogue = "swish")]
    pub swish: Map,
}

#[derive(FusionBuilder)]
pub struct LateBias {
    #[stage(1, inputs(a, b))]
    pub product: Matmul,
    #[stage(2, epilogue = "relu")]
    pub relu: Map,
    #[stage(3, columns(bias), epilogue = "bias")]
    pub bias: Map,
}

#[derive(FusionBuilder)]
pub struct BetweenEpilogues {
    #[stage(1, inputs(a, b))]
    pub product: Matmul,
    #[stage(2)]
    pub double: Map,
    #[stage(3, epilogue = "relu")]
    pub relu: Map,
}

#[derive(FusionBuilder)]
pub struct NoBias {
    #[stage(1, inputs(a, b))]
    pub product: Matmul,
    #[stage(2, epilogue = "bias")]
    pub bias: Map,
}

#[derive(FusionBuilder)]
pub struct Operands {
    #[stage(1, inputs(a, b))]
    pub product: Matmul,
    #[stage(2, scalars(gain), epilogue = "relu")]
    pub relu: Map,
}

fn main() {}
