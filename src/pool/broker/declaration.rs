//! Rust signatures for Python functions, checked when a worker starts.

use std::fmt;

use crate::port::{Function, ParameterKind};

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
    /// The Python name of a Rust identifier: `r#type` is `type`. For [`module!`](crate::module).
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
