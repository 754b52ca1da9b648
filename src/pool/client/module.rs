//! A type for the functions of a Python module.

use super::pool::Pool;
use crate::pool::broker::Declaration;

/// Functions of a Python module with their Rust signatures, made by [`module!`](crate::module).
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::Module;
///
/// hatchery::module! {
///     struct Texts;
///     fn count_words(text: &str) -> u64;
/// }
///
/// let words = Texts::of(pool).count_words("to be or not to be").await?;
/// # Ok(()) }
/// ```
pub trait Module {
    /// The declared functions.
    const FUNCTIONS: &'static [Declaration];

    /// The module of a pool. That its functions are as declared is checked by
    /// [`PoolBuilder::declares`](crate::PoolBuilder::declares), not here.
    fn of(pool: Pool) -> Self;
}

/// Declares functions of a Python module with Rust signatures.
///
/// Makes a type with one method for each function; a function that is marked `stream` is a generator, and its method gives a
/// [`CallStream`](crate::CallStream) of its items. Arguments are given by position. With
/// [`PoolBuilder::declares`](crate::PoolBuilder::declares) a pool refuses to start when a function is missing, or takes
/// other parameters; that the types fit shows in the calls. A name that is a keyword of Rust's is written `r#type`.
///
/// ```no_run
/// hatchery::module! {
///     /// Statistics of texts.
///     pub struct TextStats;
///
///     /// How many words the text has.
///     fn count_words(text: &str) -> u64;
///     stream fn sentences(text: &str) -> String;
/// }
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::{Module, Pool};
///
/// let pool = Pool::builder().module("textstats").declares::<TextStats>().start().await?;
/// let stats = TextStats::of(pool);
/// let words = stats.count_words("to be or not to be").await?;
/// # Ok(()) }
/// ```
#[macro_export]
macro_rules! module {
    (
        $(#[$meta:meta])* $vis:vis struct $Module:ident;
        $($functions:tt)*
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        $vis struct $Module {
            pool: $crate::Pool,
        }

        impl $Module {
            /// The pool that serves the calls.
            #[allow(dead_code)]
            $vis fn pool(&self) -> &$crate::Pool {
                &self.pool
            }
        }

        $crate::__module!(@methods $Module, $vis, $($functions)*);

        impl $crate::Module for $Module {
            const FUNCTIONS: &'static [$crate::Declaration] = $crate::__module!(@declarations [] $($functions)*);

            fn of(pool: $crate::Pool) -> Self {
                Self { pool }
            }
        }
    };
}

/// The internal rules of [`module!`](crate::module).
#[doc(hidden)]
#[macro_export]
macro_rules! __module {
    (@methods $Module:ident, $vis:vis,) => {};
    (@methods $Module:ident, $vis:vis,
        $(#[$meta:meta])* fn $name:ident($($arg:ident: $Arg:ty),* $(,)?) $(-> $Result:ty)?; $($rest:tt)*
    ) => {
        impl $Module {
            $(#[$meta])*
            #[allow(dead_code)]
            $vis async fn $name(&self, $($arg: $Arg),*) -> ::std::result::Result<$crate::__module!(@type $($Result)?), $crate::CallError> {
                self.pool.call($crate::Declaration::in_python(stringify!($name)), ($($arg,)*)).await
            }
        }
        $crate::__module!(@methods $Module, $vis, $($rest)*);
    };
    (@methods $Module:ident, $vis:vis,
        $(#[$meta:meta])* stream fn $name:ident($($arg:ident: $Arg:ty),* $(,)?) -> $Item:ty; $($rest:tt)*
    ) => {
        impl $Module {
            $(#[$meta])*
            #[allow(dead_code)]
            $vis async fn $name(&self, $($arg: $Arg),*) -> ::std::result::Result<$crate::CallStream<$Item>, $crate::CallError> {
                self.pool.stream($crate::Declaration::in_python(stringify!($name)), ($($arg,)*)).await
            }
        }
        $crate::__module!(@methods $Module, $vis, $($rest)*);
    };

    (@type) => { () };
    (@type $Result:ty) => { $Result };

    (@declarations [$($done:tt)*]) => { &[$($done)*] };
    (@declarations [$($done:tt)*]
        $(#[$meta:meta])* $(stream)? fn $name:ident($($arg:ident: $Arg:ty),* $(,)?) $(-> $Result:ty)?; $($rest:tt)*
    ) => {
        $crate::__module!(@declarations [$($done)* $crate::Declaration {
            name: $crate::Declaration::in_python(stringify!($name)),
            parameters: &[$($crate::Declaration::in_python(stringify!($arg))),*],
        },] $($rest)*)
    };
}
