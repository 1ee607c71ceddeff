//! Expansion of `shared_array!`.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::{Expr, Token, Type};

struct Declaration {
    element: Type,
    length: Expr,
}

impl Parse for Declaration {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let element = input.parse()?;
        input.parse::<Token![;]>()?;
        Ok(Self { element, length: input.parse()? })
    }
}

pub(crate) fn expand(input: TokenStream) -> syn::Result<TokenStream> {
    let Declaration { element, length } = syn::parse2(input)?;
    // The declaration's place in the source names its symbol: one array for one place, whichever
    // kernels pass there.
    let span = Span::call_site().unwrap();
    let key = fnv1a(&format!("{}:{}:{}", span.file(), span.line(), span.column()));
    let symbol = format!("kasmina_shared_{key:016x}");
    let module = format_ident!("{symbol}");
    let declare = format!(".shared .align 16 .b8 {symbol}[{{}}];");
    let address = format!("mov.u32 {{}}, {symbol};");

    Ok(quote! {{
        // `global_asm!` stands among items only.
        #[cfg(target_arch = "nvptx64")]
        mod #module {
            #[allow(unused_imports, reason = "the length may be a literal")]
            use super::*;
            core::arch::global_asm!(#declare, const (#length) * core::mem::size_of::<#element>());
        }
        #[cfg(target_arch = "nvptx64")]
        {
            let address: u32;
            // SAFETY: reads the address of the array declared above.
            unsafe {
                core::arch::asm!(#address, out(reg32) address, options(pure, nomem, nostack));
                ::kasmina_device::shared::Shared::<#element, { #length }>::at(address)
            }
        }
        #[cfg(not(target_arch = "nvptx64"))]
        ::kasmina_device::shared::Shared::<#element, { #length }>::declared(#key)
    }})
}

/// FNV-1a: the same on every compiler, so that the PTX is too.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
