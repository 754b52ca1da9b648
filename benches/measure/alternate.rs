//! Floor and case in turns, so that both see the same machine.

use super::{Row, median};

/// How long and how often to alternate.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// The benchmark that the row belongs to.
    pub(crate) bench: &'static str,
    /// How many blocks of each; at least 20 for a figure to be quoted.
    pub(crate) blocks: usize,
    /// After how many blocks of its own each side is started anew: where the scheduler puts a child
    /// may stay for its life and moves a round trip several times over.
    pub(crate) fresh_every: usize,
}

/// Runs a few blocks of `floor`, then as many of `case`, the order swapped each time.
///
/// Only one side is alive at a time: beside another child of the same parent, the one that was started
/// first keeps the parent's core and the other must be woken on a second one, which makes the floor
/// against itself a ratio of 3.
///
/// `floor` and `case` start a side and return what runs one block of it and gives its figure; a side
/// is ended by dropping that. `value` and `floor` of the row are medians, `ratio` is the median of the
/// blocks' own ratios.
pub(crate) fn alternate<F, C>(
    name: &str,
    unit: &'static str,
    plan: Plan,
    mut floor: impl FnMut() -> F,
    mut case: impl FnMut() -> C,
) -> Row
where
    F: FnMut() -> f64,
    C: FnMut() -> f64,
{
    let (mut floors, mut values, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut floor_first = true;
    while ratios.len() < plan.blocks {
        let blocks = plan.fresh_every.min(plan.blocks - ratios.len());
        let (bases, found);
        if floor_first {
            bases = side(blocks, &mut floor);
            found = side(blocks, &mut case);
        } else {
            found = side(blocks, &mut case);
            bases = side(blocks, &mut floor);
        }
        floor_first = !floor_first;
        ratios.extend(found.iter().zip(&bases).map(|(value, base)| value / base));
        floors.extend(bases);
        values.extend(found);
    }
    Row::new(plan.bench, name, unit, median(&mut values), median(&mut floors), median(&mut ratios))
}

fn side<B: FnMut() -> f64>(blocks: usize, start: &mut impl FnMut() -> B) -> Vec<f64> {
    let mut block = start();
    (0..blocks).map(|_| block()).collect()
}
