//! Bytes that live as long as the tree that borrows them, and are added while it does.

use std::cell::{Cell, OnceCell};

/// A list of buffers; all are freed together.
#[derive(Debug, Default)]
pub(super) struct Arena {
    first: OnceCell<Box<Link>>,
    bytes: Cell<usize>,
}

#[derive(Debug)]
struct Link {
    bytes: Vec<u8>,
    next: OnceCell<Box<Link>>,
}

/// The end of an arena, where a buffer can be added.
#[derive(Debug)]
pub(super) struct End<'a> {
    arena: &'a Arena,
    at: &'a OnceCell<Box<Link>>,
}

impl Arena {
    /// Returns the end of an empty arena.
    pub(super) fn end(&self) -> End<'_> {
        End { arena: self, at: &self.first }
    }

    /// Returns the number of bytes in it.
    pub(super) fn len(&self) -> usize {
        self.bytes.get()
    }
}

impl<'a> End<'a> {
    /// Adds a buffer.
    pub(super) fn push(&mut self, bytes: Vec<u8>) -> &'a [u8] {
        self.arena.bytes.set(self.arena.bytes.get().saturating_add(bytes.capacity()));
        let link = self.at.get_or_init(|| Box::new(Link { bytes, next: OnceCell::new() }));
        self.at = &link.next;
        &link.bytes
    }
}

impl Drop for Arena {
    /// Frees the buffers one after the other: a list of any length would otherwise recurse.
    fn drop(&mut self) {
        let mut next = self.first.take();
        while let Some(mut link) = next {
            next = link.next.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_keeps_its_buffers_and_is_freed_without_recursion() {
        let arena = Arena::default();
        let mut end = arena.end();
        let all: Vec<&[u8]> = (0..300_000u32).map(|n| end.push(n.to_le_bytes().to_vec())).collect();
        assert!(all.iter().zip(0u32..).all(|(bytes, n)| **bytes == n.to_le_bytes()));
        assert_eq!(arena.len(), 1_200_000);
    }
}
