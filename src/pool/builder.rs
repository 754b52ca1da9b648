//! The settings of a pool, and its start.

mod settings;
mod start;

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use actix::Recipient;
use serde::Serialize;

use super::broker::Declaration;
use super::client::{HostBuilder, HostCall, Module, Pool};
use crate::port::{Codec, PortSpec};
use crate::supervisor::Backoff;

pub use start::PoolStartError;

/// A pool to be started, from [`Pool::builder`](crate::Pool::builder).
///
/// Only [`module`](PoolBuilder::module) must be set. Settings are checked by [`start`](PoolBuilder::start), which refuses one
/// that is out of its range with [`PoolStartError::Config`](crate::PoolStartError::Config). All durations but
/// [`cancel_grace`](PoolBuilder::cancel_grace) must be more than zero.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::Pool;
/// use std::time::Duration;
///
/// let pool = Pool::builder()
///     .module("textstats")
///     .path("python")
///     .size(4)
///     .call_timeout(Duration::from_secs(10))
///     .start()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a pool does nothing until it is started"]
pub struct PoolBuilder {
    name: Option<String>,
    module: Option<String>,
    port: PortSpec,
    size: usize,
    in_flight: usize,
    threads: usize,
    min_ready: Option<usize>,
    queue_bound: usize,
    queue_bytes: u64,
    checkout_timeout: Duration,
    call_timeout: Duration,
    shutdown_timeout: Duration,
    backoff: Backoff,
    cancel_grace: Duration,
    hook_timeout: Duration,
    session_ttl: Duration,
    max_sessions: usize,
    on_current_arbiter: bool,
    zygote: bool,
    preload: Vec<String>,
    host: HostBuilder,
    declared: Vec<Declaration>,
}

impl Pool {
    /// A pool to be configured and started.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }
}

impl PoolBuilder {
    fn new() -> Self {
        Self {
            name: None,
            module: None,
            port: PortSpec::default(),
            size: std::thread::available_parallelism().map_or(1, usize::from),
            in_flight: 1,
            threads: 0,
            min_ready: None,
            queue_bound: 1000,
            queue_bytes: 256 << 20,
            checkout_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(5),
            backoff: Backoff { max_once_up: Duration::from_secs(1), ..Backoff::default() },
            cancel_grace: Duration::from_secs(2),
            hook_timeout: Duration::from_secs(5),
            session_ttl: Duration::from_secs(3600),
            max_sessions: 10_000,
            on_current_arbiter: false,
            zygote: false,
            preload: Vec::new(),
            host: HostBuilder::default(),
            declared: Vec::new(),
        }
    }

    /// The Python module whose functions are called: any importable module, `package.module` too. Its `__all__`,
    /// or else its functions without a leading underscore, can be called; it needs no import of hatchery. It cannot be
    /// named `hatchery` itself, which is the package that the workers run.
    pub fn module(mut self, module: impl Into<String>) -> Self {
        self.module = Some(module.into());
        self
    }

    /// A directory, or a zip archive, to look for modules in before all others; may be given several times, the first is
    /// looked in first. A relative one is relative to the worker's current directory. The start fails when it does not
    /// exist ([`WorkerStartError::Python`](crate::WorkerStartError)). It need not be UTF-8.
    pub fn path(mut self, directory: impl Into<PathBuf>) -> Self {
        self.port.path.push(directory.into());
        self
    }

    /// Only these functions can be called. The start fails when one of them is missing. Default: all.
    pub fn functions<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.port.functions = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// The pool's name, in the log and the status. Not empty, without `/` and control characters. Default: the module's.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The interpreter: a path, or a name to be found on `PATH`. Default: the active virtual environment's
    /// (`VIRTUAL_ENV`), else `python3` on `PATH`.
    ///
    /// A wrapper script is kept: each worker starts through it, so it must end with `exec`. A program in a directory
    /// named `shims` (pyenv, asdf, mise) is asked once for the interpreter that it chooses, which the workers then are.
    pub fn python(mut self, interpreter: impl Into<PathBuf>) -> Self {
        self.port.python = Some(interpreter.into());
        self
    }

    /// A command line that starts each worker: `.launcher(["prlimit", "--as=2000000000", "setpriv", "--no-new-privs"])` runs
    /// `prlimit --as=2000000000 setpriv --no-new-privs PYTHON …`. Default: none.
    ///
    /// The first word is a path, or a name to be found on this process's `PATH`. Each launcher must become the program
    /// that follows it, as `prlimit`, `setpriv`, `nice`, `taskset`, `numactl` and `env` do; one that runs it as a child
    /// fails the start. With a [zygote](PoolBuilder::zygote) it starts the template, and forked workers inherit its
    /// limits and privileges. The interpreter is asked for its version without it.
    pub fn launcher<S: Into<OsString>>(mut self, command: impl IntoIterator<Item = S>) -> Self {
        self.port.launcher = command.into_iter().map(Into::into).collect();
        self
    }

