//! Values from Rust to the wire and back, under the wire's rules: NaN and infinities become null; integers outside i64
//! and u64, nesting over 120 and keys that are no strings are errors that name the place.
//!
//! The rules are kept by the serializer's formatter while it writes, so they cost no pass of their own; a value that nests
//! too deep is refused before the stack is.

use std::fmt::Write as _;
use std::io;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::{CompactFormatter, Formatter};

use crate::error::CallError;

impl From<EncodeError> for CallError {
    fn from(EncodeError { message }: EncodeError) -> Self {
        CallError::Encode { message }
    }
}

impl From<DecodeError> for CallError {
    fn from(DecodeError { path, message }: DecodeError) -> Self {
        CallError::Decode { path, message }
    }
}

/// How deep lists and objects may nest within one argument or result.
pub(crate) const MAX_DEPTH: usize = 120;

/// A value that the wire does not carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct EncodeError {
    /// Where it is, and what to do.
    pub(crate) message: String,
}

/// A result that does not have the type asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub(crate) struct DecodeError {
    /// Such as `result["rows"][3]`.
    pub(crate) path: String,
    /// What was found there, and what was expected.
    pub(crate) message: String,
}

/// Encodes a call's body, `[function, args, kwargs]`. An array, tuple or list gives positional arguments, a map or
/// struct keywords, `()` or None nothing.
///
/// # Errors
/// [`EncodeError`] for a value that the wire does not carry, for a single value that is in no tuple, and for keywords
/// given twice.
pub(crate) fn call_body<A, K>(function: &str, args: &A, kwargs: Option<&K>) -> Result<Bytes, EncodeError>
where
    A: Serialize + ?Sized,
    K: Serialize + ?Sized,
{
    let mut body = Vec::with_capacity(256);
    body.push(b'[');
    append(function, "function", &mut body)?;
    body.push(b',');
    let start = body.len();
    append(args, "args", &mut body)?;
    let by_keyword = match body[start] {
        b'[' | b'n' => false,
        b'{' => true,
        _ => {
            return refuse(
                "arguments are a tuple or list (positional), or a map or struct (keywords); wrap it in a tuple: (value,)",
            );
        }
    };
    if by_keyword {
        body.splice(start..start, *b"null,");
        if kwargs.is_some() {
            return refuse("keywords are given twice: make args a tuple or list, or leave kwargs out");
        }
    } else {
        body.push(b',');
        let start = body.len();
        match kwargs {
            Some(kwargs) => append(kwargs, "kwargs", &mut body)?,
            None => body.extend_from_slice(b"null"),
        }
        if !matches!(body[start], b'{' | b'n') {
            return refuse("kwargs must be a map or a struct");
        }
    }
    body.push(b']');
    Ok(body.into())
}

/// Decodes a call's result.
///
/// # Errors
/// [`DecodeError`] when it is not a `T`.
pub(crate) fn decode_result<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(body).map_err(|error| {
        let read = body.len().min(error.column()); // the worker writes one line
        DecodeError { path: place(&body[..read], "result"), message: reason(&error) }
    })
}

/// Decodes the arguments of a host call.
///
/// # Errors
/// [`DecodeError`] when they are not a `T`.
pub(crate) fn decode_arguments<T: DeserializeOwned>(text: &str, root: &str) -> Result<T, DecodeError> {
    serde_json::from_str(text).map_err(|error| {
        let read = text.len().min(error.column());
        DecodeError { path: place(&text.as_bytes()[..read], root), message: reason(&error) }
    })
}

/// Encodes one value, under the wire's rules.
///
/// # Errors
/// [`EncodeError`] for a value that the wire does not carry.
pub(crate) fn encode_value<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, EncodeError> {
    let mut body = Vec::with_capacity(128);
    append(value, "result", &mut body)?;
    Ok(body.into())
}

fn refuse<T>(message: &str) -> Result<T, EncodeError> {
    Err(EncodeError { message: message.to_owned() })
}

fn append<T: Serialize + ?Sized>(value: &T, root: &str, body: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = body.len();
    let mut serializer = serde_json::Serializer::with_formatter(&mut *body, Ruled { depth: 0 });
    value.serialize(&mut serializer).map_err(|error| {
        let written = &body[start..];
        let root = if root == "args" && written.starts_with(b"{") { "kwargs" } else { root };
        EncodeError { message: format!("{} {}", place(written, root), reason(&error)) }
    })
}

/// The message without serde_json's line and column, which `place` has turned into a path.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) if error.line() > 0 => text[..at].to_owned(),
        _ => text,
    }
}

/// Compact JSON under the wire's rules. The list or map of the arguments itself is one level more.
struct Ruled {
    depth: usize,
}

