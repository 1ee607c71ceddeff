//! Plain data as the 32-bit words that shuffles and shared memory move.

/// Runs `$body` for each word index of `$type`, up to eight.
macro_rules! for_each_word {
    ($type:ty, |$i:ident| $body:expr) => {{
        const { assert!(size_of::<$type>() % 4 == 0, "plain data made of 32-bit words") };
        $crate::unroll!($i in size_of::<$type>() / 4 => { $body });
    }};
}

pub(crate) use for_each_word;
