//! The memory of a process, with its share of shared pages.

use serde::Serialize;

/// The memory of one process, from `/proc/PID/smaps_rollup`.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// let workers = pool.status().await?.workers;
/// let bytes: u64 = workers.iter().filter_map(|worker| worker.memory.as_ref()).map(|memory| memory.pss_bytes).sum();
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Memory {
    /// Proportional set size, in bytes: its own pages, and its share of pages that are shared with others. The sum over all
    /// processes is the memory that they take together.
    pub pss_bytes: u64,
    /// Pages that only this process has written to, in bytes: the memory that is free after its end.
    pub private_dirty_bytes: u64,
}

impl Memory {
    /// `None` when the process has ended, or the kernel does not tell (before Linux 4.14, or another user's process).
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
        };
        Some(Self { pss_bytes: bytes("Pss:")?, private_dirty_bytes: bytes("Private_Dirty:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollup_is_read() {
        let text = "55d0-7ffe ---p 00000000 00:00 0    [rollup]\nRss:  5736 kB\nPss:  1021 kB\nPss_Dirty: 7 kB\n\
            Private_Clean: 3 kB\nPrivate_Dirty:       12 kB\n";
        assert_eq!(
            Memory::parse(text),
            Some(Memory { pss_bytes: 1021 * 1024, private_dirty_bytes: 12 * 1024 })
        );
        assert_eq!(Memory::parse(""), None);
    }

    #[test]
    fn this_process_has_some() {
        assert!(Memory::of(std::process::id()).is_some_and(|memory| memory.pss_bytes > 0));
    }
}
