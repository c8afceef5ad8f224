//! Code that both versions of reqwest and of reqwest-middleware have to compile.

/// Declares the items once for each version, in the modules `latest` and `earlier`. There,
/// `reqwest` and `reqwest_middleware` are that version.
macro_rules! for_both_reqwests {
    ($($item:item)*) => {
        mod latest {
            #[allow(unused_imports)]
            use super::*;
            #[allow(unused_imports)]
            use {::reqwest, ::reqwest_middleware};

            $($item)*
        }

        mod earlier {
            #[allow(unused_imports)]
            use super::*;
            #[allow(unused_imports)]
            use {::reqwest_0_12 as reqwest, ::reqwest_middleware_0_4 as reqwest_middleware};

            $($item)*
        }
    };
}
