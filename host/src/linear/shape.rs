//! Shapes of products and where their matrices lie.

use kasmina_types::{Layout, LinearProblem, LinearStrides};

use super::error::LinearError;
use crate::error::Error;

const OP: &str = "linear";

/// D `[m, n]`, op(A) `[m, k]`, op(B) `[k, n]`, all row-major; how far their rows are apart, in elements, and from one
/// matrix of a batch to the next. What a [`Layout`] says about A's and B's arrays decides what a row of them is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearShape {
    /// How A and B lie.
    pub layout: Layout,
    /// Rows of D.
    pub m: usize,
    /// Columns of D.
    pub n: usize,
    /// Columns of op(A), rows of op(B).
    pub k: usize,
    /// Problems.
    pub batch: usize,
    /// From one row of A's array to the next.
    pub lda: usize,
    /// Of B's.
    pub ldb: usize,
    /// Of C.
    pub ldc: usize,
    /// Of R.
    pub ldr: usize,
    /// Of D.
    pub ldd: usize,
    /// Of Z.
    pub ldz: usize,
    /// From one problem of the batch to the next; 0 where all share an operand.
    pub strides: LinearStrides,
}

/// m·n·k from which on converting operands pays for its launches.
const CONVERSION_WORK: u128 = 1 << 32;

/// Products that an element of the operands goes into, m·n / (m + n) on average, from which on converting it pays.
const CONVERSION_USES: u128 = 1536;

/// One matrix of a problem.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    name: &'static str,
    leading: &'static str,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) ld: usize,
    pub(crate) stride: u64,
}

impl Extent {
    /// From the first element to the last, and one more.
    pub(crate) fn elements(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1).saturating_mul(self.ld).saturating_add(self.columns)
    }

    /// The same, with as many rows: matrices that are one right after the other.
    pub(crate) fn with_rows(self, rows: usize) -> Self {
        Self { rows, ..self }
    }

    fn of_batch(&self, batch: usize) -> usize {
        let elements = self.elements();
        if batch == 0 || elements == 0 {
            return 0;
        }
        let last = (batch as u64 - 1).saturating_mul(self.stride);
        elements.saturating_add(usize::try_from(last).unwrap_or(usize::MAX))
    }

    /// Refuses a buffer that the matrices of a batch do not fit into.
    pub(crate) fn check(&self, batch: usize, got: usize) -> Result<(), Error> {
        let least = self.of_batch(batch);
        if got >= least {
            return Ok(());
        }
        let expected = format!("{least} or more, for [{}, {}]", self.rows, self.columns);
        Err(Error::Length { op: OP, buffer: self.name, expected, got })
    }
}

impl LinearShape {
    /// One product of matrices without gaps between their rows.
    pub fn new(layout: Layout, m: usize, n: usize, k: usize) -> Self {
        let lda = if layout.transposed_a() { m } else { k };
        let ldb = if layout.transposed_b() { k } else { n };
        let strides = LinearStrides::default();
        Self { layout, m, n, k, batch: 1, lda, ldb, ldc: n, ldr: n, ldd: n, ldz: n, strides }
    }

    /// `batch` of them, one after the other in every array but the bias, which they share.
    #[must_use]
    pub fn batched(self, batch: usize) -> Self {
        let stride = |extent: Extent| (extent.rows as u64).saturating_mul(extent.ld as u64);
        let strides = LinearStrides {
            a: stride(self.a()),
            b: stride(self.b()),
            c: stride(self.c()),
            bias: 0,
            residual: stride(self.residual()),
            d: stride(self.d()),
            z: stride(self.z()),
            ..LinearStrides::default()
        };
        Self { batch, strides, ..self }
    }

    /// m·n·k.
    pub(super) fn work(&self) -> u128 {
        self.m as u128 * self.n as u128 * self.k as u128
    }

    /// Whether converting f32 operands to 16 bits pays: products are then twice as fast as those of tf32, each element
    /// is read and written once more, and there are two launches.
    pub(super) fn pays_conversion(&self) -> bool {
        let (m, n) = (self.m as u128, self.n as u128);
        self.work() >= CONVERSION_WORK && m * n >= CONVERSION_USES * (m + n)
    }