    /// An environment variable for the workers, beside those of this process, of which it replaces one of the same name. The
    /// name holds neither `=` nor a zero byte, the value no zero byte.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.port.env.set(name.into(), value.into());
        self
    }

    /// Keeps a variable of this process's environment from the workers, or takes back an earlier
    /// [`env`](PoolBuilder::env).
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.port.env.remove(name.into());
        self
    }

    /// Keeps this process's whole environment from the workers, and takes back every earlier
    /// [`env`](PoolBuilder::env): workers have only the variables that are set after it. Python itself needs none; a shim
    /// of a version manager needs `PATH` and `HOME`.
    pub fn env_clear(mut self) -> Self {
        self.port.env.clear();
        self
    }

    /// The workers' current directory. The start fails when it does not exist. Default: this process's.
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.port.current_dir = Some(directory.into());
        self
    }

    /// How many workers. Default: the number of cores. At least 1, at most 1024; each takes seven file descriptors here,
    /// one more with several calls ([`in_flight`](PoolBuilder::in_flight)) or [`threads`](PoolBuilder::threads). A
    /// [zygote](PoolBuilder::zygote) takes a few as well, and up to sixty while workers start.
    pub fn size(mut self, workers: usize) -> Self {
        self.size = workers;
        self
    }

    /// How many calls a worker has at most at once, streams included. Default: 1. At least 1, at most 1024.
    ///
    /// More than one is for functions that wait for something else: `async def` functions of one worker run side by side
    /// on its event loop. Its synchronous functions still run one after the other, in the order in which they came;
    /// the next one is there already when one ends. With [`threads`](PoolBuilder::threads) they run side by side too.
    ///
    /// A call that fails or is cancelled does not disturb the others. A call that does not give up within the
    /// [`cancel_grace`](PoolBuilder::cancel_grace) costs its worker: the worker takes no more calls, its other calls
    /// get as long again to end, and then fail with [`WorkerDied`](crate::CallError::WorkerDied), whose `reason` says
    /// why. When a process dies by itself, all of its calls end at once.
    ///
    /// A call goes to the worker that has the fewest, among equals to the one used last. A
    /// [lease](crate::Lease) has its worker to itself, however many calls that could take. A waiting checkout
    /// is not overtaken: while it is first in the queue and no worker is idle, later requests wait too, until a worker has become
    /// idle or the checkout has timed out. In a pool with many leases, few calls are at once in one worker.
    pub fn in_flight(mut self, calls: usize) -> Self {
        self.in_flight = calls;
        self
    }

    /// How many threads of a worker run its synchronous functions, which may then run side by side: of use where they
    /// wait, or let go of the interpreter's lock. Only with [`in_flight`](PoolBuilder::in_flight) of more than 1. At most
    /// 1024. Default: 0, the worker's main thread runs them, one after the other.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// How many workers must be ready for the start to succeed, at most all; 0 returns at once, and calls wait for the first
    /// worker. Default: all.
    pub fn min_ready(mut self, workers: usize) -> Self {
        self.min_ready = Some(workers);
        self
    }

    /// How long a worker may take to become ready, its imports included, before it is killed. Default: 30 s.
    pub fn spawn_timeout(mut self, timeout: Duration) -> Self {
        self.port.spawn_timeout = timeout;
        self
    }

    /// How many requests may wait for a worker; one more is refused as overloaded. 0 lets none wait. Default: 1000.
    ///
    /// While the queue is full, by this bound or by [`queue_bytes`](PoolBuilder::queue_bytes), a call is refused before its
    /// arguments are encoded.
    pub fn queue_bound(mut self, requests: usize) -> Self {
        self.queue_bound = requests;
        self
    }

    /// How many bytes of encoded arguments may wait for a worker, at least 1. Once the waiting requests hold as many, the pool
    /// refuses further ones as overloaded. Default: 268435456 (256 MiB).
    ///
    /// The last request that the pool accepts may exceed the bound, and as many bytes again may be on their way to the queue.
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// How long a call or a checkout may wait for a worker. Default: 5 s.
    pub fn checkout_timeout(mut self, timeout: Duration) -> Self {
        self.checkout_timeout = timeout;
        self
    }

    /// How long a call may take, waiting included, unless it says otherwise. Default: 30 s.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// How long calls that run, and Python's own exit, may take at a shutdown before the worker is killed.
    /// Default: 5 s.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// When a worker that died, or could not start, is started again. Default: [`Backoff::default`] with a
    /// [`max_once_up`](Backoff::max_once_up) of 1 s.
    ///
    /// A worker that has answered a call is replaced at once, whenever it dies. One that dies before its first answer waits
    /// up to `max_once_up` after several such deaths in a row, and failed starts wait up to [`max`](Backoff::max), so that a
    /// broken module costs little. [`must_start`](Backoff::must_start) has no effect here; see
    /// [`min_ready`](PoolBuilder::min_ready).
    ///
    /// ```
    /// use hatchery::{Pool, supervisor::Backoff};
    /// use std::time::Duration;
    ///
    /// let backoff = Backoff { max: Duration::from_secs(5), max_once_up: Duration::from_secs(1), ..Backoff::default() };
    /// let pool = Pool::builder().module("shop").restart_backoff(backoff);
    /// ```
    pub fn restart_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// How long Python may take to give up a call that is cancelled, because its deadline passed or its caller went
    /// away, before the worker is killed and replaced. Default: 2 s.
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.cancel_grace = grace;
        self
    }

    /// How long the module's `@on_session_end` hooks may take for one session, before they are cancelled like a call.
    /// Default: 5 s. (`@on_start` hooks are bounded by the spawn timeout, `@on_stop` hooks by the shutdown timeout.)
    pub fn hook_timeout(mut self, timeout: Duration) -> Self {
        self.hook_timeout = timeout;
        self
    }

    /// How long a session lives that is not used. Default: 1 h.
    pub fn session_ttl(mut self, ttl: Duration) -> Self {
        self.session_ttl = ttl;
        self
    }

    /// How many sessions there may be; one more ends the one that has not been used for the longest time. Default:
    /// 10 000. At least 1.
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = sessions;
        self
    }

    /// The largest frame in either direction, in bytes: arguments or a result, encoded. Default: 64 MiB. At least
    /// 64 KiB, at most 4 GiB - 1.
    pub fn max_frame_bytes(mut self, bytes: u32) -> Self {
        self.port.max_frame_bytes = bytes;
        self
    }

    /// The JSON library of the workers. Default: [`Codec::Auto`].
    pub fn codec(mut self, codec: Codec) -> Self {
        self.port.codec = codec;
        self
    }

    /// Registers a function that Python may call: `hatchery.call_host("name", …)` calls `function` and waits for it. Its
    /// future runs on the pool's own thread, so it must not block: hand heavy work to other threads. An error or a panic
    /// arrives in Python as `hatchery.HostCallError`. When the call that waits is cancelled, the future is dropped. A
    /// second function of the same name replaces the first.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use hatchery::{CallError, HostCall, Pool};
    ///
    /// let pool = Pool::builder()
    ///     .module("shop")
    ///     .host_function("price", |call: HostCall| async move {
    ///         let (item,): (String,) = call.args()?;
    ///         Ok::<_, CallError>(if item == "pen" { 120 } else { 1500 })
    ///     })
    ///     .start()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn host_function<F, Fut, T, E>(mut self, name: impl Into<String>, function: F) -> Self
    where
        F: Fn(HostCall) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + 'static,
        T: Serialize + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        self.host.function(name.into(), function);
        self
    }

    /// Like [`host_function`](PoolBuilder::host_function), answered by an actor, wherever that runs.
    pub fn host_recipient(mut self, name: impl Into<String>, recipient: Recipient<HostCall>) -> Self {
        self.host.recipient(name.into(), recipient);
        self
    }

    /// How deep host calls may nest: Python calls the host, which calls Python through
    /// [`HostCall::pool`], which calls the host… One more is refused; 0 refuses all host calls. Default: 8.
    pub fn max_host_call_depth(mut self, depth: u32) -> Self {
        self.host.max_depth = depth;
        self
    }

    /// Refuses to start when the module's functions are not as declared: see [`module!`](crate::module). May be given
    /// several times.
    pub fn declares<M: Module>(mut self) -> Self {
        self.declared.extend_from_slice(M::FUNCTIONS);
        self
    }

    /// Puts the pool on the arbiter that [`start`](PoolBuilder::start) is called on, instead of a thread of its own:
    /// a call from there then needs no change of thread. Code that blocks the arbiter blocks the pool.
    pub fn on_current_arbiter(mut self) -> Self {
        self.on_current_arbiter = true;
        self
    }

    /// Forks the workers of one template process that has imported the module, in place of starting a Python for each:
    /// start and restart then take milliseconds, and the memory of what was imported is shared. The module must be safe
    /// to fork; [the guide](crate::guide::zygote) says which modules are. A worker that cannot be forked is started as without this. Default: off.
    pub fn zygote(mut self) -> Self {
        self.zygote = true;
        self
    }

    /// Tells nothing of the threads and files that this module leaves open in the [`zygote`](PoolBuilder::zygote)'s template,
    /// since it is known to stand a fork. May be given several times; each is the pool's module or one of
    /// [`preload`](PoolBuilder::preload), under whose name the warning came. What a hook of the pool's module leaves is
    /// the module's. Default: everything is told.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = hatchery::Pool::builder()
    ///     .module("shop")
    ///     .preload(["telemetry"])
    ///     .zygote_allow("telemetry") // its thread starts anew in each worker
    ///     .start()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn zygote_allow(mut self, module: impl Into<String>) -> Self {
        self.port.zygote_allow.push(module.into());
        self
    }

    /// Modules that the template imports before the pool's own, in this order; what threads or files each of them leaves
    /// open is told under its name. Turns the [`zygote`](PoolBuilder::zygote) on. The
    /// start fails when one of them cannot be imported. Default: none.
    pub fn preload<S: Into<String>>(mut self, modules: impl IntoIterator<Item = S>) -> Self {
        self.preload.extend(modules.into_iter().map(Into::into));
        self.zygote()
    }
}
