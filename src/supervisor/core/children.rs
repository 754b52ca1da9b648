//! The children of a supervisor: found by key in constant time, and walked in start order.

use std::{
    collections::BTreeMap,
    ops::{Index, Range},
};

use super::child::{Child, Key};

/// How many children share an allocation.
const CHUNK: usize = 64;

/// A child's place is in its key, so that only a walk in order needs the tree. Children lie next to each other, as
/// they are started and stopped, and go together: with a hundred thousand of them memory is what takes the time.
#[derive(Debug)]
pub(super) struct Children<T, C> {
    chunks: Vec<Chunk<T, C>>,
    /// How many places there are, in all chunks.
    made: u32,
    /// Places without a child.
    vacant: Vec<u32>,
    /// The place of each child, in start order.
    places: BTreeMap<u64, u32>,
    next: u64,
}

/// It takes no memory while it is empty.
#[derive(Debug)]
struct Chunk<T, C> {
    children: Vec<Option<Child<T, C>>>,
    count: usize,
}

impl<T, C> Children<T, C> {
    pub(super) fn new() -> Self {
        Self { chunks: Vec::new(), made: 0, vacant: Vec::new(), places: BTreeMap::new(), next: 0 }
    }

    /// Adds a child after all others.
    pub(super) fn insert(&mut self, child: impl FnOnce(Key) -> Child<T, C>) -> Key {
        let order = self.next;
        self.next += 1;
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.made += 1;
            self.made - 1
        });
        self.places.insert(order, place);
        let key = Key { order, place };
        let (number, index) = indices(place);
        if number == self.chunks.len() {
            self.chunks.push(Chunk { children: Vec::new(), count: 0 });
        }
        let chunk = &mut self.chunks[number];
        // A supervisor of few children needs no whole chunk.
        if chunk.count == 0 && number > 0 {
            chunk.children.reserve_exact(CHUNK);
        }
        if chunk.children.len() <= index {
            chunk.children.resize_with(index + 1, || None);
        }
        chunk.children[index] = Some(child(key));
        chunk.count += 1;
        key
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Child<T, C>> {
        let (number, index) = indices(key.place);
        let chunk = self.chunks.get_mut(number)?;
        let child = chunk.children.get_mut(index)?.take_if(|child| child.key == *key)?;
        chunk.count -= 1;
        if chunk.count == 0 {
            chunk.children = Vec::new();
        }
        self.places.remove(&key.order);
        self.vacant.push(key.place);
        Some(child)
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Child<T, C>> {
        let (number, index) = indices(key.place);
        self.chunks.get(number)?.children.get(index)?.as_ref().filter(|child| child.key == *key)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Child<T, C>> {
        let (number, index) = indices(key.place);
        self.chunks.get_mut(number)?.children.get_mut(index)?.as_mut().filter(|child| child.key == *key)
    }

    pub(super) fn contains_key(&self, key: &Key) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The first child, in start order, of these.
    pub(super) fn first_of(&self, range: &Range<u64>) -> Option<Key> {
        self.places.range(range.clone()).next().map(|(&order, &place)| Key { order, place })
    }

    /// The last child, in start order, of these.
    pub(super) fn last_of(&self, range: &Range<u64>) -> Option<Key> {
        self.places.range(range.clone()).next_back().map(|(&order, &place)| Key { order, place })
    }

    /// All children, in start order.
    pub(super) fn values(&self) -> impl Iterator<Item = &Child<T, C>> {
        self.places.iter().filter_map(|(&order, &place)| self.get(&Key { order, place }))
    }

    /// All children, in the order of their memory.
    pub(super) fn into_values(self) -> impl Iterator<Item = Child<T, C>> {
        self.chunks.into_iter().flat_map(|chunk| chunk.children).flatten()
    }
}

fn indices(place: u32) -> (usize, usize) {
    (place as usize / CHUNK, place as usize % CHUNK)
}

impl<T, C> Index<&Key> for Children<T, C> {
    type Output = Child<T, C>;

    /// # Panics
    /// Without such a child.
    fn index(&self, key: &Key) -> &Child<T, C> {
        self.get(key).expect("a key that was just looked up")
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{ChildOptions, Kind},
        *,
    };

    fn insert(children: &mut Children<usize, ()>, number: usize) -> Key {
        children.insert(|key| Child::new(key, ChildOptions::new("a", Kind::Worker), number))
    }

    fn numbers(children: &Children<usize, ()>) -> Vec<usize> {
        children.values().map(|child| child.payload).collect()
    }

    #[test]
    fn places_are_used_again_and_the_order_stays() {
        let mut children = Children::new();
        let keys: Vec<Key> = (0..200).map(|number| insert(&mut children, number)).collect();
        for key in &keys[..150] {
            assert!(children.remove(key).is_some());
        }
        assert!(children.remove(&keys[0]).is_none());
        let memory: Vec<_> = children.chunks.iter().map(|chunk| chunk.children.capacity()).collect();
        assert_eq!(memory, [0, 0, 64, 64]);
        let more: Vec<Key> = (200..300).map(|number| insert(&mut children, number)).collect();
        assert_eq!(children.made, 200, "no new place before the vacant ones are taken");
        assert_eq!(numbers(&children), (150..300).collect::<Vec<_>>());
        assert!(keys[..150].iter().all(|key| !children.contains_key(key)), "an old key finds no new child");
        assert_eq!(children[&more[7]].payload, 207);
        assert_eq!(children.first_of(&(0..u64::MAX)), Some(keys[150]));
        assert_eq!(children.last_of(&(0..more[3].order)), Some(more[2]));
        assert_eq!((children.len(), children.into_values().count()), (150, 150));
    }
}
