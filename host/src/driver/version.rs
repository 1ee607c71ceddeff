//! The CUDA version of a driver, and the PTX that it can take.

use std::fmt;

/// The CUDA version that a driver implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriverVersion {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl DriverVersion {
    /// From the number that the driver answers, `1000 · major + 10 · minor`.
    pub const fn from_number(number: u32) -> Self {
        Self { major: number / 1000, minor: number % 1000 / 10 }
    }

    /// The highest PTX version whose modules this driver loads.
    ///
    /// Known up to CUDA 13.5; later versions are taken to go on as 11 to 13 did, one PTX version a release.
    pub const fn max_ptx_version(self) -> PtxVersion {
        let Self { major, minor } = self;
        let (major, minor) = match (major, minor) {
            (..9, _) => (5, 0),
            (9, minor) => (6, minor),
            (10, minor) => (6, minor + 3),
            // 12.6 brought no new PTX version.
            (12, 6..) => (8, minor - 1),
            (major, minor) => (major - 4, minor),
        };
        PtxVersion { major, minor }
    }
}

impl fmt::Display for DriverVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// A version of the PTX language, as in a module's `.version` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PtxVersion {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl fmt::Display for PtxVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ptx_versions_of_known_drivers() {
        let known = [
            (9_000, (6, 0)),
            (10_000, (6, 3)),
            (10_020, (6, 5)),
            (11_000, (7, 0)),
            (11_080, (7, 8)),
            (12_000, (8, 0)),
            (12_050, (8, 5)),
            (12_060, (8, 5)),
            (12_070, (8, 6)),
            (12_080, (8, 7)),
            (12_090, (8, 8)),
            (13_000, (9, 0)),
            (13_010, (9, 1)),
            (13_050, (9, 5)),
        ];
        for (number, (major, minor)) in known {
            let driver = DriverVersion::from_number(number);
            assert_eq!(driver.max_ptx_version(), PtxVersion { major, minor }, "CUDA {driver}");
        }
    }

    #[test]
    fn versions_order_by_major_then_minor() {
        assert!(DriverVersion::from_number(12_090) < DriverVersion::from_number(13_000));
        assert!(PtxVersion { major: 8, minor: 8 } < PtxVersion { major: 9, minor: 0 });
    }
}
