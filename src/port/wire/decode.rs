//! Values from the wire to Rust.
//!
//! A body without attachments is plain JSON. In one that has some, objects that stand for bytes are shown to the types that ask
//! for bytes as what they are, at any depth: serde_json does the reading, wrapped so that each object is looked at when its
//! first member's name is known.

mod name;

use std::fmt;

use serde::de::value::SeqDeserializer;
use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny,
    IntoDeserializer, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};

use name::Name;

use crate::error::{CallError, Direction};
use crate::port::memory::array::ARRAY_NEWTYPE;
use crate::port::memory::passthrough::{self, ArrayType, Offer};
use crate::port::wire::attachment::{Attachment, Body, PLACEHOLDER};
use crate::port::wire::value::{PLACEHOLDER_START, place, reason};

/// The name by which serde_json knows its `RawValue`.
const RAW_VALUE_NEWTYPE: &str = "$serde_json::private::RawValue";

/// A result that does not have the type asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub(crate) struct DecodeError {
    /// Such as `result["rows"][3]`.
    pub(crate) path: String,
    /// The value that was found, and what was expected.
    pub(crate) message: String,
}

impl From<DecodeError> for CallError {
    fn from(DecodeError { path, message }: DecodeError) -> Self {
        CallError::Decode { path, message, direction: Direction::Result, context: Box::default() }
    }
}

/// Decodes a call's result.
///
/// # Errors
/// [`DecodeError`] when it is not a `T`.
pub(crate) fn decode_result<T: DeserializeOwned>(body: &Body) -> Result<T, DecodeError> {
    let Body { json, attachments } = body;
    let decoded = if attachments.is_empty() {
        serde_json::from_slice(json)
    } else {
        let mut text = serde_json::Deserializer::from_slice(json);
        let decoded = T::deserialize(Reader { inner: &mut text, attachments });
        decoded.and_then(|value| text.end().map(|()| value))
    };
    decoded.map_err(|error| {
        let read = json.len().min(error.column()); // the worker writes one line
        let mut path = place(&json[..read], "result");
        if let Some(within) = path.find(r#"["\u0000"]"#).filter(|_| !attachments.is_empty()) {
            path.truncate(within);
        }
        let mut message = reason(&error);
        // serde_json itself does not know that it is none.
        if let Some(expected) = message.strip_prefix("invalid type: map")
            && [read.saturating_sub(1), read].iter().any(|at| json[*at..].starts_with(PLACEHOLDER_START))
            && !attachments.is_empty()
        {
            message = format!("invalid type: bytes{expected}");
        }
        DecodeError { path, message }
    })
}

/// The type that is asked for where an object stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Any,
    Bytes,
    Array,
    Sequence,
    /// Something that bytes are not.
    Other,
}

/// A deserializer that knows placeholders.
struct Reader<'a, D> {
    inner: D,
    attachments: &'a [Attachment],
}

impl<'a, D> Reader<'a, D> {
    fn seen<V>(visitor: V, attachments: &'a [Attachment], wanted: Wanted) -> Seen<'a, V> {
        Seen { visitor, attachments, wanted }
    }
}

macro_rules! as_they_are {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(visitor)
        }
    )*};
}

macro_rules! wrapped {
    ($($method:ident: $inner:ident $wanted:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$inner(Self::seen(visitor, self.attachments, Wanted::$wanted))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Reader<'_, D> {
    type Error = D::Error;

    as_they_are! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_unit
        deserialize_ignored_any
    }

    wrapped! {
        deserialize_any: deserialize_any Any,
        deserialize_bytes: deserialize_any Bytes,
        deserialize_byte_buf: deserialize_any Bytes,
        deserialize_seq: deserialize_any Sequence,
        deserialize_option: deserialize_option Any,
        deserialize_map: deserialize_any Other,
        deserialize_char: deserialize_any Other,
        deserialize_str: deserialize_any Other,
        deserialize_string: deserialize_any Other,
        deserialize_identifier: deserialize_any Other,
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        match name {
            ARRAY_NEWTYPE => self.inner.deserialize_any(Self::seen(visitor, self.attachments, Wanted::Array)),
            RAW_VALUE_NEWTYPE => Err(Error::custom("it came with bytes, which JSON text cannot hold")),
            _ => self
                .inner
                .deserialize_newtype_struct(name, Self::seen(visitor, self.attachments, Wanted::Any)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Self::seen(visitor, self.attachments, Wanted::Other))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_enum(name, variants, Self::seen(visitor, self.attachments, Wanted::Other))
    }
}

/// A seed whose value may hold placeholders.
struct Seed<'a, S> {
    seed: S,
    attachments: &'a [Attachment],
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.seed.deserialize(Reader { inner, attachments: self.attachments })
    }
}

