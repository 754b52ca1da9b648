//! Processes as /proc shows them. A process in state Z counts as dead, because PID 1 may reap late.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Pid, Signal, kill_process};

struct Stat {
    state: char,
    parent: u32,
    group: u32,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last parenthesis may contain any character.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some(Stat { state, parent: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
}

fn all() -> impl Iterator<Item = u32> {
    numbered("/proc".to_owned())
}

fn numbered(folder: String) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The state as in ps: R, S, D, T or Z. `None` when the process does not exist.
pub(crate) fn state(pid: u32) -> Option<char> {
    stat(pid).map(|stat| stat.state)
}

/// Whether the process is alive. A zombie is not.
pub(crate) fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The process group of a process.
pub(crate) fn pgid(pid: u32) -> Option<u32> {
    stat(pid).map(|stat| stat.group)
}

/// All live descendants of a process. Children of a zombie belong to the subreaper or init.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in all() {
        if let Some(stat) = stat(pid)
            && !matches!(stat.state, 'Z' | 'X')
        {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let (mut found, mut next) = (Vec::new(), vec![root]);
    while let Some(pid) = next.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        found.extend(&below);
        next.extend(below);
    }
    found
}

/// The number of zombies that a process has not reaped.
pub(crate) fn zombies(parent: u32) -> usize {
    all().filter_map(stat).filter(|stat| stat.state == 'Z' && stat.parent == parent).count()
}

/// All live processes of the machine whose environment has the mark of a test run.
pub(crate) fn marked(mark: &str) -> Vec<u32> {
    let entry = format!("{}={mark}", super::inside::MARK);
    let carries = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == entry.as_bytes())
    };
    all().filter(carries).filter(|&pid| is_alive(pid)).collect()
}

/// The open file descriptors of a process with their targets.
pub(crate) fn fds(pid: u32) -> BTreeMap<u32, String> {
    let target = |fd: u32| fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok();
    // The descriptor that listed the folder is closed by now and has no target.
    let open: Vec<u32> = numbered(format!("/proc/{pid}/fd")).collect();
    open.into_iter().filter_map(|fd| Some((fd, target(fd)?.display().to_string()))).collect()
}

/// The threads of a process and their names.
pub(crate) fn threads(pid: u32) -> BTreeMap<u32, String> {
    let name = |tid: u32| fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).ok();
    let ids = numbered(format!("/proc/{pid}/task"));
    ids.filter_map(|tid| Some((tid, name(tid)?.trim_end().to_owned()))).collect()
}

/// The resident memory of a process in bytes.
pub(crate) fn rss_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// A process in words: pid, parent, state and command line.
pub(crate) fn describe(pid: u32) -> String {
    let Some(stat) = stat(pid) else { return format!("{pid} (ended)") };
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let short: String = line.trim_end().chars().take(200).collect();
    format!("{pid} (state {}, parent {}, group {}): {short}", stat.state, stat.parent, stat.group)
}

/// SIGKILL. A process that has ended is no error.
pub(crate) fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// SIGTERM. A process that has ended is no error.
pub(crate) fn terminate(pid: u32) {
    signal(pid, Signal::TERM);
}

/// SIGSTOP. A process that has ended is no error.
pub(crate) fn stop(pid: u32) {
    signal(pid, Signal::STOP);
}

/// SIGCONT. A process that has ended is no error.
pub(crate) fn cont(pid: u32) {
    signal(pid, Signal::CONT);
}

fn signal(pid: u32, signal: Signal) {
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    match kill_process(id, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("no signal to {pid}: {error}"),
    }
}
