//! A chain as a composition of the reference's functions. They are found in a module `stages`, the templates in `compose`,
//! where the macro stands.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use super::chain::{Chain, Extent, Kind, Stage};

pub(super) fn expand(chain: &Chain) -> TokenStream {
    let steps = chain.stages.iter().enumerate().map(|(index, stage)| step(chain, index, stage));
    let name = &chain.name;
    quote! {
        impl compose::Reference for #name {
            fn reference(
                shape: &::kasmina_types::fusion::FusionShape,
                operands: &[Vec<f64>],
            ) -> Vec<f64> {
                #(#steps)*
                values
            }
        }
    }
}

/// `let values = …;` from those of the stage before.
fn step(chain: &Chain, index: usize, stage: &Stage) -> TokenStream {
    let name = &stage.name;
    let operands = &stage.operands;
    match stage.kind {
        Kind::Map => {
            let after = chain.contraction().is_some_and(|at| index > at);
            let length = if after { quote!(shape.outer) } else { quote!(shape.inner) };
            let carried = (index > 0).then(|| quote!(values[at],));
            let arguments = operands.iter().map(|&number| {
                let at = match chain.operands[number].extent {
                    Extent::Each => quote!(each),
                    Extent::InnerColumn | Extent::OuterColumn => quote!(column),
                    _ => quote!(at),
                };
                quote!(operands[#number][#at])
            });
            quote! {
                let values = compose::map(shape.batch, #length, |each, column, at| {
                    let _ = (each, column, at);
                    stages::#name(#carried #(#arguments),*)
                });
            }
        }
        kind if kind.reduces() => {
            let reduce = format_ident!("{}", kind.name().to_lowercase());
            quote!(let values = compose::#reduce(shape, &values);)
        }
        Kind::Matmul => {
            let (a, b) = (operands[0], operands[1]);
            quote!(let values = compose::matmul(shape, &operands[#a], &operands[#b]);)
        }
        kind => {
            let matrix = operands[0];
            let vector =
                operands.get(1).map_or(quote!(&values), |vector| quote!(&operands[#vector]));
            let transposed = kind == Kind::GemvTransposed;
            quote!(let values = compose::gemv(shape, #transposed, &operands[#matrix], #vector);)
        }
    }
}
