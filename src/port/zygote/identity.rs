//! Whether a process is what its template says. The host signals, arms and reaps only what passes these checks: a
//! template that goes wrong could otherwise name any process, the host itself included.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

use super::children::Orphan;
use crate::port::process::pidfd;
use crate::port::received_fd::ReceivedFd;

/// Checks that a descriptor is the pidfd of the process `pid`, and that the template has forked this process: it is the
/// template's child, or holds the parent-death socket that the template got for it. The kernel gives the child another parent when
/// the template dies.
///
/// # Errors
/// What does not hold.
pub(super) fn check(
    pidfd: ReceivedFd,
    pid: Pid,
    template: Pid,
    parent_death: impl AsFd,
) -> Result<OwnedFd, String> {
    let number =
        pidfd::number(&pidfd).map_err(|error| format!("a worker's pidfd cannot be checked: {error}"))?;
    if number != Some(pid) {
        return Err(format!("the template's descriptor is not the pidfd of its worker {pid}"));
    }
    let is_forked = || pidfd::parent(&pidfd, pid) == Some(template) || holds(pid, parent_death);
    if pid == getpid() || pid == template || !is_forked() {
        return Err(format!("process {pid} is not a child of the template"));
    }
    Ok(pidfd.into_inner())
}

/// The process that a worker's end of a parent-death socket is armed for, if it is the template's child, or holds that end: after
/// the template's death its child may be ours.
pub(super) fn holder(pid: Pid, template: Pid, parent_death: impl AsFd) -> Option<Orphan> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let parent = pidfd::parent(&pidfd, pid)?;
    let is_ours = pid != getpid() && pid != template;
    let is_forked = parent == template || (parent == getpid() && holds(pid, parent_death));
    (is_ours && is_forked).then(|| Orphan::new(pid, Arc::new(pidfd)))
}

/// Whether a process has this socket open.
fn holds(pid: Pid, socket: impl AsFd) -> bool {
    let Ok(stat) = rustix::fs::fstat(socket) else { return false };
    let Ok(open) = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())) else { return false };
    let name = format!("socket:[{}]", stat.st_ino);
    open.flatten()
        .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == name.as_str()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::process::{Child, Command, Stdio};

    use super::*;

    struct Bystander(Child);

    impl Bystander {
        fn new() -> Self {
            Self(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("sleep is there"))
        }

        fn pid(&self) -> Pid {
            Pid::from_child(&self.0)
        }

        fn pidfd(&self) -> ReceivedFd {
            ReceivedFd::new(pidfd_open(self.pid(), PidfdFlags::empty()).expect("it lives"))
        }
    }

    impl Drop for Bystander {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn process_that_is_no_child_of_the_template_is_refused() {
        let (_ours, held) = UnixStream::pair().expect("a pair");
        let (worker, other) = (Bystander::new(), Bystander::new());
        // Their parent is this process: it stands for the template.
        assert!(check(worker.pidfd(), worker.pid(), getpid(), &held).is_ok());
        assert!(check(worker.pidfd(), other.pid(), getpid(), &held).is_err(), "another process's pidfd");
        assert!(check(worker.pidfd(), worker.pid(), other.pid(), &held).is_err(), "another parent");
        let own = || ReceivedFd::new(pidfd_open(getpid(), PidfdFlags::empty()).expect("it lives"));
        let parent = rustix::process::getppid().expect("it has one");
        assert!(check(own(), getpid(), parent, &held).is_err(), "the host itself");
        let file = ReceivedFd::new(std::fs::File::open("/proc/version").expect("Linux").into());
        assert!(check(file, worker.pid(), getpid(), &held).is_err(), "no pidfd");
    }

    #[test]
    fn owner_without_its_parent_death_socket_is_left_alone() {
        let (bystander, template) = (Bystander::new(), Bystander::new());
        let (_ours, held) = UnixStream::pair().expect("a pair");
        assert!(holder(bystander.pid(), template.pid(), &held).is_none());
        assert!(holder(getpid(), template.pid(), &held).is_none());
    }
}