    pub(crate) fn a(&self) -> Extent {
        let (rows, columns) =
            if self.layout.transposed_a() { (self.k, self.m) } else { (self.m, self.k) };
        Extent { name: "a", leading: "lda", rows, columns, ld: self.lda, stride: self.strides.a }
    }

    pub(crate) fn b(&self) -> Extent {
        let (rows, columns) =
            if self.layout.transposed_b() { (self.n, self.k) } else { (self.k, self.n) };
        Extent { name: "b", leading: "ldb", rows, columns, ld: self.ldb, stride: self.strides.b }
    }

    pub(crate) fn c(&self) -> Extent {
        self.of_results("c", "ldc", self.ldc, self.strides.c)
    }

    pub(crate) fn residual(&self) -> Extent {
        self.of_results("residual", "ldr", self.ldr, self.strides.residual)
    }

    pub(crate) fn d(&self) -> Extent {
        self.of_results("d", "ldd", self.ldd, self.strides.d)
    }

    pub(crate) fn z(&self) -> Extent {
        self.of_results("z", "ldz", self.ldz, self.strides.z)
    }

    pub(crate) fn bias(&self) -> Extent {
        let (name, stride) = ("bias", self.strides.bias);
        Extent { name, leading: name, rows: 1, columns: self.n, ld: self.n, stride }
    }

    fn of_results(
        &self,
        name: &'static str,
        leading: &'static str,
        ld: usize,
        stride: u64,
    ) -> Extent {
        Extent { name, leading, rows: self.m, columns: self.n, ld, stride }
    }

    /// Refuses what the kernels' counts do not hold, rows that overlap, and results that do.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let limit = i32::MAX as usize;
        let Self { m, n, k, batch, lda, ldb, ldc, ldr, ldd, ldz, .. } = *self;
        for (what, got) in [
            ("m", m),
            ("n", n),
            ("k", k),
            ("batch", batch),
            ("lda", lda),
            ("ldb", ldb),
            ("ldc", ldc),
            ("ldr", ldr),
            ("ldd", ldd),
            ("ldz", ldz),
        ] {
            if got > limit {
                let (got, limit) = (got as u64, limit as u64);
                return Err(Error::TooLarge { op: OP, what, got, limit });
            }
        }
        for extent in [self.a(), self.b(), self.c(), self.residual(), self.d(), self.z()] {
            if extent.rows > 1 && extent.ld < extent.columns {
                let (what, expected, got) = (extent.leading, extent.columns, extent.ld);
                return Err(LinearError::LeadingDimension { what, expected, got }.into());
            }
        }
        for extent in [self.d(), self.z()] {
            let expected = extent.elements();
            if batch > 1 && extent.stride < expected as u64 {
                let (what, got) = (extent.name, extent.stride);
                return Err(LinearError::Overlap { what, expected, got }.into());
            }
        }
        Ok(())
    }

    /// As the kernels take it: what there is not is at 0, with rows 0 apart.
    pub(crate) fn problem(&self, c: bool, residual: bool, z: bool) -> LinearProblem {
        let there = |there: bool, ld: usize| if there { ld as u32 } else { 0 };
        LinearProblem {
            m: self.m as u32,
            n: self.n as u32,
            k: self.k as u32,
            lda: self.lda as u32,
            ldb: self.ldb as u32,
            ldc: there(c, self.ldc),
            ldr: there(residual, self.ldr),
            ldd: self.ldd as u32,
            ldz: there(z, self.ldz),
            ..LinearProblem::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_and_counts_are_refused() {
        let good = LinearShape::new(Layout::TN, 3, 4, 5).batched(2);
        good.check().unwrap();
        assert_eq!((good.a().elements(), good.b().elements()), (15, 20));
        good.d().check(2, 24).unwrap();
        good.d().check(2, 23).unwrap_err();
        for bad in [
            LinearShape { lda: 2, ..good },
            LinearShape { ldd: 3, ..good },
            LinearShape { strides: LinearStrides { d: 11, ..good.strides }, ..good },
            LinearShape { k: 1 << 31, ..good },
        ] {
            bad.check().unwrap_err();
        }
    }
}
