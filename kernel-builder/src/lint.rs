//! Checks the PTX itself: a barrier that the compiler duplicated hangs a GPU, and a local array costs more
//! than a kernel's author expects. Neither shows in the source.
//!
//! The signature of a duplicated barrier is a branch that threads take differently with the same barrier on
//! both sides: before the sides meet again, some threads wait at one copy and some at the other. How much
//! the threads may differ depends on who has to arrive: no two threads of the block at a block-wide
//! barrier, no two lanes of a warp at an `.aligned` instruction or a barrier of a part of the block. A
//! shuffle or a vote may be met from two places since sm_70, but a warp that runs in halves is slow: that
//! is a warning.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::flow::{Branch, Flow, Instruction};
use crate::launch_bounds::LaunchBounds;
use crate::ptx::{Function, Module};
use crate::uniformity::{Origin, Uniformity};

/// What the lint found in a module.
#[derive(Debug, Default)]
pub struct LintReport {
    /// Findings that must be mended.
    pub errors: Vec<LintFinding>,
    /// Findings that may be right.
    pub warnings: Vec<LintFinding>,
}

/// One finding.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LintFinding {
    /// The same barrier on both sides of a branch.
    #[error(
        "`{function}`: `{instruction}` of line {first_line} stands again at line {second_line}, on the other side \
         of the branch at line {branch_line} that threads take differently; keep the barrier outside of both"
    )]
    DuplicatedBarrier {
        /// The function.
        function: String,
        /// The instruction.
        instruction: String,
        /// Line of one copy, from 1.
        first_line: usize,
        /// Line of the other.
        second_line: usize,
        /// Line of the branch.
        branch_line: usize,
    },
    /// An array in local memory.
    #[error(
        "`{function}` keeps data in local memory (line {line}: `{declaration}`): index arrays with constants, or \
         declare `spills` in `#[kernel(…)]`"
    )]
    LocalMemory {
        /// The function.
        function: String,
        /// The line, from 1.
        line: usize,
        /// The declaration.
        declaration: String,
    },
}

/// Lints a module whose launch bounds are `bounds`.
pub fn check(module: &Module<'_>, bounds: &BTreeMap<String, LaunchBounds>) -> LintReport {
    let mut report = LintReport::default();
    let any_may_spill = bounds.values().any(|bounds| bounds.may_spill);
    for function in &module.functions {
        // A device function may be called by any of the entries.
        let may_spill = bounds.get(function.name).map_or(any_may_spill, |bounds| bounds.may_spill);
        if !may_spill {
            report.errors.extend(local_memory(function));
        }
        check_barriers(function, &mut report);
    }
    report
}

fn local_memory(function: &Function<'_>) -> Option<LintFinding> {
    let line = function.body.iter().find(|line| line.code.starts_with(".local"))?;
    Some(LintFinding::LocalMemory {
        function: function.name.to_owned(),
        line: line.number,
        declaration: line.code.to_owned(),
    })
}

/// Who has to arrive together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The lanes of a warp, from wherever they are.
    Shuffle,
    /// The lanes of a warp, at one instruction.
    Aligned,
    /// The whole block.
    Block,
}

fn check_barriers(function: &Function<'_>, report: &mut LintReport) {
    let flow = Flow::of(function);
    let barriers = |block: usize| {
        flow.blocks[block]
            .instructions
            .iter()
            .filter_map(|i| Some((i, scope(i)?)))
            .collect::<Vec<_>>()
    };
    let found: Vec<_> = (0..flow.blocks.len()).map(barriers).collect();
    if found.iter().map(Vec::len).sum::<usize>() < 2 {
        return;
    }
    let uniformity = Uniformity::of(&flow);
    for branch in flow.branches() {
        let origin = uniformity.origin(branch.condition);
        // One finding a branch says it all; an error before a warning.
        let worst = duplicates(&branch, &found)
            .into_iter()
            .filter_map(|(first, second, scope)| Some((severity(scope, origin)?, first, second)))
            .max_by_key(|(severity, ..)| *severity);
        let Some((severity, first, second)) = worst else { continue };
        let finding = LintFinding::DuplicatedBarrier {
            function: function.name.to_owned(),
            instruction: format!("{} {}", first.opcode, first.operands).trim().to_owned(),
            first_line: first.line,
            second_line: second.line,
            branch_line: branch.line,
        };
        match severity {
            Severity::Error => report.errors.push(finding),
            Severity::Warning => report.warnings.push(finding),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Warning,
    Error,
}

fn severity(scope: Scope, origin: Origin) -> Option<Severity> {
    match scope {
        Scope::Block if origin.is_thread_dependent() => Some(Severity::Error),
        Scope::Aligned if origin.is_lane_dependent() => Some(Severity::Error),
        Scope::Shuffle if origin.is_lane_dependent() => Some(Severity::Warning),
        Scope::Block if origin.is_unknown() => Some(Severity::Warning),
        // What a warp loads and branches on is most often one value.
        _ => None,
    }
}

/// Pairs of the same barrier on two sides of a branch, neither of which is on both. Block-wide barriers are
/// the same by number; the operands of the others differ by register only.
fn duplicates<'a>(
    branch: &Branch<'_>,
    barriers: &[Vec<(&'a Instruction, Scope)>],
) -> Vec<(&'a Instruction, &'a Instruction, Scope)> {
    let mut pairs = Vec::new();
    for (index, one) in branch.sides.iter().enumerate() {
        for other in &branch.sides[index + 1..] {
            for &(first, scope) in one.difference(other).flat_map(|&block| &barriers[block]) {
                let same = other.difference(one).flat_map(|&block| &barriers[block]).find(
                    |(second, _)| {
                        second.opcode == first.opcode
                            && (scope != Scope::Block || second.operands == first.operands)
                    },
                );
                pairs.extend(same.map(|&(second, _)| (first, second, scope)));
            }
        }
    }
    pairs
}

fn scope(instruction: &Instruction) -> Option<Scope> {
    let opcode = instruction.opcode.as_str();
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| opcode.starts_with(prefix));
    if starts(&["bar.warp.sync", "shfl.sync", "vote.sync", "match.", "redux.sync"]) {
        return Some(Scope::Shuffle);
    }
    if starts(&["bar.sync", "bar.red", "bar.cta.sync", "bar.cta.red", "barrier."]) {
        // Arriving at a cluster's barrier does not wait, and a second operand counts a part of the block.
        let part_of_block = opcode.contains(".sync") && instruction.operands.contains(',');
        return Some(if part_of_block { Scope::Aligned } else { Scope::Block });
    }
    opcode.split('.').any(|part| part == "aligned").then_some(Scope::Aligned)
}

#[cfg(test)]
mod tests;
