//! Numbers with a shape: numpy's arrays.

use std::fmt;
use std::marker::PhantomData;

use bytemuck::Pod;
use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{self, Serialize, Serializer};

use crate::port::memory::buffer::Buffer;
#[cfg(feature = "ndarray")]
use crate::port::memory::buffer::BufferMut;
use crate::port::memory::passthrough::{self, ArrayType, Offer};

/// The name by which our decoder knows that an array is asked for.
pub(crate) const ARRAY_NEWTYPE: &str = "$hatchery::Array";

/// The byte order of this machine, as numpy writes it.
const NATIVE: char = if cfg!(target_endian = "little") { '<' } else { '>' };

/// As many as any numpy takes.
const MOST_AXES: usize = 32;

/// Numbers with a shape, in C order; cheap to clone.
///
/// As an argument, or anywhere within one, it is a read-only `numpy.ndarray` in Python; where numpy cannot be imported, a
/// `memoryview` of the same format and shape. In a result it takes numpy's arrays, `array.array` and `memoryview`s of
/// this element type, in any byte order and any memory layout.
///
/// Large ones (1 MiB and more) are not copied on their way when they are made of a [`Buffer`] that was written in place, or
/// come from Python.
///
/// ```
/// use hatchery::Array;
///
/// let matrix = Array::from_vec(vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
/// assert_eq!(matrix.shape(), [2, 3]);
/// assert_eq!(matrix.as_slice()[4], 5.0);
/// # Ok::<(), hatchery::ShapeError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Array<T> {
    /// Aligned for `T`, in this machine's byte order, and as long as the shape says.
    buffer: Buffer,
    shape: Vec<usize>,
    element: PhantomData<T>,
}

/// A length, or the alignment of memory, does not fit the shape or element type asked for.
///
/// ```
/// use hatchery::Array;
///
/// let error = Array::from_vec(vec![1.0, 2.0, 3.0], &[2, 2]).unwrap_err();
/// assert_eq!(error.shape, [2, 2]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are no array of shape {shape:?} with elements of {element} bytes")]
pub struct ShapeError {
    /// How many bytes there are.
    pub bytes: usize,
    /// The shape asked for.
    pub shape: Vec<usize>,
    /// Bytes of one element.
    pub element: usize,
}

/// What an [`Array`] may hold: `f32`, `f64` and the integers of 8 to 64 bits.
///
/// ```
/// use hatchery::{Array, Element};
///
/// fn bytes<T: Element>(array: &Array<T>) -> usize {
///     size_of_val(array.as_slice())
/// }
///
/// assert_eq!(bytes(&Array::from(vec![1_u16, 2])), 4);
/// ```
pub trait Element: Pod + Send + Sync + private::Sealed {}

mod private {
    pub trait Sealed {
        /// numpy's name of it, without the byte order.
        const KIND: &'static str;
        fn swapped(self) -> Self;
    }
}

macro_rules! elements {
    ($($kind:literal $type:ident: $swapped:expr,)*) => {$(
        impl Element for $type {}
        impl private::Sealed for $type {
            const KIND: &'static str = $kind;
            fn swapped(self) -> Self {
                let swapped: fn($type) -> $type = $swapped;
                swapped(self)
            }
        }
    )*};
}

elements! {
    "f4" f32: |value| f32::from_bits(value.to_bits().swap_bytes()),
    "f8" f64: |value| f64::from_bits(value.to_bits().swap_bytes()),
    "i1" i8: i8::swap_bytes,
    "i2" i16: i16::swap_bytes,
    "i4" i32: i32::swap_bytes,
    "i8" i64: i64::swap_bytes,
    "u1" u8: u8::swap_bytes,
    "u2" u16: u16::swap_bytes,
    "u4" u32: u32::swap_bytes,
    "u8" u64: u64::swap_bytes,
}

impl<T: Element> Array<T> {
    /// Takes the numbers of a vector, without a copy. `&[]` is the shape of a single number.
    ///
    /// # Errors
    ///
    /// [`ShapeError`] when there are more or fewer of them than the shape says.
    pub fn from_vec(numbers: Vec<T>, shape: &[usize]) -> Result<Self, ShapeError> {
        check(size_of::<T>() * numbers.len(), shape, size_of::<T>())?;
        Ok(Self::of_vec(numbers, shape.to_vec()))
    }

    /// Takes memory that holds numbers in this machine's byte order and C order. Without a copy, unless the memory is
    /// not aligned, which that of [`BufferMut::new`] always is.
    ///
    /// # Errors
    ///
    /// [`ShapeError`] when it is longer or shorter than the shape says.
    pub fn from_buffer(buffer: impl Into<Buffer>, shape: &[usize]) -> Result<Self, ShapeError> {
        let buffer = buffer.into();
        check(buffer.len(), shape, size_of::<T>())?;
        Ok(Self::of_buffer(buffer, shape.to_vec()))
    }

    /// Their length fits.
    fn of_vec(numbers: Vec<T>, shape: Vec<usize>) -> Self {
        let buffer = Bytes::from_owner(Numbers(numbers)).into();
        Self { buffer, shape, element: PhantomData }
    }

    /// Its length fits.
    fn of_buffer(buffer: Buffer, shape: Vec<usize>) -> Self {
        if bytemuck::try_cast_slice::<u8, T>(&buffer).is_ok() {
            return Self { buffer, shape, element: PhantomData };
        }
        Self::of_vec(numbers(&buffer).collect(), shape)
    }

    /// The numbers, the last axis fastest.
    pub fn as_slice(&self) -> &[T] {
        bytemuck::cast_slice(&self.buffer)
    }

