//! The names of an object's members.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use crate::port::wire::attachment::PLACEHOLDER;

/// A member's name; where numbers are asked for, the number that it is.
pub(crate) struct Name<'de>(pub(crate) Cow<'de, str>);

impl Name<'_> {
    /// Without the prefix that tells it from a placeholder.
    pub(crate) fn unescaped(self) -> Self {
        if !self.0.starts_with(PLACEHOLDER) {
            return self;
        }
        Self(match self.0 {
            Cow::Borrowed(name) => Cow::Borrowed(&name[PLACEHOLDER.len()..]),
            Cow::Owned(name) => Cow::Owned(name[PLACEHOLDER.len()..].to_owned()),
        })
    }
}

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

macro_rules! parsed {
    ($($method:ident: $visit:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
            match self.name.0.parse() {
                Ok(value) => visitor.$visit(value),
                Err(_) => visitor.visit_str(&self.name.0),
            }
        }
    )*};
}

/// Gives the name to a visitor, as serde_json does.
pub(crate) struct NameReader<'de, E> {
    name: Name<'de>,
    error: std::marker::PhantomData<E>,
}

impl<'de, E: Error> IntoDeserializer<'de, E> for Name<'de> {
    type Deserializer = NameReader<'de, E>;

    fn into_deserializer(self) -> NameReader<'de, E> {
        NameReader { name: self, error: std::marker::PhantomData }
    }
}

impl<'de, E: Error> Deserializer<'de> for NameReader<'de, E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.name.0 {
            Cow::Borrowed(name) => visitor.visit_borrowed_str(name),
            Cow::Owned(name) => visitor.visit_string(name),
        }
    }

    parsed! {
        deserialize_bool: visit_bool,
        deserialize_i8: visit_i8,
        deserialize_i16: visit_i16,
        deserialize_i32: visit_i32,
        deserialize_i64: visit_i64,
        deserialize_i128: visit_i128,
        deserialize_u8: visit_u8,
        deserialize_u16: visit_u16,
        deserialize_u32: visit_u32,
        deserialize_u64: visit_u64,
        deserialize_u128: visit_u128,
        deserialize_f32: visit_f32,
        deserialize_f64: visit_f64,
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, E> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, E> {
        let deserializer: serde::de::value::CowStrDeserializer<'_, E> = self.name.0.into_deserializer();
        deserializer.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_bytes(self.name.0.as_bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_bytes(self.name.0.as_bytes())
    }

    forward_to_deserialize_any! {
        char str string unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
