//! Expansion of `#[kernel]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::{Error, Expr, ExprArray, FnArg, ItemFn, Lit, Pat, ReturnType, Token, spanned::Spanned};

/// The attribute's arguments.
struct Bounds {
    block: Expr,
    min_blocks: Option<Expr>,
    cluster: Option<[Expr; 3]>,
    /// `90`: compute capability 9.0 and newer; `90a`: that architecture alone.
    arch: Option<String>,
    spills: bool,
    /// Whether the body calls `await_previous_grid` itself.
    awaits: bool,
}

impl Parse for Bounds {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let (mut block, mut min_blocks, mut cluster) = (None, None, None);
        let (mut arch, mut spills, mut awaits) = (None, false, false);
        while !input.is_empty() {
            let key: syn::Ident = input.parse()?;
            match key.to_string().as_str() {
                "spills" => spills = true,
                "awaits" => awaits = true,
                "block" => block = Some(value(input)?),
                "min_blocks" => min_blocks = Some(value(input)?),
                "arch" => arch = Some(architecture(input)?),
                "cluster" => {
                    let array: ExprArray = value(input)?;
                    let span = array.span();
                    let sides: Vec<Expr> = array.elems.into_iter().collect();
                    cluster = Some(<[Expr; 3]>::try_from(sides).map_err(|sides| {
                        let found = sides.len();
                        Error::new(
                            span,
                            format!("a cluster has three sides [x, y, z], not {found}"),
                        )
                    })?);
                }
                other => {
                    let expected =
                        "expected `block`, `min_blocks`, `cluster`, `arch`, `spills` or `awaits`";
                    return Err(Error::new(key.span(), format!("`{other}`: {expected}")));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let block = block.ok_or_else(|| {
            input.error("a kernel states the threads of its block: #[kernel(block = 256)]")
        })?;
        Ok(Self { block, min_blocks, cluster, arch, spills, awaits })
    }
}

/// `arch = 90` or `arch = "90a"`.
fn architecture(input: ParseStream) -> syn::Result<String> {
    let literal: Lit = value(input)?;
    let text = match &literal {
        Lit::Int(number) => number.to_string(),
        Lit::Str(text) => text.value(),
        _ => String::new(),
    };
    let digits = text.strip_suffix('a').unwrap_or(&text);
    if digits.len() >= 2 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(text);
    }
    let expected =
        "an architecture is `90`, compute capability 9.0 and newer, or `\"90a\"`, that one alone";
    Err(Error::new(literal.span(), expected))
}

fn value<T: Parse>(input: ParseStream) -> syn::Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let bounds: Bounds = syn::parse2(attribute)?;
    let function: ItemFn = syn::parse2(item)?;
    let params = parameter_type(&function)?;

    let ItemFn { attrs, vis, sig, block: body } = &function;
    let name = &sig.ident;
    let entry = name.to_string();
    let argument = &sig.inputs;
    let handle = format_ident!("{}", entry.to_uppercase());
    let marker = format_ident!("{}_launch_bounds", entry);

    let threads = &bounds.block;
    let min_blocks = bounds.min_blocks.map_or_else(|| quote!(1), |blocks| quote!(#blocks));
    let mut text = format!("// kasmina.kernel {entry} maxntid={{}} minnctapersm={{}}");
    let mut operands = quote!(const #threads, const #min_blocks);
    let mut cluster = quote!(None);
    if let Some([x, y, z]) = &bounds.cluster {
        text.push_str(" cluster={},{},{}");
        operands = quote!(#operands, const #x, const #y, const #z);
        cluster = quote!(Some([#x, #y, #z]));
    }
    // An entry that needs more than the oldest target exists only where the target has it.
    let (mut device, mut arch) = (quote!(target_arch = "nvptx64"), quote!(None));
    if let Some(name) = &bounds.arch {
        text.push_str(&format!(" arch={name}"));
        let feature = format!("sm_{name}");
        device = quote!(all(target_arch = "nvptx64", target_feature = #feature));
        arch = quote!(Some(#name));
    }
    if bounds.spills {
        text.push_str(" spills");
    }
    let awaits = if bounds.awaits {
        quote!()
    } else {
        quote!(::kasmina_device::thread::await_previous_grid();)
    };
    let handle_doc = format!("The typed handle of [`{entry}`], to launch it with.");

    Ok(quote! {
        #[cfg(#device)]
        #(#attrs)*
        #[unsafe(no_mangle)]
        #vis unsafe extern "ptx-kernel" fn #name(#argument) {
            #awaits
            #body
        }

        // rustc has no attribute for launch bounds: this comment reaches the PTX, where the builder
        // turns it into directives.
        #[cfg(#device)]
        mod #marker {
            #[allow(unused_imports, reason = "the bounds may be literals")]
            use super::*;
            core::arch::global_asm!(#text, #operands);
        }

        #[cfg(not(target_arch = "nvptx64"))]
        #(#attrs)*
        #vis unsafe fn #name(#argument) #body

        #[cfg(not(target_arch = "nvptx64"))]
        #[doc = #handle_doc]
        #vis static #handle: ::kasmina_device::Kernel<#params> = ::kasmina_device::Kernel::new(
            #entry,
            ::kasmina_device::LaunchBounds {
                block_threads: #threads,
                min_blocks_per_sm: #min_blocks,
                cluster: #cluster,
                arch: #arch,
            },
            #name,
        );

        // A module of the kernel's own name, so that a table of names can reach the handle.
        #[cfg(not(target_arch = "nvptx64"))]
        #[doc(hidden)]
        #vis mod #name {
            #[allow(unused_imports, reason = "the parameter's type may be a whole path")]
            use super::*;
            pub fn handle() -> &'static ::kasmina_device::Kernel<#params> {
                &super::#handle
            }
        }
    })
}

/// The type of the one parameter, once the signature is seen to be a kernel's.
fn parameter_type(function: &ItemFn) -> syn::Result<&syn::Type> {
    let sig = &function.sig;
    if sig.unsafety.is_none() {
        let why = "a kernel is `unsafe fn`: it follows the addresses in its parameters";
        return Err(Error::new(sig.fn_token.span(), why));
    }
    if !sig.generics.params.is_empty() {
        let why = "a kernel is an entry and cannot be generic: call a generic function from it";
        return Err(Error::new(sig.generics.span(), why));
    }
    if let ReturnType::Type(_, result) = &sig.output {
        return Err(Error::new(
            result.span(),
            "a kernel returns nothing: it writes to its buffers",
        ));
    }
    let mut inputs = sig.inputs.iter();
    match (inputs.next(), inputs.next()) {
        (Some(FnArg::Typed(argument)), None) if matches!(*argument.pat, Pat::Ident(_)) => {
            Ok(&argument.ty)
        }
        _ => {
            let why = "a kernel takes one parameter, a #[repr(C)] struct by value";
            Err(Error::new(sig.inputs.span(), why))
        }
    }
}