    /// How many there are along each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.buffer.len() / size_of::<T>()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The memory, without a copy.
    pub fn into_buffer(self) -> Buffer {
        self.buffer
    }

    /// A view for the `ndarray` crate.
    #[cfg(feature = "ndarray")]
    pub fn view(&self) -> ndarray::ArrayViewD<'_, T> {
        ndarray::ArrayViewD::from_shape(self.shape.clone(), self.as_slice())
            .expect("the length fits the shape")
    }

    /// Copies an array of the `ndarray` crate, of any layout. (The memory of one that is in standard layout and yours to
    /// give away is taken by [`from_vec`](Array::from_vec) without a copy.)
    #[cfg(feature = "ndarray")]
    pub fn from_ndarray<D: ndarray::Dimension>(array: ndarray::ArrayView<'_, T, D>) -> Self {
        let shape = array.shape().to_vec();
        let mut buffer = BufferMut::new(size_of::<T>() * array.len());
        for (to, from) in bytemuck::cast_slice_mut::<u8, T>(&mut buffer).iter_mut().zip(array) {
            *to = *from;
        }
        Self::of_buffer(buffer.freeze(), shape)
    }

    /// The memory of an array that came from Python.
    fn received<E: de::Error>(buffer: Buffer, array: ArrayType) -> Result<Self, E> {
        check(buffer.len(), &array.shape, size_of_kind(&array.dtype)).map_err(E::custom)?;
        let wanted = T::KIND;
        let mut letters = array.dtype.chars();
        let order = letters.next();
        let kind = letters.as_str();
        // Booleans are numbers here, as in Python.
        if kind != wanted && !(kind == "b1" && wanted == "u1") {
            return Err(E::custom(format_args!(
                "is an array of {}, not of {NATIVE}{wanted}: convert it there, with .astype(\"{wanted}\"), or ask for another type here",
                array.dtype,
            )));
        }
        if size_of::<T>() > 1 && matches!(order, Some('<' | '>')) && order != Some(NATIVE) {
            let numbers = numbers(&buffer).map(private::Sealed::swapped).collect();
            return Ok(Self::of_vec(numbers, array.shape));
        }
        Ok(Self::of_buffer(buffer, array.shape))
    }
}

/// The numbers in memory that may not be aligned.
fn numbers<T: Element>(bytes: &[u8]) -> impl Iterator<Item = T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

fn check(bytes: usize, shape: &[usize], element: usize) -> Result<(), ShapeError> {
    if bytes_of(shape, element) == Some(bytes) {
        return Ok(());
    }
    Err(ShapeError { bytes, shape: shape.to_vec(), element })
}

/// Bytes of one element of this dtype.
fn size_of_kind(dtype: &str) -> usize {
    dtype.get(2..).and_then(|size| size.parse().ok()).unwrap_or(0)
}

/// How much memory an array takes; `None` when there is no such amount, or would be none without its empty axes.
fn bytes_of(shape: &[usize], element: usize) -> Option<usize> {
    let axes = shape.iter().filter(|length| **length > 0);
    let bytes = axes.clone().try_fold(element, |bytes, length| bytes.checked_mul(*length))?;
    let is_empty = axes.count() < shape.len();
    (isize::try_from(bytes).is_ok()).then_some(if is_empty { 0 } else { bytes })
}

/// Makes [`Bytes`] of numbers.
struct Numbers<T>(Vec<T>);

impl<T: Element> AsRef<[u8]> for Numbers<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl<T: Element> From<Vec<T>> for Array<T> {
    /// With one axis.
    fn from(numbers: Vec<T>) -> Self {
        let shape = vec![numbers.len()];
        Self::of_vec(numbers, shape)
    }
}

impl<T> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array").field("shape", &self.shape).field("buffer", &self.buffer).finish()
    }
}

impl<T: Element> Serialize for Array<T> {
    /// An array with this crate's serializer; the bytes of it with any other.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let axes = self.shape.len();
        if axes > MOST_AXES {
            return Err(ser::Error::custom(format_args!(
                "an array of {axes} axes: Python takes {MOST_AXES} at most"
            )));
        }
        let order = if size_of::<T>() == 1 { '|' } else { NATIVE };
        let array = ArrayType { dtype: format!("{order}{}", T::KIND), shape: self.shape.clone() };
        let offer = Offer { buffer: self.buffer.clone(), array: Some(array) };
        passthrough::with(offer, || serializer.serialize_bytes(&self.buffer))
    }
}

impl<'de, T: Element> Deserialize<'de> for Array<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Taken<T>(PhantomData<T>);

        impl<'de, T: Element> Visitor<'de> for Taken<T> {
            type Value = Array<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of {NATIVE}{}, such as numpy's", T::KIND)
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Array<T>, D::Error> {
                inner.deserialize_bytes(self)
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Array<T>, E> {
                match passthrough::take(bytes) {
                    Some(Offer { buffer, array: Some(array) }) => Array::received(buffer, array),
                    // Bytes are an array of bytes.
                    Some(Offer { buffer, array: None }) if T::KIND == "u1" => {
                        let shape = vec![buffer.len()];
                        Ok(Array::of_buffer(buffer, shape))
                    }
                    _ => Err(E::invalid_type(de::Unexpected::Bytes(&[]), &self)),
                }
            }
        }

        deserializer.deserialize_newtype_struct(ARRAY_NEWTYPE, Taken(PhantomData))
    }
}

#[cfg(test)]
#[path = "array_tests.rs"]
mod tests;
