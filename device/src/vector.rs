//! Several elements that move in one access of 2, 4, 8 or 16 bytes.

/// `N` elements side by side. In registers it is a plain array; in memory a load or store of it
/// needs its address aligned to its size.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vector<T, const N: usize>(pub [T; N]);

/// Four f32, 16 bytes.
pub type F32x4 = Vector<f32, 4>;

impl<T, const N: usize> Vector<T, N> {
    /// Elements of the vector.
    pub const LANES: usize = N;
}

impl<T: Copy, const N: usize> Vector<T, N> {
    /// The same value in each lane.
    #[inline(always)]
    pub fn splat(value: T) -> Self {
        Self([value; N])
    }

    /// Each lane through `f`.
    #[inline(always)]
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Vector<U, N> {
        Vector(self.0.map(f))
    }
}

/// How a load treats the caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadHint {
    /// Cached as the hardware decides.
    Cached,
    /// Not kept in the SM's cache: read once (`L1::no_allocate`, from PTX 7.4; before, as `Cached`).
    Streaming,
}

/// How a store treats the caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreHint {
    /// Written back as the hardware decides.
    Cached,
    /// First to be evicted: not read again soon (`.cs`).
    Streaming,
}
