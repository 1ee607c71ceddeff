//! PTX that a driver in use is known to translate wrongly.
//!
//! `min r, x, C` followed by `setp.eq p, r, C` is `x >= C`. The compiler of driver 580 (CUDA 13.0) makes it
//! `x <= C` for a byte that was loaded: seen on an H200, and reduced to a kernel of these two instructions. LLVM
//! writes the pair for `T::from_u8(x).unwrap_or(Last)`. A kernel returns early on `None` instead.

use std::collections::HashMap;

/// The pairs in `ptx`, each with its entry.
pub(crate) fn clamped_comparisons(ptx: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut entry = "";
    let mut clamps: HashMap<&str, &str> = HashMap::new();
    for line in ptx.lines() {
        if let Some((_, rest)) = line.split_once(".entry ") {
            entry = rest.split('(').next().unwrap_or(rest).trim();
            clamps.clear();
        }
        let Some((operation, operands)) = line.trim().split_once(char::is_whitespace) else {
            continue;
        };
        let operands: Vec<&str> =
            operands.trim_end_matches(';').split(',').map(str::trim).collect();
        let (kind, rest) = operation.split_once('.').unwrap_or((operation, ""));
        match (kind, operands.as_slice()) {
            ("min" | "max", [result, _, bound]) if !bound.starts_with('%') => {
                clamps.insert(result, bound);
            }
            ("setp", [_, value, bound])
                if (rest.starts_with("eq.") || rest.starts_with("ne."))
                    && clamps.get(value) == Some(bound) =>
            {
                found.push(format!("`{entry}`: {}", line.trim()));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_with_the_bound_of_a_clamp_is_found() {
        let ptx = |bound: u32| {
            format!(
                ".visible .entry k(\n)\n{{\n\tmin.u16 \t%rs1, %rs2, 4;\n\tsetp.eq.b16 \t%p1, %rs1, {bound};\n}}\n"
            )
        };
        assert_eq!(clamped_comparisons(&ptx(4)), ["`k`: setp.eq.b16 \t%p1, %rs1, 4;"]);
        assert_eq!(clamped_comparisons(&ptx(3)), [""; 0]);
        // Another kernel's register is another one.
        let apart = ptx(4).replace("\tsetp", "}\n.visible .entry other(\n)\n{\n\tsetp");
        assert_eq!(clamped_comparisons(&apart), [""; 0]);
    }
}
