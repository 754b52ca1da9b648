//! Rust signatures for Python functions, checked when a worker starts.

use std::fmt;

use crate::port::{Function, ParameterKind};

use super::handle::Pool;

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
    /// What is declared.
    const FUNCTIONS: &'static [Declaration];

    /// The module of a pool. That its functions are as declared is checked by
    /// [`PoolBuilder::declares`](super::PoolBuilder::declares), not here.
    fn of(pool: Pool) -> Self;
}

/// One function's name and the names of its parameters.
///
/// ```
/// use hatchery::Module;
///
/// hatchery::module! {
///     struct Texts;
///     fn count_words(text: &str) -> u64;
/// }
///
/// assert_eq!(Texts::FUNCTIONS[0].name, "count_words");
/// assert_eq!(Texts::FUNCTIONS[0].parameters, ["text"]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declaration {
    /// The function's name.
    pub name: &'static str,
    /// Its parameters, in the order in which they are given.
    pub parameters: &'static [&'static str],
}

/// A function that is not as it was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) function: &'static str,
    pub(crate) problem: String,
}

impl Declaration {
    /// What Python calls what is written so in Rust: `r#type` is `type`. For [`module!`](crate::module).
    #[doc(hidden)]
    pub const fn in_python(identifier: &'static str) -> &'static str {
        match identifier.as_bytes() {
            [b'r', b'#', ..] => identifier.split_at(2).1,
            _ => identifier,
        }
    }

    /// Holds the declaration against what the module exports. Where Python cannot tell a signature, only the name is
    /// checked.
    pub(crate) fn check(&self, exported: &[Function]) -> Result<(), Mismatch> {
        let wrong = |problem: String| Err(Mismatch { function: self.name, problem });
        let Some(function) = exported.iter().find(|function| function.name == self.name) else {
            return wrong("the module exports no such function".into());
        };
        let Some(parameters) = &function.parameters else { return Ok(()) };
        let signature = function.signature.as_deref().unwrap_or("unknown");
        let by_place: Vec<_> = parameters
            .iter()
            .filter(|it| {
                matches!(it.kind, ParameterKind::PositionalOnly | ParameterKind::PositionalOrKeyword)
            })
            .collect();
        let takes_more = parameters.iter().any(|it| it.kind == ParameterKind::VarPositional);
        for (place, name) in self.parameters.iter().enumerate() {
            match by_place.get(place) {
                Some(parameter)
                    if parameter.kind == ParameterKind::PositionalOnly || parameter.name == *name => {}
                Some(parameter) => {
                    let found = &parameter.name;
                    return wrong(format!(
                        "parameter {} is declared as `{name}`, but is `{found}` in Python: {signature}",
                        place + 1
                    ));
                }
                None if takes_more => {}
                None => {
                    return wrong(format!(
                        "declared with {} parameters, but takes {} by position in Python: {signature}",
                        self.parameters.len(),
                        by_place.len()
                    ));
                }
            }
        }
        let missing = by_place.iter().skip(self.parameters.len()).copied();
        let by_keyword = parameters.iter().filter(|it| it.kind == ParameterKind::KeywordOnly);
        match missing.chain(by_keyword).find(|parameter| parameter.required) {
            Some(parameter) => {
                wrong(format!("declared without `{}`, which Python requires: {signature}", parameter.name))
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function `{}`: {}", self.function, self.problem)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Parameter;

    fn function(name: &str, parameters: &[(&str, ParameterKind, bool)]) -> Function {
        let parameters =
            parameters.iter().map(|&(name, kind, required)| Parameter { name: name.into(), kind, required });
        Function {
            name: name.into(),
            signature: Some("(…)".into()),
            parameters: Some(parameters.collect()),
            doc: None,
        }
    }

    #[track_caller]
    fn refused(declared: Declaration, exported: &[Function], told: &str) {
        let mismatch = declared.check(exported).expect_err("it does not fit");
        assert!(mismatch.problem.contains(told), "{mismatch}");
    }

    #[test]
    fn a_declaration_is_held_against_the_signature() {
        use ParameterKind::{KeywordOnly, PositionalOnly, PositionalOrKeyword, VarKeyword, VarPositional};
        let f = |parameters| Declaration { name: "f", parameters };
        let plain = [function("f", &[("a", PositionalOrKeyword, true), ("b", PositionalOrKeyword, false)])];
        assert_eq!(f(&["a"]).check(&plain), Ok(()));
        assert_eq!(f(&["a", "b"]).check(&plain), Ok(()));
        refused(f(&[]), &plain, "without `a`");
        refused(f(&["a", "c"]), &plain, "parameter 2 is declared as `c`, but is `b`");
        refused(f(&["a", "b", "c"]), &plain, "declared with 3 parameters, but takes 2");
        refused(Declaration { name: "g", parameters: &[] }, &plain, "no such function");

        let odd = [function(
            "f",
            &[
                ("x", PositionalOnly, true),
                ("rest", VarPositional, false),
                ("k", KeywordOnly, false),
                ("kw", VarKeyword, false),
            ],
        )];
        assert_eq!(f(&["whatever", "more", "still_more"]).check(&odd), Ok(()));
        let strict = [function("f", &[("k", KeywordOnly, true)])];
        refused(f(&[]), &strict, "without `k`");
        let opaque = [Function { name: "f".into(), signature: None, parameters: None, doc: None }];
        assert_eq!(f(&["a"]).check(&opaque), Ok(()));
    }
}
