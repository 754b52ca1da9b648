//! Python functions with Rust signatures, checked when the pool starts.
//!
//! ```sh
//! cargo run --release --example typed
//! ```
//!
//! `hatchery::module!` declares functions of `examples/python/textstats.py`; each becomes a method. A second declaration is
//! wrong on purpose: its pool does not start, and says why.

use std::error::Error;

use hatchery::{Module, Pool, PoolBuilder};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Readability {
    flesch: f64,
    words_per_sentence: f64,
}

hatchery::module! {
    /// Statistics of texts.
    struct TextStats;

    /// How many words the text has.
    fn count_words(text: &str) -> u64;
    /// How hard it is to read.
    fn readability(text: &str) -> Readability;
}

hatchery::module! {
    /// Somebody took the parameter for a list of words.
    struct Mistaken;
    fn count_words(words: Vec<String>) -> u64;
}

fn textstats() -> PoolBuilder {
    Pool::builder().module("textstats").path(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python")).size(1)
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let text = "To be, or not to be. That is the question.";
    let pool = textstats().declares::<TextStats>().start().await?;
    let stats = TextStats::of(pool.clone());
    println!("{} words", stats.count_words(text).await?);
    let Readability { flesch, words_per_sentence } = stats.readability(text).await?;
    println!("{words_per_sentence} words a sentence, reading ease {flesch}");
    pool.shutdown().await;

    match textstats().declares::<Mistaken>().start().await {
        Ok(_) => println!("it started, which it should not"),
        Err(error) => println!("not started: {error:#}"),
    }
    Ok(())
}
