//! Chains whose stages no kernel computes in this order.

use kasmina_types::fusion::FusionBuilder;
use kasmina_types::fusion::kind::{Gemv, Map, Matmul, Sum};

#[derive(FusionBuilder)]
pub struct TwoContractions {
    #[stage(1, inputs(a))]
    pub double: Map,
    #[stage(2, reduction = true)]
    pub total: Sum,
    #[stage(3, inputs(matrix))]
    pub spread: Gemv,
}

#[derive(FusionBuilder)]
pub struct SumFirst {
    #[stage(1, reduction = true)]
    pub total: Sum,
    #[stage(2)]
    pub double: Map,
}

#[derive(FusionBuilder)]
pub struct LateMatmul {
    #[stage(1, inputs(a))]
    pub double: Map,
    #[stage(2, inputs(b), tensor_eligible = true)]
    pub product: Matmul,
}

#[derive(FusionBuilder)]
pub struct Gap {
    #[stage(1, inputs(a))]
    pub double: Map,
    #[stage(3)]
    pub square: Map,
}

#[derive(FusionBuilder)]
pub struct Twins {
    #[stage(1, inputs(a))]
    pub double: Map,
    #[stage(1)]
    pub square: Map,
}

#[derive(FusionBuilder)]
pub struct NothingFlowsIn {
    #[stage(1)]
    pub double: Map,
    #[stage(2)]
    pub square: Map,
}

fn main() {}
