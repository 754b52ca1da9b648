//! Python calls the host while it serves a call: a closure, an actor, and back into the pool.
//!
//! ```sh
//! cargo run --release --example host_calls
//! ```
//!
//! The prices are a Rust actor's. `examples/python/orders.py` asks for them with `hatchery.call_host("price", item)`, one
//! after the other and all at once; an error of the host's is an exception in Python. `factorial` calls itself through
//! the host: each level waits in a worker of its own, and the depth is bounded.

use std::collections::HashMap;
use std::error::Error;

use actix::{Actor, Context, Handler};
use hatchery::{CallError, HostCall, HostError, HostReply, Pool};

/// Keeps the prices, and counts who asked.
struct Prices {
    cents: HashMap<&'static str, u64>,
    asked: u64,
}

impl Actor for Prices {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Context<Self>) {
        println!("the actor was asked {} times", self.asked);
    }
}

impl Handler<HostCall> for Prices {
    type Result = Result<HostReply, HostError>;

    fn handle(&mut self, call: HostCall, _: &mut Context<Self>) -> Self::Result {
        self.asked += 1;
        let (item,): (String,) = call.args().map_err(|error| HostError(error.to_string()))?;
        let cents = self.cents.get(&*item).ok_or_else(|| HostError(format!("we do not sell {item}")))?;
        HostReply::new(cents)
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let prices = Prices { cents: HashMap::from([("pen", 120), ("book", 1500)]), asked: 0 }.start();
    let pool = Pool::builder()
        .module("orders")
        .path(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python"))
        .size(4)
        .host_recipient("price", prices.recipient())
        .host_function("factorial", |call: HostCall| async move {
            let (n,): (u64,) = call.args()?;
            // Through the call's own pool: so the depth is known, and nothing keeps the pool alive.
            call.pool().call::<_, u64>("factorial", (n,)).await
        })
        .max_host_call_depth(3)
        .start()
        .await?;

    let total: u64 = pool.call("total", (["pen", "pen", "book"],)).await?;
    println!("two pens and a book: {total} cents");
    let total: u64 = pool.call("total_at_once", (["pen", "pen", "book"],)).await?;
    println!("asked for at once:   {total} cents");
    let invoice: String = pool.call("invoice", (["book", "spoon"],)).await?;
    println!("{invoice}");

    let product: u64 = pool.call("factorial", (4,)).await?;
    println!("4! = {product}, through three host calls");
    match pool.call::<_, u64>("factorial", (5,)).await {
        Err(CallError::HostCall { message, .. }) => println!("5!: {message}"),
        other => println!("5!: {other:?}"),
    }
    pool.shutdown().await;
    Ok(())
}
