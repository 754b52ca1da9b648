//! Calls: what is passed, who waits, who is refused, who is tried again, who may call.

mod arguments;
mod both_ways;
mod callers;
mod leaving;
mod messages;
mod queue;
mod retry;
mod send;
