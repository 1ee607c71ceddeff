//! Which registers may differ between the threads of a block.
//!
//! A forward analysis without order: each register gathers what flows into it from operands, from the
//! predicates of guarded writes, and, where it is written more than once, from the branches around a write.

use std::collections::{HashMap, HashSet};
use std::ops::BitOrAssign;

use crate::flow::{Flow, Instruction};
use crate::ptx::is_symbol;

/// Where a value's differences between threads come from; empty for a uniform value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin(u8);

impl Origin {
    const UNIFORM: Origin = Origin(0);
    const WARP: Origin = Origin(1);
    const LANE: Origin = Origin(2);
    const MEMORY: Origin = Origin(4);

    /// Differs with the thread index, between warps or within one.
    pub(crate) fn is_thread_dependent(self) -> bool {
        self.0 & (Origin::WARP.0 | Origin::LANE.0) != 0
    }

    /// Differs between the lanes of a warp.
    pub(crate) fn is_lane_dependent(self) -> bool {
        self.0 & Origin::LANE.0 != 0
    }

    /// Was read from memory, so nothing is known.
    pub(crate) fn is_unknown(self) -> bool {
        self.0 & Origin::MEMORY.0 != 0
    }

    /// The same for all lanes of a warp, after a vote or a broadcast.
    fn shared_by_warp(self) -> Origin {
        if self.is_lane_dependent() {
            Origin(self.0 & !Origin::LANE.0 | Origin::WARP.0)
        } else {
            self
        }
    }
}

impl BitOrAssign for Origin {
    fn bitor_assign(&mut self, other: Origin) {
        self.0 |= other.0;
    }
}

/// The origins of a function's registers.
pub(crate) struct Uniformity {
    origins: HashMap<String, Origin>,
    /// Registers that hold the thread's index in x, or a block's first index plus it.
    linear: HashSet<String>,
}

impl Uniformity {
    pub(crate) fn of(flow: &Flow) -> Uniformity {
        let mut found = Uniformity { origins: HashMap::new(), linear: HashSet::new() };
        let instructions = || flow.blocks.iter().flat_map(|block| &block.instructions);
        let mut writes: HashMap<&str, usize> = HashMap::new();
        for register in instructions().flat_map(|instruction| split(instruction).0) {
            *writes.entry(register).or_default() += 1;
        }
        let mut changed = true;
        while changed {
            changed = false;
            for instruction in instructions() {
                let (destinations, _) = split(instruction);
                let origin = found.result(instruction);
                for register in destinations {
                    changed |= found.join(register, origin);
                    if writes[register] == 1 && found.is_linear(instruction) {
                        changed |= found.linear.insert(register.to_owned());
                    }
                }
            }
            for branch in flow.branches() {
                let origin = found.origin(branch.condition);
                if origin == Origin::UNIFORM {
                    continue;
                }
                for block in branch.divergent_blocks() {
                    for instruction in &flow.blocks[block].instructions {
                        for register in split(instruction).0.filter(|name| writes[name] > 1) {
                            changed |= found.join(register, origin);
                        }
                    }
                }
            }
        }
        found
    }

    /// The origin of a register, of a special register, or of a constant.
    pub(crate) fn origin(&self, name: &str) -> Origin {
        let special =
            name.strip_prefix('%').map_or("", |rest| rest.split('.').next().unwrap_or(rest));
        match special {
            "tid" | "laneid" | "clock" | "clock64" | "globaltimer" => Origin::LANE,
            "warpid" => Origin::WARP,
            _ if special.starts_with("lanemask") => Origin::LANE,
            _ => self.origins.get(name).copied().unwrap_or_default(),
        }
    }

    fn join(&mut self, register: &str, origin: Origin) -> bool {
        if let Some(known) = self.origins.get_mut(register) {
            let before = *known;
            *known |= origin;
            return *known != before;
        }
        self.origins.insert(register.to_owned(), origin);
        origin != Origin::UNIFORM
    }

    fn result(&self, instruction: &Instruction) -> Origin {
        let (_, sources) = split(instruction);
        let mut inputs = Origin::UNIFORM;
        for name in names(sources) {
            inputs |= self.origin(name);
        }
        let mut parts = instruction.opcode.split('.');
        let mut origin = match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
        {
            ("ld", "param" | "const") => inputs,
            ("ld" | "ldu" | "tex" | "call" | "mbarrier", _) => Origin::MEMORY,
            // Each thread gets what another left, or whatever lanes happen to be active.
            ("atom" | "activemask" | "elect", _) => Origin::LANE,
            ("vote" | "redux", _) => inputs.shared_by_warp(),
            // Every thread that meets there gets the same.
            ("bar" | "barrier", "red" | "cta") => Origin::UNIFORM,
            ("shfl", "sync") if parts.next() == Some("idx") => inputs.shared_by_warp(),
            _ if self.groups_by_warp(instruction, sources) => inputs.shared_by_warp(),
            _ => inputs,
        };
        if let Some(guard) = &instruction.guard {
            origin |= self.origin(guard);
        }
        origin
    }

    /// `tid.x >> 5`, `tid.x & !31` and `tid.x < 32·n` are the same for all lanes of a warp.
    fn groups_by_warp(&self, instruction: &Instruction, sources: &str) -> bool {
        let mut operands = sources.split(',').map(str::trim);
        let (Some(value), Some(constant)) = (operands.next(), operands.next()) else {
            return false;
        };
        let Ok(constant) = constant.parse::<i64>() else { return false };
        if !self.linear.contains(value) {
            return false;
        }
        let mut parts = instruction.opcode.split('.');
        match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
            ("shr", _) => constant >= 5,
            ("and", _) => constant & 31 == 0,
            ("setp", "lt" | "ge") => constant % 32 == 0,
            ("setp", "gt" | "le") => constant % 32 == 31,
            _ => false,
        }
    }

    fn is_linear(&self, instruction: &Instruction) -> bool {
        let (_, sources) = split(instruction);
        let operands: Vec<&str> = sources.split(',').map(str::trim).collect();
        let operation = instruction.opcode.split('.').next().unwrap_or_default();
        match (operation, &operands[..]) {
            ("mov" | "cvt", [value]) => *value == "%tid.x" || self.linear.contains(*value),
            ("mad", [a, b, c]) => {
                let uniform = |name: &str| self.origin(name) == Origin::UNIFORM;
                uniform(a) && uniform(b) && self.linear.contains(*c)
            }
            _ => false,
        }
    }
}

/// The registers that an instruction writes, and the text of what it reads.
fn split(instruction: &Instruction) -> (impl Iterator<Item = &str>, &str) {
    let operands = instruction.operands.as_str();
    let operation = instruction.opcode.split('.').next().unwrap_or_default();
    let end = match operands.as_bytes().first() {
        // These write nothing: what is first is read.
        _ if ["bra", "brx", "nanosleep"].contains(&operation) => 0,
        // An address first: a store or the like, which writes no register.
        Some(b'[') | None => 0,
        Some(b'{') => operands.find('}').map_or(operands.len(), |end| end + 1),
        Some(b'(') => operands.find(')').map_or(operands.len(), |end| end + 1),
        _ => operands.find(',').unwrap_or(operands.len()),
    };
    let (written, read) = operands.split_at(end);
    // The matrix instruction adds to what it writes.
    let read = if instruction.opcode.starts_with("wgmma") { operands } else { read };
    (names(written), read.trim_start_matches([',', ' ']))
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !is_symbol(c))
        .filter(|name| name.starts_with(|c: char| c == '%' || c == '_' || c.is_ascii_alphabetic()))
}
