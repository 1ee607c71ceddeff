//! Control flow of a PTX function: instructions, basic blocks, immediate post-dominators.

use std::collections::{BTreeSet, HashMap};

use crate::ptx::{Function, is_symbol};

/// One instruction.
#[derive(Debug)]
pub(crate) struct Instruction {
    /// Line in the module, from 1.
    pub(crate) line: usize,
    /// The predicate register, without its negation.
    pub(crate) guard: Option<String>,
    pub(crate) opcode: String,
    pub(crate) operands: String,
}

/// A straight run of instructions.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) instructions: Vec<Instruction>,
    pub(crate) successors: Vec<usize>,
    /// The function may end here.
    exits: bool,
}

/// The control-flow graph; block 0 is the start.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) blocks: Vec<Block>,
    /// The block where all paths from a block meet again, if they do before the function ends.
    post_dominator: Vec<Option<usize>>,
}

enum Statement {
    Label(String),
    Targets { table: String, labels: Vec<String> },
    Instruction(Instruction),
}

impl Flow {
    pub(crate) fn of(function: &Function<'_>) -> Flow {
        let mut blocks = vec![Block::default()];
        let mut labels = HashMap::new();
        let mut tables = HashMap::new();
        for statement in statements(function) {
            match statement {
                Statement::Label(name) => {
                    if blocks.last().is_some_and(|block| !block.instructions.is_empty()) {
                        blocks.push(Block::default());
                    }
                    labels.insert(name, blocks.len() - 1);
                }
                Statement::Targets { table, labels } => {
                    tables.insert(table, labels);
                }
                Statement::Instruction(instruction) => {
                    let ends = ends_block(&instruction.opcode);
                    blocks.last_mut().expect("one block at least").instructions.push(instruction);
                    if ends {
                        blocks.push(Block::default());
                    }
                }
            }
        }
        connect(&mut blocks, &labels, &tables);
        let post_dominator = post_dominators(&blocks);
        Flow { blocks, post_dominator }
    }

    /// The branches that some threads may take and others not: block, guard, and the blocks that only
    /// one of each pair of ways leads through before the ways meet again.
    pub(crate) fn branches(&self) -> impl Iterator<Item = Branch<'_>> {
        self.blocks.iter().enumerate().filter_map(|(index, block)| {
            let last = block.instructions.last()?;
            let condition = match &last.guard {
                Some(guard) => guard.as_str(),
                None if last.opcode.starts_with("brx") => last.operands.split(',').next()?.trim(),
                None => return None,
            };
            if !ends_block(&last.opcode) {
                return None;
            }
            let sides = block.successors.iter().map(|&start| self.side(index, start)).collect();
            Some(Branch { line: last.line, condition, sides })
        })
    }

    /// The blocks reachable from `start` before the ways out of `branch` meet again.
    fn side(&self, branch: usize, start: usize) -> BTreeSet<usize> {
        let meeting = self.post_dominator[branch];
        let mut side = BTreeSet::new();
        let mut pending = vec![start];
        while let Some(block) = pending.pop() {
            if block != branch && Some(block) != meeting && side.insert(block) {
                pending.extend(&self.blocks[block].successors);
            }
        }
        side
    }
}

/// A conditional branch.
pub(crate) struct Branch<'a> {
    /// Its line in the module, from 1.
    pub(crate) line: usize,
    /// The register that decides.
    pub(crate) condition: &'a str,
    /// For each way out, the blocks before the ways meet again.
    pub(crate) sides: Vec<BTreeSet<usize>>,
}

impl Branch<'_> {
    /// Blocks that not every thread passes, if the condition differs between threads.
    pub(crate) fn divergent_blocks(&self) -> BTreeSet<usize> {
        self.sides.iter().flatten().copied().collect()
    }
}

fn ends_block(opcode: &str) -> bool {
    ["bra", "brx", "ret", "exit", "trap"].contains(&opcode.split('.').next().unwrap_or_default())
}

/// Splits the body at `;` and at labels; an instruction may run over several lines.
fn statements(function: &Function<'_>) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut text = String::new();
    for line in &function.body {
        for piece in line.code.split_inclusive(';') {
            if text.is_empty() {
                // Braces of inline assembly's scopes.
                text.push_str(piece.trim_start_matches([' ', '\t', '{', '}']));
            } else {
                text.push(' ');
                text.push_str(piece);
            }
            while let Some((label, rest)) = split_label(&text) {
                let rest = rest.to_owned();
                statements.push(Statement::Label(label.to_owned()));
                text = rest;
            }
            if let Some(complete) = text.strip_suffix(';') {
                statements.extend(statement(complete.trim(), line.number, &statements));
                text.clear();
            }
        }
    }
    statements
}

/// A label at the start, and what follows it.
fn split_label(text: &str) -> Option<(&str, &str)> {
    let (label, rest) = text.split_once(':')?;
    let is_label = !label.is_empty() && label.chars().all(is_symbol) && !rest.starts_with(':');
    is_label.then(|| (label, rest.trim_start()))
}

fn statement(text: &str, line: usize, before: &[Statement]) -> Option<Statement> {
    if let Some(list) = text.strip_prefix(".branchtargets") {
        let Some(Statement::Label(table)) = before.last() else { return None };
        let labels = list.split(',').map(|label| label.trim().to_owned()).collect();
        return Some(Statement::Targets { table: table.clone(), labels });
    }
    if text.is_empty() || text.starts_with('.') {
        return None;
    }
    let (guard, code) = match text.strip_prefix('@') {
        Some(guarded) => {
            let (guard, code) = guarded.split_once(char::is_whitespace)?;
            (Some(guard.trim_start_matches('!').to_owned()), code.trim_start())
        }
        None => (None, text),
    };
    let (opcode, operands) = code.split_once(char::is_whitespace).unwrap_or((code, ""));
    Some(Statement::Instruction(Instruction {
        line,
        guard,
        opcode: opcode.to_owned(),
        operands: operands.trim().to_owned(),
    }))
}

