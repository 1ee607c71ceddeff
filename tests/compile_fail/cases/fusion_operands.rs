//! An operand that is left out where a chain is launched, and a stage of a kind that only has a kind's name.

use kasmina_types::fusion::FusionBuilder;
use kasmina_types::fusion::chains::KlSumInputs;
use kasmina_types::fusion::kind::Map;

pub struct Sum;

#[derive(FusionBuilder)]
pub struct OtherSum {
    #[stage(1, inputs(a))]
    pub double: Map,
    #[stage(2, reduction = true)]
    pub total: Sum,
}

fn main() {
    let _ = KlSumInputs { mean: 1, variance: 2, prior_mean: 3 };
}