/// A visitor that is shown placeholders as bytes.
struct Seen<'a, V> {
    visitor: V,
    attachments: &'a [Attachment],
    wanted: Wanted,
}

macro_rules! passed_on {
    ($($method:ident: $type:ty,)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.visitor.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Seen<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    passed_on! {
        visit_bool: bool,
        visit_i64: i64,
        visit_u64: u64,
        visit_f64: f64,
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Reader { inner, attachments: self.attachments })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Reader { inner, attachments: self.attachments })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_seq(Items { inner, attachments: self.attachments })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut inner: A) -> Result<V::Value, A::Error> {
        let first = inner.next_key::<Name<'de>>()?;
        if first.as_ref().is_some_and(|name| name.0 == PLACEHOLDER) {
            return self.visit_placeholder(inner);
        }
        self.visitor.visit_map(Members { inner, first: Some(first), attachments: self.attachments })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(Variants { inner, attachments: self.attachments })
    }
}

impl<V> Seen<'_, V> {
    /// Shows the bytes of a placeholder whose name has been read.
    fn visit_placeholder<'de, A: MapAccess<'de>>(self, mut inner: A) -> Result<V::Value, A::Error>
    where
        V: Visitor<'de>,
    {
        let Placeholder { index, array } = inner.next_value()?;
        if inner.next_key::<IgnoredAny>()?.is_some() {
            return Err(Error::custom("a placeholder has another member"));
        }
        let Some(attachment) = self.attachments.get(index) else {
            return Err(Error::custom(format_args!("there is no attachment {index}")));
        };
        let visitor = self.visitor;
        if self.wanted == Wanted::Other {
            return Err(Error::invalid_type(Unexpected::Other("bytes"), &visitor));
        }
        if let Some(array) = array.as_ref().filter(|array| array.dtype != "|u1")
            && self.wanted != Wanted::Array
        {
            return Err(Error::custom(format_args!(
                "is an array of {}: ask for a hatchery::Array",
                array.dtype
            )));
        }
        let buffer = attachment.buffer();
        if self.wanted == Wanted::Sequence {
            let mut list = SeqDeserializer::new(buffer.iter().copied());
            let value = visitor.visit_seq(&mut list)?;
            list.end()?;
            return Ok(value);
        }
        let offer = Offer { buffer: buffer.clone(), array };
        passthrough::with(offer, || visitor.visit_bytes(&buffer))
    }
}

/// The list of a placeholder.
struct Placeholder {
    index: usize,
    array: Option<ArrayType>,
}

impl<'de> Deserialize<'de> for Placeholder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Placeholder;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an attachment's number, for an array its dtype and shape too")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Placeholder, A::Error> {
                let index = list.next_element()?.ok_or_else(|| Error::invalid_length(0, &self))?;
                let Some(dtype) = list.next_element()? else {
                    return Ok(Placeholder { index, array: None });
                };
                let shape = list.next_element()?.ok_or_else(|| Error::invalid_length(2, &self))?;
                Ok(Placeholder { index, array: Some(ArrayType { dtype, shape }) })
            }
        }

        deserializer.deserialize_seq(List)
    }
}

/// The elements of a list.
struct Items<'a, A> {
    inner: A,
    attachments: &'a [Attachment],
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Items<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Seed { seed, attachments: self.attachments })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// The members of an object that is no placeholder.
struct Members<'a, 'de, A> {
    inner: A,
    /// The first name, which has been read already; `None` when there is none.
    first: Option<Option<Name<'de>>>,
    attachments: &'a [Attachment],
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<'_, 'de, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let name = match self.first.take() {
            Some(first) => first,
            None => self.inner.next_key()?,
        };
        match name {
            None => Ok(None),
            Some(Name(name)) if name == PLACEHOLDER => Err(Error::custom("a placeholder has another member")),
            Some(name) => seed.deserialize(name.unescaped().into_deserializer()).map(Some),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Seed { seed, attachments: self.attachments })
    }
}

/// An enum's variant, whose content may hold placeholders.
struct Variants<'a, A> {
    inner: A,
    attachments: &'a [Attachment],
}

impl<'de, 'a, A: EnumAccess<'de>> EnumAccess<'de> for Variants<'a, A> {
    type Error = A::Error;
    type Variant = Variants<'a, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, inner) = self.inner.variant_seed(seed)?;
        Ok((value, Variants { inner, attachments: self.attachments }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Variants<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Seed { seed, attachments: self.attachments })
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let seen = Seen { visitor, attachments: self.attachments, wanted: Wanted::Other };
        self.inner.tuple_variant(len, seen)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let seen = Seen { visitor, attachments: self.attachments, wanted: Wanted::Other };
        self.inner.struct_variant(fields, seen)
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
