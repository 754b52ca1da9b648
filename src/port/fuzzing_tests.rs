//! The fuzz targets under proptest, which needs no toolchain of its own: golden frames that are cut, joined and
//! damaged, and bytes of no sense.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{frames, replies, stacks};
use crate::port::wire::golden;

#[test]
fn golden_frames_are_no_finding() {
    let manifest = golden::manifest();
    let names = manifest.frames.iter().map(|golden| &golden.name);
    for name in names.chain(manifest.refused.iter().map(|golden| &golden.name)) {
        for cuts in [0, 1, 2] {
            frames(&[&[11, cuts], &golden::bytes(name)[..]].concat());
        }
    }
}

/// Something that happens to bytes on the way from a good worker to a bad one.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
    End(Index),
}

impl Damage {
    fn to(self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let end = |at: usize, length: usize| bytes.len().min(at + length);
        match self {
            Damage::Set(at, byte) => *at.get_mut(bytes) = byte,
            Damage::Flip(at, bit) => *at.get_mut(bytes) ^= 1 << (bit % 8),
            Damage::Insert(at, new) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, new);
            }
            Damage::Remove(at, length) => {
                let at = at.index(bytes.len());
                bytes.drain(at..end(at, length));
            }
            Damage::Repeat(at, length) => {
                let at = at.index(bytes.len());
                bytes.extend_from_within(at..end(at, length));
            }
            Damage::End(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    // What lengths, counts and kinds are made of.
    let byte = prop_oneof![Just(0), Just(1), Just(255), 2..24u8, any::<u8>()];
    let damage = prop_oneof![
        (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (any::<Index>(), prop::collection::vec(byte, 1..6)).prop_map(|(at, new)| Damage::Insert(at, new)),
        (any::<Index>(), 1..40usize).prop_map(|(at, length)| Damage::Remove(at, length)),
        (any::<Index>(), 1..80usize).prop_map(|(at, length)| Damage::Repeat(at, length)),
        any::<Index>().prop_map(Damage::End),
    ];
    prop::collection::vec(damage, 0..4)
}

/// Golden bytes, damaged.
fn damaged(golden: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(select(golden), 1..4), damages()).prop_map(|(parts, damages)| {
        let mut bytes = parts.concat();
        damages.into_iter().for_each(|damage| damage.to(&mut bytes));
        bytes
    })
}

fn golden_frames() -> Vec<Vec<u8>> {
    golden::manifest().frames.iter().map(|golden| golden::bytes(&golden.name).to_vec()).collect()
}

fn golden_bodies() -> Vec<Vec<u8>> {
    golden::manifest().frames.into_iter().filter_map(|golden| golden.body.map(String::into_bytes)).collect()
}

fn golden_stacks() -> Vec<Vec<u8>> {
    [
        "Stack (most recent call first):\n",
        "  File \"/srv/app.py\", line 12 in nap\n",
        "  File \"/usr/lib/python3.11/selectors.py\", line 468 in select\n",
        "  File \"<hatchery>/_worker.py\", line 71 in serve\n",
        "  ...\n",
    ]
    .map(|line| line.as_bytes().to_vec())
    .to_vec()
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

proptest! {
    #[test]
    fn frames_properties(
        limit in any::<u8>(),
        cuts in any::<u8>(),
        stream in prop_oneof![8 => damaged(golden_frames()), 1 => noise()],
    ) {
        frames(&[&[limit, cuts], &stream[..]].concat());
    }

    #[test]
    fn replies_properties(kind in any::<u8>(), body in prop_oneof![8 => damaged(golden_bodies()), 1 => noise()]) {
        replies(&[&[kind], &body[..]].concat());
    }

    #[test]
    fn stacks_properties(written in prop_oneof![8 => damaged(golden_stacks()), 1 => noise()]) {
        stacks(&written);
    }
}
