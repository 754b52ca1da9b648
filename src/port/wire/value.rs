//! Values from Rust to the wire and back, under the wire's rules: NaN and infinities become null; integers outside i64
//! and u64, nesting over 120 and keys that are no strings are errors that name the place.
//!
//! The rules are kept by the serializer's formatter while it writes, so they cost no pass of their own; a value that nests
//! too deep is refused before the stack is.

use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

use crate::error::{CallError, Direction};
use crate::port::memory::passthrough::{self, ArrayType};
use crate::port::wire::attachment::{Body, Collected};

impl From<EncodeError> for CallError {
    fn from(EncodeError { message }: EncodeError) -> Self {
        CallError::Encode { message, direction: Direction::Arguments, context: Box::default() }
    }
}

/// How deep lists and objects may nest within one argument or result.
pub(crate) const MAX_DEPTH: usize = 120;

/// How a placeholder begins, as JSON text.
pub(crate) const PLACEHOLDER_START: &[u8] = br#"{"\u0000":"#;

/// U+0000 as JSON text.
const ESCAPED_NUL: &[u8] = br"\u0000";

/// A value that the wire does not carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct EncodeError {
    /// Where it is, and what to do.
    pub(crate) message: String,
}

/// Encodes a call's body, `[function, args, kwargs]`. An array, tuple or list gives positional arguments, a map or
/// struct keywords, `()` or None nothing.
///
/// # Errors
/// [`EncodeError`] for a value that the wire does not carry, for a single value that is in no tuple, and for keywords
/// given twice.
pub(crate) fn call_body<A, K>(function: &str, args: &A, kwargs: Option<&K>) -> Result<Body, EncodeError>
where
    A: Serialize + ?Sized,
    K: Serialize + ?Sized,
{
    let mut encoder = Encoder::default();
    let json = encoder.call(function, args, kwargs)?;
    if encoder.collected.len() == 0 || !encoder.reserved_name {
        return Ok(encoder.finish(json));
    }
    // Only now it is known that names must be told from placeholders.
    let mut encoder = Encoder { escapes: true, ..Encoder::default() };
    let json = encoder.call(function, args, kwargs)?;
    Ok(encoder.finish(json))
}

/// Encodes values of one body.
#[derive(Default)]
struct Encoder {
    collected: Collected,
    /// Whether a member of an object has a name that begins like a placeholder's.
    reserved_name: bool,
    /// Whether such names are told from placeholders.
    escapes: bool,
}

impl Encoder {
    fn call<A, K>(&mut self, function: &str, args: &A, kwargs: Option<&K>) -> Result<Vec<u8>, EncodeError>
    where
        A: Serialize + ?Sized,
        K: Serialize + ?Sized,
    {
        let mut body = Vec::with_capacity(256);
        body.push(b'[');
        self.append(function, "function", &mut body)?;
        body.push(b',');
        let start = body.len();
        self.append(args, "args", &mut body)?;
        let by_keyword = match body[start] {
            b'[' | b'n' => false,
            b'{' if !body[start..].starts_with(PLACEHOLDER_START) => true,
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
                Some(kwargs) => self.append(kwargs, "kwargs", &mut body)?,
                None => body.extend_from_slice(b"null"),
            }
            if !matches!(body[start], b'{' | b'n') || body[start..].starts_with(PLACEHOLDER_START) {
                return refuse("kwargs must be a map or a struct");
            }
        }
        body.push(b']');
        Ok(body)
    }

    fn append<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        root: &str,
        body: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = body.len();
        let ruled = Ruled { encoder: self, depth: 0, name_begins: false };
        let mut serializer = serde_json::Serializer::with_formatter(&mut *body, ruled);
        value.serialize(&mut serializer).map_err(|error| {
            let written = &body[start..];
            let root = if root == "args" && written.starts_with(b"{") { "kwargs" } else { root };
            EncodeError { message: format!("{} {}", place(written, root), reason(&error)) }
        })
    }

    fn finish(self, json: Vec<u8>) -> Body {
        Body { json: json.into(), attachments: self.collected.into_attachments() }
    }
}

