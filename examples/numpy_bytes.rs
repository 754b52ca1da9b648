//! A picture of 16 MB is made in Rust and looked at by numpy, in place: only a file descriptor travels.
//!
//! ```sh
//! cargo run --release --example numpy_bytes
//! ```
//!
//! Needs numpy, in the Python that `python3` (or the active virtual environment) is. `examples/python/images.py` is the
//! module. The last line is JSON, for scripts.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hatchery::{Array, BufferMut, Pool, PoolStartError, WorkerStartError};
use serde::Deserialize;

const WIDTH: usize = 4096;
const HEIGHT: usize = 4096;

#[derive(Deserialize)]
struct Brightness {
    mean: f64,
    /// How many pixels have each of 16 levels.
    levels: Array<i64>,
}

#[derive(Deserialize)]
struct Stripe {
    number: usize,
    rows: Array<u8>,
}

#[actix::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    env_logger::init();
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python");
    let pool = match Pool::builder().module("images").path(python).size(1).start().await {
        Ok(pool) => pool,
        Err(error) if lacks_numpy(&error) => {
            eprintln!("This example needs numpy, and python3 has none. For example:");
            eprintln!(
                "  python3 -m venv venv && venv/bin/pip install numpy && VIRTUAL_ENV=venv cargo run --example numpy_bytes"
            );
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    };

    // Written where it is sent from: a grey ramp from left to right.
    let mut pixels = BufferMut::new(WIDTH * HEIGHT);
    for row in pixels.chunks_exact_mut(WIDTH) {
        row.iter_mut().enumerate().for_each(|(x, pixel)| *pixel = (x * 256 / WIDTH) as u8);
    }
    let picture = Array::<u8>::from_buffer(pixels.freeze(), &[HEIGHT, WIDTH])?;

    let began = Instant::now();
    let seen: Brightness = pool.call("brightness", (&picture,)).await?;
    println!(
        "mean {:.1}, each level {} times, in {:?}",
        seen.mean,
        seen.levels.as_slice()[0],
        began.elapsed()
    );

    let mut small = picture.clone();
    while small.shape()[0] > 512 {
        small = pool.call("halved", (&small,)).await?;
        println!("halved to {:?}", small.shape());
    }

    let mut stripes = pool.stream::<Stripe>("stripes", (&picture, 4)).await?;
    let mut rows = 0;
    while let Some(stripe) = stripes.next().await {
        let stripe = stripe?;
        rows += stripe.rows.shape()[0];
        println!("stripe {} has {} rows, {} bytes", stripe.number, stripe.rows.shape()[0], stripe.rows.len());
    }

    // The same picture again and again: nothing of it is copied.
    let mut fastest = Duration::MAX;
    for _ in 0..10 {
        let began = Instant::now();
        let _: Brightness = pool.call("brightness", (&picture,)).await?;
        fastest = fastest.min(began.elapsed());
    }
    println!("brightness of 16 MB at best in {fastest:?}");
    pool.shutdown().await;
    println!(r#"{{"mean":{},"small":{:?},"rows":{rows}}}"#, seen.mean, small.shape());
    Ok(ExitCode::SUCCESS)
}

/// Whether the module could not be imported because there is no numpy.
fn lacks_numpy(error: &PoolStartError) -> bool {
    matches!(
        error.worker_error(),
        Some(WorkerStartError::Python { type_name, message, .. })
            if type_name == "ModuleNotFoundError" && message.contains("numpy")
    )
}
