//! Floor and case by the same processes.

use super::{Plan, Row, median};

/// Like [`alternate`](super::alternate) for a case whose floor is another use of the same pool: `start` starts one,
/// `floor` and `case` run a block on it. So both find the child on the same core, and only their difference is seen.
pub(crate) fn paired<S>(
    name: &str,
    unit: &'static str,
    plan: Plan,
    mut start: impl FnMut() -> S,
    mut floor: impl FnMut(&mut S) -> f64,
    mut case: impl FnMut(&mut S) -> f64,
) -> Row {
    let (mut floors, mut values, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut floor_first = true;
    while ratios.len() < plan.blocks {
        let mut sides = start();
        for _ in 0..plan.fresh_every.min(plan.blocks - ratios.len()) {
            let (base, value);
            if floor_first {
                base = floor(&mut sides);
                value = case(&mut sides);
            } else {
                value = case(&mut sides);
                base = floor(&mut sides);
            }
            floor_first = !floor_first;
            ratios.push(value / base);
            floors.push(base);
            values.push(value);
        }
    }
    Row::new(plan.bench, name, unit, median(&mut values), median(&mut floors), median(&mut ratios))
}
