//! What no kernel can compute, or no declaration can mean: refused with the stage's name.

use syn::{Error, Ident};

use super::chain::{Kind, Stage};

/// Refuses stages that are not numbered from 1 on, and a chain of one.
pub(super) fn numbers(chain: &Ident, stages: &[Stage]) -> syn::Result<()> {
    for (index, stage) in stages.iter().enumerate() {
        if let Some(twin) = stages[..index].iter().find(|other| other.number == stage.number) {
            let why = format!("has the number {} of stage `{}`", stage.number, twin.name);
            return Err(stage.error(&why));
        }
        if stage.number != index + 1 {
            let why =
                format!("has the number {}, but there is no stage {}", stage.number, index + 1);
            return Err(stage.error(&why));
        }
    }
    if stages.len() < 2 {
        return Err(Error::new(
            chain.span(),
            "a chain of fewer than two stages has nothing to fuse",
        ));
    }
    Ok(())
}

/// What one kernel can compute: values one by one, at most one contraction, and values one by one again.
pub(super) fn order(stages: &[Stage]) -> syn::Result<()> {
    let mut contraction: Option<&Stage> = None;
    for (index, stage) in stages.iter().enumerate() {
        let kind = stage.kind.name();
        if stage.reduction != stage.kind.reduces() {
            let why = if stage.reduction {
                format!("says `reduction = true`, but is a `{kind}`")
            } else {
                format!("is a `{kind}`, which is a reduction: say `reduction = true`")
            };
            return Err(stage.error(&why));
        }
        if stage.tensor_eligible && stage.kind != Kind::Matmul {
            let why = format!(
                "says `tensor_eligible = true`, but is a `{kind}`: tensor cores have no product of matrices to compute"
            );
            return Err(stage.error(&why));
        }
        match stage.kind {
            Kind::Map => {}
            reduction if reduction.reduces() && index == 0 => {
                return Err(stage
                    .error("is a reduction with no stage before it: there is nothing to add up"));
            }
            Kind::Matmul if index > 0 => {
                let before = &stages[index - 1].name;
                return Err(stage.error(&format!(
                    "is a product of matrices and comes after `{before}`: its operands are brought to shared memory as \
                     they are, so it is the first stage"
                )));
            }
            _ => {
                if let Some(first) = contraction {
                    return Err(stage.error(&format!(
                        "cannot come after `{}`, whose results are spread over the blocks: end the chain before it",
                        first.name
                    )));
                }
            }
        }
        if stage.kind.contracts() {
            contraction = Some(stage);
        }
        operands(index, stage)?;
    }
    Ok(())
}

fn operands(index: usize, stage: &Stage) -> syn::Result<()> {
    let inputs = stage.inputs.len();
    let others = stage.columns.len() + stage.scalars.len();
    let first = index == 0;
    match stage.kind {
        Kind::Map if first && inputs == 0 => {
            Err(stage.error("is the first and has no `inputs(…)`: nothing flows into the chain"))
        }
        Kind::Map => Ok(()),
        kind if kind.reduces() && inputs + others > 0 => Err(stage.error(&format!(
            "is a `{}`: it takes what the stage before gives, and no operands",
            kind.name()
        ))),
        kind if kind.reduces() => Ok(()),
        _ if others > 0 => {
            Err(stage.error("takes no `columns(…)` and no `scalars(…)`: a `Map` after it does"))
        }
        _ if first && inputs != 2 => {
            Err(stage.error("is the first: say its two operands in `inputs(…)`"))
        }
        _ if !first && inputs != 1 => {
            Err(stage
                .error("takes the vector from the stage before: say its matrix, `inputs(matrix)`"))
        }
        _ => Ok(()),
    }
}

/// The element type that all stages share.
pub(super) fn precision(stages: &[Stage]) -> syn::Result<Ident> {
    let (first, rest) = stages.split_first().expect("there are two or more");
    for stage in rest {
        if stage.precision.0 != first.precision.0 {
            let why = format!(
                "stage `{}` is {}, but `{}` before it is {}: values pass between stages in registers, in one type",
                stage.name, stage.precision.0, first.name, first.precision.0
            );
            return Err(Error::new(stage.precision.1, why));
        }
    }
    let (text, span) = &first.precision;
    match text.as_str() {
        "fp64" => Ok(Ident::new("f64", *span)),
        "fp32" => Ok(Ident::new("f32", *span)),
        other => {
            let why =
                format!("stage `{}`: precision `{other}`: expected `fp64` or `fp32`", first.name);
            Err(Error::new(*span, why))
        }
    }
}
