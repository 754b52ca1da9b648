//! Memory that is read where it is.

use std::time::Instant;

use bytes::Bytes;
use hatchery::{Array, Buffer, BufferMut};

use super::mapped::Mapped;
use super::served::{Served, us};
use crate::measure::median;

const PAGE_BYTES: usize = 4096;

/// Words that differ from page to page.
fn fill(bytes: &mut [u8], salt: u64) {
    for (number, word) in bytes.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(number as u64 + salt).to_ne_bytes());
    }
}

fn sum_of_pages(bytes: &[u8]) -> u64 {
    bytes
        .chunks_exact(PAGE_BYTES)
        .map(|page| page.first_chunk().map_or(0, |word| u64::from_ne_bytes(*word)))
        .sum()
}

/// What it must come to, without reading it.
fn expected(size: usize, salt: u64) -> u64 {
    (0..(size / PAGE_BYTES) as u64).map(|page| page * (PAGE_BYTES as u64 / 8) + salt).sum()
}

/// A new buffer, filled and sealed: neither process has its pages in its page tables.
fn sealed(size: usize, salt: u64) -> Buffer {
    let mut buffer = BufferMut::new(size);
    fill(&mut buffer, salt);
    buffer.freeze()
}

fn bytes(size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    fill(&mut bytes, 1);
    bytes.into()
}

/// The floor of a view of a [`Buffer`]: reading a word of each page here. The median of so many, in us.
pub(crate) fn view_in_place_us(size: usize, samples: usize) -> f64 {
    let mut times = Vec::with_capacity(samples);
    for salt in 0..samples as u64 {
        let buffer = sealed(size, salt);
        let start = Instant::now();
        let sum = sum_of_pages(&buffer);
        times.push(us(start));
        assert_eq!(sum, expected(size, salt), "other memory was read");
    }
    median(&mut times)
}

/// The floor of a view of ordinary bytes: a memfd made of them here, its mapping read in the same way.
pub(crate) fn view_of_copy_us(size: usize, samples: usize) -> f64 {
    let (bytes, expected) = (bytes(size), expected(size, 1));
    let mut times = Vec::with_capacity(samples);
    for _ in 0..samples {
        let start = Instant::now();
        let sum = sum_of_pages(Mapped::copy_of(&bytes).as_slice());
        times.push(us(start));
        assert_eq!(sum, expected, "other memory was read");
    }
    median(&mut times)
}

impl Served {
    /// The median time of so many calls that read a word of each page of a new buffer, as a numpy array, in us.
    pub(crate) fn view_us(&mut self, size: usize, samples: usize) -> f64 {
        self.run(async move |pool| {
            let mut times = Vec::with_capacity(samples);
            for salt in 0..samples as u64 {
                let array = Array::<u64>::from_buffer(sealed(size, salt), &[size / 8]).expect("it fits");
                let start = Instant::now();
                let sum: u64 = pool.call("sum_of_pages", (&array,)).await.expect("the call succeeds");
                times.push(us(start));
                assert_eq!(sum, expected(size, salt), "other memory was read");
            }
            median(&mut times)
        })
    }

    /// The same with ordinary bytes.
    pub(crate) fn view_of_bytes_us(&mut self, size: usize, samples: usize) -> f64 {
        self.run(async move |pool| {
            let (bytes, expected) = (bytes(size), expected(size, 1));
            let mut times = Vec::with_capacity(samples);
            for _ in 0..samples {
                let start = Instant::now();
                let sum: u64 =
                    pool.call("sum_of_pages_of_bytes", (&bytes,)).await.expect("the call succeeds");
                times.push(us(start));
                assert_eq!(sum, expected, "other memory was read");
            }
            median(&mut times)
        })
    }
}
