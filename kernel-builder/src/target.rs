//! The GPU targets and the two code generators.

use std::fmt;

/// A GPU architecture that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Target {
    /// Volta, the oldest that is supported.
    Sm70,
    /// Turing.
    Sm75,
    /// Ampere (A100).
    Sm80,
    /// Ampere (consumer).
    Sm86,
    /// Ada.
    Sm89,
    /// Hopper, with its architecture-specific instructions (wgmma, setmaxnreg).
    Sm90a,
    /// Blackwell (data centre).
    Sm100,
    /// Blackwell (consumer).
    Sm120,
}

impl Target {
    /// Every target, oldest first.
    pub const ALL: [Target; 8] = [
        Target::Sm70,
        Target::Sm75,
        Target::Sm80,
        Target::Sm86,
        Target::Sm89,
        Target::Sm90a,
        Target::Sm100,
        Target::Sm120,
    ];

    /// The name that rustc and ptxas know, such as `sm_90a`.
    pub fn name(self) -> &'static str {
        match self {
            Target::Sm70 => "sm_70",
            Target::Sm75 => "sm_75",
            Target::Sm80 => "sm_80",
            Target::Sm86 => "sm_86",
            Target::Sm89 => "sm_89",
            Target::Sm90a => "sm_90a",
            Target::Sm100 => "sm_100",
            Target::Sm120 => "sm_120",
        }
    }

    /// The compute capability as one number: 70 for 7.0, 100 for 10.0.
    pub fn capability(self) -> u32 {
        match self {
            Target::Sm70 => 70,
            Target::Sm75 => 75,
            Target::Sm80 => 80,
            Target::Sm86 => 86,
            Target::Sm89 => 89,
            Target::Sm90a => 90,
            Target::Sm100 => 100,
            Target::Sm120 => 120,
        }
    }

    /// The target of that name.
    pub fn from_name(name: &str) -> Option<Target> {
        Target::ALL.into_iter().find(|target| target.name() == name)
    }

    /// The LLVM feature that raises the PTX version above what LLVM chooses for this target.
    pub(crate) fn ptx_feature(self) -> Option<&'static str> {
        // wgmma and the bulk copies of Hopper are PTX 8.0, the fence for tensor maps in memory is 8.3; LLVM
        // starts sm_90a at 7.8.
        (self == Target::Sm90a).then_some("+ptx83")
    }

    /// The oldest and, where support has ended, the first too new ptxas release for this target.
    pub(crate) fn ptxas_releases(self) -> ((u32, u32), Option<(u32, u32)>) {
        match self {
            Target::Sm70 => ((9, 0), Some((13, 0))),
            Target::Sm75 | Target::Sm80 | Target::Sm86 => ((11, 1), None),
            Target::Sm89 | Target::Sm90a => ((12, 0), None),
            Target::Sm100 | Target::Sm120 => ((12, 8), None),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What turns LLVM IR into PTX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CodeGenerator {
    /// The NVPTX back end of rustc's own LLVM: every target.
    LlvmNvptx,
    /// NVIDIA's libNVVM: compute capability 10.0 and newer.
    LibNvvm,
}

impl CodeGenerator {
    /// The name in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            CodeGenerator::LlvmNvptx => "llvm-nvptx",
            CodeGenerator::LibNvvm => "libnvvm",
        }
    }
}

/// One artifact to make: a target and the generator that makes its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variant {
    /// The GPU.
    pub target: Target,
    /// The code generator.
    pub generator: CodeGenerator,
}

impl Variant {
    /// The tail of the file name and of the nested target directory: `sm_100`, or `sm_100_nvvm`.
    pub fn suffix(self) -> String {
        match self.generator {
            CodeGenerator::LlvmNvptx => self.target.name().to_owned(),
            CodeGenerator::LibNvvm => format!("{}_nvvm", self.target),
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.target, self.generator.name())
    }
}
