//! What the kernel of a product of matrices has in place of a stage after it: a bias, then an activation.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::Error;

use super::chain::{Kind, Stage};

/// The name of the bias.
const BIAS: &str = "bias";

/// The names of activations, and their variants.
const ACTIVATIONS: [(&str, &str); 6] = [
    ("relu", "Relu"),
    ("gelu_erf", "GeluErf"),
    ("gelu_tanh", "GeluTanh"),
    ("silu", "Silu"),
    ("sigmoid", "Sigmoid"),
    ("tanh", "Tanh"),
];

/// Refuses what the kernel of a product does not have: another function, no product, more than a bias and then an
/// activation, other operands than the bias's.
pub(super) fn check(stages: &[Stage]) -> syn::Result<()> {
    let mut last: Option<&Stage> = None;
    for (index, stage) in stages.iter().enumerate() {
        let Some((name, span)) = &stage.epilogue else { continue };
        // A product is the first stage.
        if index == 0 || stages[0].kind != Kind::Matmul {
            return Err(stage.error("says `epilogue = …`, but comes after no product of matrices"));
        }
        if let Some(other) = stages[1..index].iter().find(|other| other.epilogue.is_none()) {
            return Err(stage.error(&format!(
                "says `epilogue = …`, but comes after `{}`, which says none",
                other.name
            )));
        }
        if name != BIAS && variant(name).is_none() {
            let known = ACTIVATIONS.map(|(name, _)| format!("`{name}`")).join(", ");
            let why =
                format!("stage `{}`: epilogue `{name}`: expected `{BIAS}`, {known}", stage.name);
            return Err(Error::new(*span, why));
        }
        // A bias may be followed by an activation, and by nothing else.
        let is_bias = |stage: &Stage| stage.epilogue.as_ref().is_some_and(|(n, _)| n == BIAS);
        if let Some(last) = last.filter(|last| is_bias(stage) || !is_bias(last)) {
            return Err(stage.error(&format!(
                "cannot come after `{}` in an epilogue, which adds one bias and then applies one activation",
                last.name
            )));
        }
        let operands = [stage.inputs.len(), stage.columns.len(), stage.scalars.len()];
        if is_bias(stage) && operands != [0, 1, 0] {
            return Err(stage.error("is the bias of an epilogue: say it in `columns(…)`, alone"));
        }
        if !is_bias(stage) && operands != [0; 3] {
            return Err(stage.error("is the activation of an epilogue, which has no operands"));
        }
        last = Some(stage);
    }
    Ok(())
}

/// The stage's entry in the declaration.
pub(super) fn expand(stage: &Stage) -> TokenStream {
    let Some((name, _)) = &stage.epilogue else { return quote!(::core::option::Option::None) };
    let what = match variant(name) {
        Some(variant) => {
            let variant = format_ident!("{variant}");
            quote!(Activation(::kasmina_types::Activation::#variant))
        }
        None => {
            let bias = stage.operands[0];
            quote!(Bias(#bias))
        }
    };
    quote!(::core::option::Option::Some(::kasmina_types::fusion::Epilogue::#what))
}

fn variant(name: &str) -> Option<&'static str> {
    ACTIVATIONS.iter().find(|(known, _)| *known == name).map(|&(_, variant)| variant)
}
