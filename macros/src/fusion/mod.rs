//! Chains of stages that one kernel computes: `#[derive(FusionBuilder)]`, and what is generated from the declaration where
//! the kernels and where the reference are.

mod chain;
mod check;
mod composition;
mod declaration;
mod epilogue;
mod kernels;

use proc_macro2::TokenStream;
use syn::DeriveInput;

use chain::Chain;

/// The declaration as data, the struct of its operands, and the macro that hands the declaration on.
pub(crate) fn derive(input: TokenStream) -> syn::Result<TokenStream> {
    let input: DeriveInput = syn::parse2(input)?;
    let chain = Chain::parse(&input)?;
    Ok(declaration::expand(&chain, &input))
}

/// The fused kernel and one kernel for each stage.
pub(crate) fn kernels(input: TokenStream) -> syn::Result<TokenStream> {
    Ok(kernels::expand(&Chain::parse(&syn::parse2(input)?)?))
}

/// The composition of the reference's functions.
pub(crate) fn composition(input: TokenStream) -> syn::Result<TokenStream> {
    Ok(composition::expand(&Chain::parse(&syn::parse2(input)?)?))
}
