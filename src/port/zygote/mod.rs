//! All that only a forked worker needs: the actor that owns the template, the template process, and the forks.
//!
//! ```text
//!   a worker's factory -- start --> Spawner -- is there a template? -- no --> a cold start
//!                                      |                yes
//!                                      |                 v
//!                                      '-- order --> Zygote (actor) --> Template --> worker
//!
//!   host                                       template: an ordinary cold process that only imports
//!    | fork, with its descriptors   ---------->  fork()  ----------->  worker: its own group, channel,
//!    |   forked, with a pidfd       <----------    |                    pipes and parent-death socket
//!    |                                             |                      |
//!    | its pidfd is readable; the group is killed  |      <------------  dies
//!    | reap                         ---------->  wait4()
//!    |   exited, with the status    <----------    |
//! ```
//!
//! A worker does not know how its process came to be, and the end of the zygote ends no worker. The template reaps a worker only
//! when the host says so; until then the worker's number cannot be used again. When the template is gone, init reaps its workers,
//! or the host does if they fall to it (PID 1 in a container, a subreaper).

mod actor;
mod children;
mod control;
mod fork;
mod identity;
mod spawner;
mod state;
mod template;
mod trial;

pub(crate) use children::{Children, Orphan, Reaper};
pub(crate) use fork::{ForkError, ForkOrder, Ours, order};
pub(crate) use spawner::Spawner;
pub use state::{ZygoteState, ZygoteStatus};
pub(crate) use trial::Trial;
