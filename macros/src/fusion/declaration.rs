//! What `#[derive(FusionBuilder)]` leaves beside the struct.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{DeriveInput, Ident};

use super::chain::{Chain, Extent};
use super::epilogue;

pub(super) fn expand(chain: &Chain, input: &DeriveInput) -> TokenStream {
    let (name, vis, element) = (&chain.name, &input.vis, &chain.element);
    let inputs = format_ident!("{name}Inputs");
    let inputs_doc = format!(" Operands of [`{name}`].");
    let fields = chain.operands.iter().map(|operand| {
        let (name, doc) = (&operand.name, extent_doc(operand.extent));
        quote! { #[doc = #doc] pub #name: B }
    });
    let names: Vec<&Ident> = chain.operands.iter().map(|operand| &operand.name).collect();
    let count = names.len();
    let operands = chain.operands.iter().map(|operand| {
        let (name, extent) = (operand.name.to_string(), format_ident!("{}", operand.extent.name()));
        quote! {
            ::kasmina_types::fusion::Operand {
                name: #name,
                extent: ::kasmina_types::fusion::Extent::#extent,
            }
        }
    });
    let stages = chain.stages.iter().map(|stage| {
        let (name, kind) = (stage.name.to_string(), format_ident!("{}", stage.kind.name()));
        let (entry, eligible) = (option(chain.stage_entry(stage)), stage.tensor_eligible);
        let epilogue = epilogue::expand(stage);
        quote! {
            ::kasmina_types::fusion::Stage {
                name: #name,
                kind: ::kasmina_types::fusion::StageKind::#kind,
                entry: #entry,
                tensor_eligible: #eligible,
                epilogue: #epilogue,
            }
        }
    });
    let kinds = chain.stages.iter().map(|stage| format_ident!("{}", stage.kind.name()));
    let stage_names = chain.stages.iter().map(|stage| &stage.name);
    let (snake, entry) = (chain.snake(), option(chain.entry()));
    let computes = chain.docs.first().cloned().unwrap_or_default();
    let hand_on = format_ident!("{snake}_fusion");
    let hand_on_doc =
        format!(" Hands the declaration of [`{name}`] to a macro that generates from it.");
    quote! {
        #[doc = #inputs_doc]
        #[derive(Clone, Copy, Debug)]
        #vis struct #inputs<B> { #(#fields,)* }

        impl<B> ::core::iter::IntoIterator for #inputs<B> {
            type Item = B;
            type IntoIter = ::core::array::IntoIter<B, #count>;

            fn into_iter(self) -> Self::IntoIter {
                [#(self.#names),*].into_iter()
            }
        }

        impl ::kasmina_types::fusion::Fusion for #name {
            type Element = #element;
            type Inputs<B> = #inputs<B>;

            fn inputs<B>(
                operands: impl ::core::iter::IntoIterator<Item = B>,
            ) -> ::core::option::Option<Self::Inputs<B>> {
                let mut operands = operands.into_iter();
                ::core::option::Option::Some(#inputs { #(#names: operands.next()?),* })
            }

            const DECLARATION: ::kasmina_types::fusion::Declaration =
                ::kasmina_types::fusion::Declaration {
                    name: #snake,
                    computes: #computes,
                    entry: #entry,
                    dtype: <#element as ::kasmina_types::dtype::Element>::DTYPE,
                    operands: &[#(#operands),*],
                    stages: &[#(#stages),*],
                };
        }

        // The stages are of the kinds that their types are named after.
        const _: fn(&#name) -> (#(&::kasmina_types::fusion::kind::#kinds,)*) =
            |chain| (#(&chain.#stage_names,)*);

        #[doc = #hand_on_doc]
        #[doc(hidden)]
        #[macro_export]
        macro_rules! #hand_on {
            ($generator:ident) => { $generator! { #input } };
        }
    }
}

/// `Some("entry")` or `None`.
fn option(entry: Option<Ident>) -> TokenStream {
    match entry.map(|entry| entry.to_string()) {
        Some(entry) => quote!(::core::option::Option::Some(#entry)),
        None => quote!(::core::option::Option::None),
    }
}

fn extent_doc(extent: Extent) -> &'static str {
    match extent {
        Extent::Inner => " `[batch, inner]`.",
        Extent::Outer => " `[batch, outer]`.",
        Extent::Each => " `[batch]`.",
        Extent::InnerColumn => " `[inner]`.",
        Extent::OuterColumn => " `[outer]`.",
        Extent::Weights => " A matrix for all, row-major: `[outer, inner]`.",
        Extent::Matrix => {
            " A matrix for each product, row-major: `[batch, outer, inner]`, where it is transposed `[batch, inner, \
             outer]`."
        }
    }
}