impl Ruled {
    fn enter(&mut self) -> io::Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH + 1 {
            return Err(io::Error::other(format!("nests deeper than {MAX_DEPTH} levels: flatten it")));
        }
        Ok(())
    }
}

fn integer_too_long(digits: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!(
        "is the integer {digits}; only those of i64 and u64 travel: convert it to a string"
    ))
}

impl Formatter for Ruled {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter()?;
        CompactFormatter.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        CompactFormatter.end_array(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter()?;
        CompactFormatter.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        CompactFormatter.end_object(writer)
    }

    fn write_i128<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: i128) -> io::Result<()> {
        if value < i128::from(i64::MIN) || value > i128::from(u64::MAX) {
            return Err(integer_too_long(&value));
        }
        CompactFormatter.write_i128(writer, value)
    }

    fn write_u128<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: u128) -> io::Result<()> {
        if value > u128::from(u64::MAX) {
            return Err(integer_too_long(&value));
        }
        CompactFormatter.write_u128(writer, value)
    }

    // With serde_json's `arbitrary_precision`, which any crate of the application may switch on.
    fn write_number_str<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: &str) -> io::Result<()> {
        check_number(value.as_bytes())?;
        CompactFormatter.write_number_str(writer, value)
    }

    // JSON text of the user's own: a `RawValue`.
    fn write_raw_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        self.check_raw(fragment.as_bytes())?;
        CompactFormatter.write_raw_fragment(writer, fragment)
    }
}

impl Ruled {
    /// Looks for what the rules forbid in text that is valid JSON otherwise.
    fn check_raw(&mut self, text: &[u8]) -> io::Result<()> {
        let mut at = 0;
        while at < text.len() {
            let start = at;
            at += 1;
            match text[start] {
                b'"' => {
                    while text[at] != b'"' {
                        at += if text[at] == b'\\' { check_escape(&text[at..])? } else { 1 };
                    }
                    at += 1;
                }
                b'[' | b'{' => self.enter()?,
                b']' | b'}' => self.depth -= 1,
                b'-' | b'0'..=b'9' => {
                    while at < text.len()
                        && matches!(text[at], b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')
                    {
                        at += 1;
                    }
                    check_number(&text[start..at])?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Returns the length of the escape that begins the text; a surrogate must be one of a pair.
fn check_escape(text: &[u8]) -> io::Result<usize> {
    fn unit(text: &[u8]) -> Option<u16> {
        let digits = text.strip_prefix(b"\\u")?.get(..4)?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
    match unit(text) {
        None => Ok(2),
        Some(0xD800..=0xDBFF) if matches!(unit(&text[6..]), Some(0xDC00..=0xDFFF)) => Ok(12),
        Some(0xD800..=0xDFFF) => Err(io::Error::other("holds JSON text with a lone surrogate: replace it")),
        Some(_) => Ok(6),
    }
}

fn check_number(text: &[u8]) -> io::Result<()> {
    if text.len() < 19 || text.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        return Ok(());
    }
    let digits = String::from_utf8_lossy(text);
    match digits.parse::<i128>() {
        Ok(value) if value >= i128::from(i64::MIN) && value <= i128::from(u64::MAX) => Ok(()),
        _ => Err(integer_too_long(&digits)),
    }
}

/// Where a JSON text that was cut off ends, such as `result["rows"][3]`.
fn place(text: &[u8], root: &str) -> String {
    enum Step<'a> {
        Index(usize),
        Member(Option<&'a [u8]>),
    }
    const MOST_BYTES: usize = 400;

    let mut steps = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let start = at;
        at += 1;
        match text[start] {
            b'"' => {
                while at < text.len() && text[at] != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                at = text.len().min(at + 1);
                if let Some(Step::Member(key @ None)) = steps.last_mut() {
                    *key = Some(&text[start..at]);
                }
            }
            b'[' => steps.push(Step::Index(0)),
            b'{' => steps.push(Step::Member(None)),
            b']' | b'}' => _ = steps.pop(),
            b',' => match steps.last_mut() {
                Some(Step::Index(index)) => *index += 1,
                Some(Step::Member(key)) => *key = None,
                None => {}
            },
            _ => {}
        }
    }
    let mut place = root.to_owned();
    for step in steps {
        if place.len() > MOST_BYTES {
            place.push_str("...");
            break;
        }
        match step {
            Step::Index(index) => _ = write!(place, "[{index}]"),
            Step::Member(Some(key)) => _ = write!(place, "[{}]", String::from_utf8_lossy(key)),
            Step::Member(None) => {}
        }
    }
    place
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
