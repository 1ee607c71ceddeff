//! `setmaxnreg`, through intrinsics, which are convergent.

unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.setmaxnreg.dec.sync.aligned.u32"]
    fn setmaxnreg_dec(registers: u32);
    #[link_name = "llvm.nvvm.setmaxnreg.inc.sync.aligned.u32"]
    fn setmaxnreg_inc(registers: u32);
}

#[inline(always)]
pub(super) unsafe fn lower_registers<const REGISTERS: u32>() {
    // SAFETY: the caller's contract.
    unsafe { setmaxnreg_dec(REGISTERS) };
}

#[inline(always)]
pub(super) unsafe fn raise_registers<const REGISTERS: u32>() {
    // SAFETY: the caller's contract.
    unsafe { setmaxnreg_inc(REGISTERS) };
}
