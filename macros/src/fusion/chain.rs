//! A declared chain: its stages, read, and their operands numbered.

use proc_macro2::Span;
use syn::punctuated::Punctuated;
use syn::{
    Data, DeriveInput, Error, Expr, Field, Fields, Ident, Lit, LitBool, LitInt, LitStr, Meta,
    Token, Type, parenthesized,
};

use super::{check, epilogue};

/// Operands of a chain at most: what the kernels' parameters hold.
const MOST_OPERANDS: usize = 8;

/// What a stage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Map,
    Sum,
    Mean,
    Max,
    Min,
    Gemv,
    GemvTransposed,
    Matmul,
}

impl Kind {
    const ALL: [(&'static str, Self); 8] = [
        ("Map", Self::Map),
        ("Sum", Self::Sum),
        ("Mean", Self::Mean),
        ("Max", Self::Max),
        ("Min", Self::Min),
        ("Gemv", Self::Gemv),
        ("GemvTransposed", Self::GemvTransposed),
        ("Matmul", Self::Matmul),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|&(_, kind)| kind == self).map_or("", |(name, _)| name)
    }

    /// Whether a value that comes out depends on many that go in.
    pub(super) fn contracts(self) -> bool {
        self != Self::Map
    }

    /// Whether a segment comes to one value.
    pub(super) fn reduces(self) -> bool {
        matches!(self, Self::Sum | Self::Mean | Self::Max | Self::Min)
    }

    pub(super) fn is_gemv(self) -> bool {
        matches!(self, Self::Gemv | Self::GemvTransposed)
    }
}

/// Which elements of an operand a stage reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// One for each value before the contraction.
    Inner,
    /// One for each value after it.
    Outer,
    /// One for each segment or product.
    Each,
    /// One for each value of a segment before the contraction, the same for all segments.
    InnerColumn,
    /// One for each value of a segment after it, the same for all segments.
    OuterColumn,
    /// A matrix for each product.
    Matrix,
    /// One matrix for all.
    Weights,
}

impl Extent {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Inner => "Inner",
            Self::Outer => "Outer",
            Self::Each => "Each",
            Self::InnerColumn => "InnerColumn",
            Self::OuterColumn => "OuterColumn",
            Self::Matrix => "Matrix",
            Self::Weights => "Weights",
        }
    }
}

/// An operand of the chain.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) name: Ident,
    pub(super) extent: Extent,
}

/// One stage.
#[derive(Debug)]
pub(super) struct Stage {
    /// The field's, and the function's that computes it.
    pub(super) name: Ident,
    pub(super) number: usize,
    pub(super) kind: Kind,
    /// Operands that it reads, by number, in the order of the function's arguments.
    pub(super) operands: Vec<usize>,
    pub(super) tensor_eligible: bool,
    pub(super) reduction: bool,
    pub(super) precision: (String, Span),
    /// What the kernel of a product of matrices has in its place, by name.
    pub(super) epilogue: Option<(String, Span)>,
    pub(super) inputs: Vec<Ident>,
    pub(super) columns: Vec<Ident>,
    pub(super) scalars: Vec<Ident>,
}

/// A chain of stages that can be fused.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) name: Ident,
    /// The struct's documentation.
    pub(super) docs: Vec<String>,
    /// In the order of their numbers.
    pub(super) stages: Vec<Stage>,
    pub(super) operands: Vec<Operand>,
    /// `f64` or `f32`.
    pub(super) element: Ident,
}

impl Chain {
    pub(super) fn parse(input: &DeriveInput) -> syn::Result<Self> {
        let Data::Struct(data) = &input.data else {
            return Err(Error::new(
                input.ident.span(),
                "a fusion is a struct, a field for each stage",
            ));
        };
        let Fields::Named(fields) = &data.fields else {
            return Err(Error::new(input.ident.span(), "a fusion's stages are named fields"));
        };
        let mut stages = fields.named.iter().map(Stage::parse).collect::<syn::Result<Vec<_>>>()?;
        stages.sort_by_key(|stage| stage.number);
        check::numbers(&input.ident, &stages)?;
        check::order(&stages)?;
        epilogue::check(&stages)?;
        let element = check::precision(&stages)?;
        let operands = number_operands(&mut stages)?;
        let docs = input.attrs.iter().filter_map(doc).collect();
        Ok(Self { name: input.ident.clone(), docs, stages, operands, element })
    }

    /// The stage before which values are the inner ones, and after which the outer ones.
    pub(super) fn contraction(&self) -> Option<usize> {
        self.stages.iter().position(|stage| stage.kind.contracts())
    }

    /// `kl_sum` of `KlSum`.
    pub(super) fn snake(&self) -> String {
        let mut snake = String::new();
        for character in self.name.to_string().chars() {
            if character.is_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.extend(character.to_lowercase());
        }
        snake
    }

    /// The fused kernel's entry; none where a product of matrices has the stages as its epilogue.
    pub(super) fn entry(&self) -> Option<Ident> {
        let name = format!("fusion_{}_{}", self.snake(), self.element);
        let generated = self.stages.iter().all(|stage| stage.kind != Kind::Matmul);
        generated.then(|| Ident::new(&name, self.name.span()))
    }

    /// The entry of a stage by itself; none for a product of matrices, whose kernel is no chain's.
    pub(super) fn stage_entry(&self, stage: &Stage) -> Option<Ident> {
        let name = format!("fusion_{}_{}_{}", self.snake(), stage.name, self.element);
        (stage.kind != Kind::Matmul).then(|| Ident::new(&name, stage.name.span()))
    }
}

