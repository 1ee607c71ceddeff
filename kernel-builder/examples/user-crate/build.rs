//! Compiles the kernels of `kernels/` and hands their PTX to the crate.

use kasmina_kernel_builder::{BuildError, KernelBuilder, Target};

fn main() -> Result<(), BuildError> {
    KernelBuilder::new("kernels").target(Target::Sm80).target(Target::Sm90a).build_in_script()?;
    Ok(())
}