fn connect(
    blocks: &mut [Block],
    labels: &HashMap<String, usize>,
    tables: &HashMap<String, Vec<String>>,
) {
    let count = blocks.len();
    for (index, block) in blocks.iter_mut().enumerate() {
        let next = (index + 1 < count).then_some(index + 1);
        let Some(last) = block.instructions.last() else {
            block.successors.extend(next);
            continue;
        };
        let to = |label: &str| labels.get(label).copied();
        match last.opcode.split('.').next().unwrap_or_default() {
            "bra" => block.successors.extend(to(&last.operands)),
            "brx" => {
                let table = last.operands.split(',').nth(1).map_or("", str::trim);
                let targets = tables.get(table).into_iter().flatten();
                block.successors.extend(targets.filter_map(|label| to(label)));
                continue;
            }
            "ret" | "exit" => block.exits = true,
            // A trap ends the grid: no thread waits for another after it.
            "trap" => {}
            _ => {
                block.successors.extend(next);
                continue;
            }
        }
        if last.guard.is_some() {
            block.successors.extend(next);
        }
    }
}

/// Immediate post-dominators by the iteration of Cooper, Harvey and Kennedy, over an added exit node.
fn post_dominators(blocks: &[Block]) -> Vec<Option<usize>> {
    let exit = blocks.len();
    let mut predecessors = vec![Vec::new(); exit + 1];
    for (index, block) in blocks.iter().enumerate() {
        for &successor in &block.successors {
            predecessors[successor].push(index);
        }
        if block.exits {
            predecessors[exit].push(index);
        }
    }
    let order = post_order(&predecessors, exit);
    let mut rank = vec![0; exit + 1];
    for (position, &node) in order.iter().enumerate() {
        rank[node] = position;
    }
    let mut found: Vec<Option<usize>> = vec![None; exit + 1];
    found[exit] = Some(exit);
    let mut changed = true;
    while changed {
        changed = false;
        for &node in order.iter().rev().filter(|&&node| node != exit) {
            let ways =
                blocks[node].successors.iter().copied().chain(blocks[node].exits.then_some(exit));
            let meeting = ways.filter(|&way| found[way].is_some()).reduce(|mut a, mut b| {
                while a != b {
                    let lower = if rank[a] < rank[b] { &mut a } else { &mut b };
                    *lower = found[*lower].expect("ranked nodes on the way have one");
                }
                a
            });
            if found[node] != meeting {
                found[node] = meeting;
                changed = true;
            }
        }
    }
    found.truncate(exit);
    found.into_iter().map(|node| node.filter(|&node| node != exit)).collect()
}

fn post_order(edges: &[Vec<usize>], root: usize) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = vec![false; edges.len()];
    seen[root] = true;
    let mut stack = vec![(root, 0)];
    while let Some((node, next)) = stack.pop() {
        match edges[node].get(next) {
            Some(&child) => {
                stack.push((node, next + 1));
                if !std::mem::replace(&mut seen[child], true) {
                    stack.push((child, 0));
                }
            }
            None => order.push(node),
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptx::Module;

    fn flow(body: &str) -> Flow {
        let text = format!(".version 8.0\n.visible .entry k()\n{{\n{body}\n}}\n");
        Flow::of(&Module::parse(&text).unwrap().functions[0])
    }

    #[test]
    fn the_ways_of_a_branch_meet_at_its_post_dominator() {
        let flow = flow(
            "@%p1 bra $A;\nadd.s32 %r1, %r1, 1;\nbra.uni $B;\n$A:\nadd.s32 %r2, %r2, 1;\n$B:\nret;",
        );
        let branch = flow.branches().next().unwrap();
        assert_eq!((branch.line, branch.condition), (4, "%p1"));
        let opcode = |side: &BTreeSet<usize>| {
            let &block = side.iter().next().unwrap();
            flow.blocks[block].instructions[0].operands.clone()
        };
        let sides: Vec<String> = branch.sides.iter().map(opcode).collect();
        assert_eq!(sides, ["%r2, %r2, 1", "%r1, %r1, 1"]);
        assert!(branch.sides.iter().all(|side| side.len() == 1));
    }

    #[test]
    fn a_trap_does_not_move_the_meeting_point() {
        let flow = flow(
            "@%p1 bra $A;\n@%p2 bra $T;\nbra.uni $B;\n$T:\ntrap;\n$A:\nmov.b32 %r1, 0;\n$B:\nret;",
        );
        let branch = flow.branches().next().unwrap();
        // The other way: the check, its jump, and the trap, but not the return.
        let last =
            flow.blocks.iter().position(|b| b.instructions.iter().any(|i| i.opcode == "ret"));
        assert!(!branch.divergent_blocks().contains(&last.unwrap()));
    }

    #[test]
    fn statements_cross_lines_and_share_them() {
        let flow = flow(
            "{\n.param .b32 p;\ncall.uni (r),\nhelper,\n(p\n);\n}\n{ .reg .b64 s; mov.u64 s, t; cvta.u64 %rd1, s; }",
        );
        let opcodes: Vec<&str> =
            flow.blocks[0].instructions.iter().map(|i| i.opcode.as_str()).collect();
        assert_eq!(opcodes, ["call.uni", "mov.u64", "cvta.u64"]);
        assert_eq!(flow.blocks[0].instructions[0].operands, "(r), helper, (p )");
    }
}
