//! Loops that are written out.

/// Runs a block for each `$i` from 0 to `$count − 1`, `$count` a constant up to 8, written out: an
/// array that is indexed by a loop's variable ends in local memory wherever LLVM leaves the loop
/// alone, one that is indexed by constants stays in registers. `unroll!(i in N, at most 4 => { … })`, or `at most 2`, gives
/// the compiler less to throw away where such loops are nested.
///
/// ```
/// let mut squares = [0; 4];
/// kasmina_device::unroll!(i in 4 => { squares[i] = i * i; });
/// assert_eq!(squares, [0, 1, 4, 9]);
/// ```
#[macro_export]
macro_rules! unroll {
    ($i:ident in $count:expr, at most 2 => $body:block) => {{
        const { assert!($count <= 2, "at most two turns are written out") };
        $crate::unroll!(@ $i, $count, $body, 0, 1);
    }};
    ($i:ident in $count:expr, at most 4 => $body:block) => {{
        const { assert!($count <= 4, "at most four turns are written out") };
        $crate::unroll!(@ $i, $count, $body, 0, 1, 2, 3);
    }};
    ($i:ident in $count:expr => $body:block) => {{
        const { assert!($count <= 8, "at most eight turns are written out") };
        $crate::unroll!(@ $i, $count, $body, 0, 1, 2, 3, 4, 5, 6, 7);
    }};
    (@ $i:ident, $count:expr, $body:block, $($index:literal),*) => {
        $(if $index < $count {
            let $i: usize = $index;
            $body
        })*
    };
}
