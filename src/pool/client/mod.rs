//! What callers have of a pool: the handles, and the messages that actors send.
//!
//! ```text
//!   Request ---encode---> Call ---attempt---> PendingCall ---> the broker's queue, or a lease's worker
//!   Pool, Lease and Session make requests; an actor sends a Call to the PoolActor itself.
//! ```
//!
//! Arguments are encoded and results decoded in the caller's task.

mod call;
mod host;
mod lease;
mod messages;
mod methods;
mod module;
mod pool;
mod progress;
mod request;
mod session;
mod stream;

pub use call::Call;
pub(crate) use host::HostBuilder;
pub use host::{HostCall, HostError, HostReply};
pub use lease::Lease;
pub use messages::{Checkout, EndSession, GetStatus, OpenStream};
pub use module::Module;
pub use pool::Pool;
pub use progress::Progress;
pub use request::{Callee, Request};
pub use session::Session;
pub use stream::CallStream;
