//! Calls: arguments, queue, refusals, retries and callers.

mod arguments;
mod both_ways;
mod callers;
mod leaving;
mod messages;
mod queue;
mod retry;
mod send;