impl Stage {
    fn parse(field: &Field) -> syn::Result<Self> {
        let name = field.ident.clone().expect("the fields are named");
        let mut attributes =
            field.attrs.iter().filter(|attribute| attribute.path().is_ident("stage"));
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            let why = format!("`{name}` needs one `#[stage(1, …)]` with its number in the chain");
            return Err(Error::new(name.span(), why));
        };
        let mut stage = Self {
            kind: kind(&name, &field.ty)?,
            number: 0,
            operands: Vec::new(),
            tensor_eligible: false,
            reduction: false,
            precision: ("fp32".into(), name.span()),
            epilogue: None,
            inputs: Vec::new(),
            columns: Vec::new(),
            scalars: Vec::new(),
            name,
        };
        attribute.parse_args_with(|input: syn::parse::ParseStream<'_>| {
            let number: LitInt = input.parse()?;
            stage.number = number.base10_parse()?;
            while !input.is_empty() {
                input.parse::<Token![,]>()?;
                if input.is_empty() {
                    break;
                }
                stage.argument(input)?;
            }
            Ok(())
        })?;
        Ok(stage)
    }

    fn argument(&mut self, input: syn::parse::ParseStream<'_>) -> syn::Result<()> {
        let key: Ident = input.parse()?;
        match key.to_string().as_str() {
            "inputs" => self.inputs = names(input)?,
            "columns" => self.columns = names(input)?,
            "scalars" => self.scalars = names(input)?,
            "tensor_eligible" => self.tensor_eligible = value::<LitBool>(input)?.value,
            "reduction" => self.reduction = value::<LitBool>(input)?.value,
            "precision" => {
                let text: LitStr = value(input)?;
                self.precision = (text.value(), text.span());
            }
            "epilogue" => {
                let text: LitStr = value(input)?;
                self.epilogue = Some((text.value(), text.span()));
            }
            other => {
                let expected = "expected `inputs`, `columns`, `scalars`, `tensor_eligible`, `reduction`, `precision` or `epilogue`";
                let why = format!("stage `{}`: `{other}`: {expected}", self.name);
                return Err(Error::new(key.span(), why));
            }
        }
        Ok(())
    }

    pub(super) fn error(&self, why: &str) -> Error {
        Error::new(self.name.span(), format!("stage `{}` {why}", self.name))
    }
}

fn names(input: syn::parse::ParseStream<'_>) -> syn::Result<Vec<Ident>> {
    let content;
    parenthesized!(content in input);
    Ok(Punctuated::<Ident, Token![,]>::parse_terminated(&content)?.into_iter().collect())
}

fn value<T: syn::parse::Parse>(input: syn::parse::ParseStream<'_>) -> syn::Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

/// The text of a `#[doc]`.
fn doc(attribute: &syn::Attribute) -> Option<String> {
    let Meta::NameValue(meta) = &attribute.meta else { return None };
    let Expr::Lit(literal) = &meta.value else { return None };
    let Lit::Str(text) = &literal.lit else { return None };
    meta.path.is_ident("doc").then(|| text.value().trim().to_owned())
}

fn kind(stage: &Ident, written: &Type) -> syn::Result<Kind> {
    let last = match written {
        Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
        _ => None,
    };
    let known = |(name, _): &(&str, Kind)| last.as_deref() == Some(*name);
    Kind::ALL.into_iter().find(known).map(|(_, kind)| kind).ok_or_else(|| {
        let kinds = Kind::ALL.map(|(name, _)| format!("`{name}`")).join(", ");
        Error::new(
            stage.span(),
            format!("stage `{stage}` is of no known kind: its type is one of {kinds}"),
        )
    })
}

/// Numbers the operands in the order of the stages; one name is one operand.
fn number_operands(stages: &mut [Stage]) -> syn::Result<Vec<Operand>> {
    let mut operands: Vec<Operand> = Vec::new();
    let mut after = false;
    for (index, stage) in stages.iter_mut().enumerate() {
        after |= stage.kind.reduces();
        let (value, column) = if after {
            (Extent::Outer, Extent::OuterColumn)
        } else {
            (Extent::Inner, Extent::InnerColumn)
        };
        let extents = |position: usize| match stage.kind {
            Kind::Map => value,
            kind if kind.reduces() => value,
            Kind::Matmul if position == 1 => Extent::Weights,
            Kind::Matmul => Extent::Inner,
            _ if position == 0 => Extent::Matrix,
            _ => Extent::Inner,
        };
        let inputs = stage.inputs.iter().enumerate().map(|(i, name)| (name, extents(i)));
        let columns = stage.columns.iter().map(|name| (name, column));
        let scalars = stage.scalars.iter().map(|name| (name, Extent::Each));
        let all = inputs.chain(columns).chain(scalars);
        let mut numbers = Vec::new();
        for (name, extent) in all {
            let known = operands.iter().position(|operand| operand.name == *name);
            if let Some(number) = known {
                if operands[number].extent != extent {
                    let why = format!(
                        "stage `{}` reads `{name}` as another shape than the stage that named it first",
                        stage.name
                    );
                    return Err(Error::new(name.span(), why));
                }
                numbers.push(number);
                continue;
            }
            numbers.push(operands.len());
            operands.push(Operand { name: name.clone(), extent });
            if operands.len() > MOST_OPERANDS {
                let why =
                    format!("stage `{}`: a chain has {MOST_OPERANDS} operands at most", stage.name);
                return Err(Error::new(name.span(), why));
            }
        }
        stage.operands = numbers;
        debug_assert_eq!(stage.number, index + 1);
        after |= stage.kind.contracts();
    }
    Ok(operands)
}