/// Encodes one value, under the wire's rules.
///
/// # Errors
/// [`EncodeError`] for a value that the wire does not carry.
pub(crate) fn encode_value<T: Serialize + ?Sized>(value: &T) -> Result<Body, EncodeError> {
    let encode = |mut encoder: Encoder| {
        let mut json = Vec::with_capacity(128);
        encoder.append(value, "result", &mut json)?;
        Ok::<_, EncodeError>((encoder, json))
    };
    let (encoder, json) = encode(Encoder::default())?;
    if encoder.collected.len() == 0 || !encoder.reserved_name {
        return Ok(encoder.finish(json));
    }
    let (encoder, json) = encode(Encoder { escapes: true, ..Encoder::default() })?;
    Ok(encoder.finish(json))
}

fn refuse<T>(message: &str) -> Result<T, EncodeError> {
    Err(EncodeError { message: message.to_owned() })
}

/// The message without serde_json's line and column, which `place` has turned into a path.
pub(crate) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) if error.line() > 0 => text[..at].to_owned(),
        _ => text,
    }
}

/// Compact JSON under the wire's rules. The list or map of the arguments itself is one level more.
struct Ruled<'a> {
    encoder: &'a mut Encoder,
    depth: usize,
    /// A member's name is about to be written, and nothing of it has been yet.
    name_begins: bool,
}

impl Ruled<'_> {
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

impl Formatter for Ruled<'_> {
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

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.name_begins = true;
        CompactFormatter.begin_object_key(writer, first)
    }

    fn end_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.name_begins = false;
        CompactFormatter.end_object_key(writer)
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        self.name_begins &= fragment.is_empty();
        CompactFormatter.write_string_fragment(writer, fragment)
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        if std::mem::take(&mut self.name_begins) && matches!(escape, CharEscape::AsciiControl(0)) {
            self.encoder.reserved_name = true;
            if self.encoder.escapes {
                writer.write_all(ESCAPED_NUL)?;
            }
        }
        CompactFormatter.write_char_escape(writer, escape)
    }

    fn write_byte_array<W: ?Sized + io::Write>(&mut self, writer: &mut W, bytes: &[u8]) -> io::Result<()> {
        let offer = passthrough::take(bytes);
        let index = match &offer {
            Some(offer) => self.encoder.collected.push(&offer.buffer),
            None => self.encoder.collected.push_copy(bytes),
        };
        let index = index.map_err(io::Error::other)?;
        writer.write_all(PLACEHOLDER_START)?;
        match offer.and_then(|offer| offer.array) {
            None => write!(writer, "[{index}]}}"),
            Some(ArrayType { dtype, shape }) => {
                let shape = format!("{shape:?}").replace(' ', "");
                write!(writer, "[{index},\"{dtype}\",{shape}]}}")
            }
        }
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
        let names = self.check_raw(fragment.as_bytes())?;
        self.encoder.reserved_name |= !names.is_empty();
        let mut written = 0;
        if self.encoder.escapes {
            for name in names {
                writer.write_all(&fragment.as_bytes()[written..name])?;
                writer.write_all(ESCAPED_NUL)?;
                written = name;
            }
        }
        CompactFormatter.write_raw_fragment(writer, &fragment[written..])
    }
}

impl Ruled<'_> {
    /// Looks for what the rules forbid in text that is valid JSON otherwise. Returns where names of members begin that
    /// must be told from placeholders.
    fn check_raw(&mut self, text: &[u8]) -> io::Result<Vec<usize>> {
        let mut names = Vec::new();
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
                    if text[start + 1..].starts_with(ESCAPED_NUL)
                        && text[at..].trim_ascii_start().starts_with(b":")
                    {
                        names.push(start + 1);
                    }
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
        Ok(names)
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
pub(crate) fn place(text: &[u8], root: &str) -> String {
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
