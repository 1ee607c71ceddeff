//! The executor's threads have all the registers they want.

pub(super) unsafe fn lower_registers<const REGISTERS: u32>() {}

pub(super) unsafe fn raise_registers<const REGISTERS: u32>() {}
