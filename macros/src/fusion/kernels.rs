//! The kernels of a chain. The stages' functions are found in a module `stages`, the templates in `chain`, where the
//! macro stands.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::Ident;

use super::chain::{Chain, Extent, Kind, Stage};

pub(super) fn expand(chain: &Chain) -> TokenStream {
    let contraction = chain.contraction();
    let (before, after) = match contraction {
        Some(at) => (&chain.stages[..at], &chain.stages[at + 1..]),
        None => (&chain.stages[..], &[][..]),
    };
    let fused = chain.entry().map(|entry| {
        let doc = format!("{} In one kernel.", chain.docs.first().cloned().unwrap_or_default());
        let body = template(chain, before, contraction.map(|at| &chain.stages[at]), after);
        kernel(&entry, &doc, body)
    });
    let alone = chain.stages.iter().filter_map(|stage| {
        let entry = chain.stage_entry(stage)?;
        let body = if stage.kind.contracts() {
            template(chain, &[], Some(stage), &[])
        } else {
            template(chain, std::slice::from_ref(stage), None, &[])
        };
        Some(kernel(&entry, &format!("Stage `{}` by itself.", stage.name), body))
    });
    let name = &chain.name;
    let handle = |entry: Option<Ident>| match entry {
        Some(entry) => quote!(::core::option::Option::Some(#entry::handle())),
        None => quote!(::core::option::Option::None),
    };
    let fused_handle = handle(chain.entry());
    let handles = chain.stages.iter().map(|stage| handle(chain.stage_entry(stage)));
    let kernel = quote!(&'static ::kasmina_device::Kernel<::kasmina_types::FusionArguments>);
    quote! {
        #fused
        #(#alone)*

        // Names the chain on the GPU too, where it has no handles.
        const _: usize = ::core::mem::size_of::<#name>();

        #[cfg(not(target_arch = "nvptx64"))]
        impl chain::Kernels for #name {
            fn fused() -> ::core::option::Option<#kernel> {
                #fused_handle
            }

            fn stages() -> ::std::vec::Vec<::core::option::Option<#kernel>> {
                ::std::vec![#(#handles),*]
            }
        }
    }
}

fn kernel(entry: &Ident, doc: &str, body: TokenStream) -> TokenStream {
    let doc = format!(" {doc}");
    quote! {
        #[doc = #doc]
        ///
        /// # Safety
        /// As [`FusionArguments`](::kasmina_types::FusionArguments) says.
        #[::kasmina_device::kernel(
            block = ::kasmina_types::tiles::FUSION_BLOCK_THREADS,
            min_blocks = ::kasmina_types::tiles::FUSION_MIN_BLOCKS
        )]
        pub unsafe fn #entry(p: ::kasmina_types::FusionArguments) {
            unsafe { #body }
        }
    }
}

/// Stages one by one, a contraction, and stages one by one.
fn template(
    chain: &Chain,
    before: &[Stage],
    contraction: Option<&Stage>,
    after: &[Stage],
) -> TokenStream {
    let element = &chain.element;
    let first = &chain.stages[0].name;
    let value = match before.first().or(contraction) {
        // Where the chain begins nothing flows in; a contraction that begins it has its vector as an operand.
        Some(stage) if stage.name == *first && stage.kind == Kind::Map => quote!(),
        Some(stage) if stage.name == *first && stage.kind.is_gemv() => {
            let vector = stage.operands[1];
            quote!(let value = chain::operand::<#element>(&p, #vector, at);)
        }
        _ => quote!(let value = chain::value::<#element>(&p, at);),
    };
    let calls = |stages: &[Stage]| {
        let calls = stages.iter().map(|stage| call(chain, stage)).collect::<Vec<_>>();
        quote!(#(#calls)*)
    };
    let (inner, outer) = (calls(before), calls(after));
    let inner = quote! {
        |each: usize, column: usize, at: usize| {
            let _ = (each, column);
            #value
            #inner
            value
        }
    };
    let outer = quote! {
        |each: usize, column: usize, at: usize, value: #element| {
            let _ = (each, column, at);
            #outer
            value
        }
    };
    match contraction {
        None => quote!(chain::map::<#element>(&p, #inner)),
        Some(stage) => {
            let name = match stage.kind {
                kind if kind.reduces() => format_ident!("{}", kind.name().to_lowercase()),
                Kind::Gemv => format_ident!("gemv"),
                _ => format_ident!("gemv_transposed"),
            };
            let matrix = stage.kind.is_gemv().then(|| {
                let matrix = stage.operands[0];
                quote!(#matrix,)
            });
            quote!(chain::#name::<#element>(&p, #matrix #inner, #outer))
        }
    }
}

/// `let value = stages::name(value, operands…);`
fn call(chain: &Chain, stage: &Stage) -> TokenStream {
    let (name, element) = (&stage.name, &chain.element);
    let carried = (chain.stages[0].name != *name).then(|| quote!(value,));
    let operands = stage.operands.iter().map(|&number| {
        let at = place(chain.operands[number].extent);
        quote!(chain::operand::<#element>(&p, #number, #at))
    });
    quote!(let value = stages::#name(#carried #(#operands),*);)
}

/// Where an operand's element is.
fn place(extent: Extent) -> TokenStream {
    match extent {
        Extent::Each => quote!(each),
        Extent::InnerColumn | Extent::OuterColumn => quote!(column),
        _ => quote!(at),
    }
}
