//! The host's side of a zygote: a template process, and the workers that are forked of it. No actors here.
//!
//! ```text
//!   host                                       template: an ordinary cold process that only imports
//!    | fork, with its descriptors   ---------->  fork()  ----------->  worker: its own group, channel,
//!    |   forked, with a pidfd       <----------    |                    pipes and parent-death socket
//!    |                                             |                      |
//!    | its pidfd is readable; the group is killed  |      <------------  dies
//!    | reap                         ---------->  wait4()
//!    |   exited, with the status    <----------    |
//! ```
//!
//! The template reaps only when it is told to, so a worker's number stays its own until its group has been killed.
//! When the template is gone, its workers go on; init reaps them, or we do if they fall to us (PID 1 in a container, a
//! subreaper).

mod children;
mod control;
mod fork;
mod identity;
mod template;

pub(super) use children::{Children, Orphan, Reaper};
pub(crate) use fork::{ForkError, ForkOrder};
pub(super) use fork::{Ours, order};
pub(crate) use template::{Template, TemplateSpec};
