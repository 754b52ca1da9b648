//! The workers as children of their supervisor: ids, and what is left of them when the broker was restarted.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::WorkerStartError;
use crate::supervisor::{Cause, ChildInfo, ChildState, SupervisorRef};

/// A worker's id in the tree: slots are counted from 1, and a reload's replacements of it follow a dot.
pub(super) fn child_id(slot: u32, generation: u32) -> String {
    let number = slot + 1;
    if generation == 0 { number.to_string() } else { format!("{number}.{generation}") }
}

/// The slot and the generation of a worker.
pub(super) fn slot_of(id: &str) -> Option<(u32, u32)> {
    let (number, generation) = id.split_once('.').unwrap_or((id, "0"));
    Some((number.parse::<u32>().ok()?.checked_sub(1)?, generation.parse().ok()?))
}

/// Why a worker's factory failed.
pub(super) fn start_error(cause: &Cause) -> Arc<WorkerStartError> {
    match cause.downcast_ref::<Arc<WorkerStartError>>() {
        Some(cause) => cause.clone(),
        None => Arc::new(WorkerStartError::Ended { reason: cause.to_string() }),
    }
}

/// The generation of each slot's worker. Of several, which a reload that was cut short has left, the newest that runs is
/// the slot's; the others are ended.
pub(super) fn existing(workers: &SupervisorRef, children: &[ChildInfo]) -> BTreeMap<u32, u32> {
    let mut ranks = BTreeMap::new();
    for child in children {
        if let Some((slot, generation)) = slot_of(&child.options.id) {
            let rank = (child.state == ChildState::Running, generation);
            ranks.entry(slot).and_modify(|known| *known = rank.max(*known)).or_insert(rank);
        }
    }
    let is_left = |child: &&ChildInfo| {
        slot_of(&child.options.id).is_some_and(|(slot, generation)| ranks[&slot].1 != generation)
    };
    for left in children.iter().filter(is_left) {
        let (workers, id) = (workers.clone(), left.options.id.clone());
        actix_rt::spawn(async move { workers.terminate_child(&id).await });
    }
    ranks.into_iter().map(|(slot, (_, generation))| (slot, generation)).collect()
}
