//! The start of a port: from a settings struct to a Python that has answered.

use std::ffi::OsString;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::error::WorkerStartError;
use crate::port::channel::{Channel, ChannelError, FrameReader, FrameWriter};
use crate::port::process::capture::Capture;
use crate::port::process::environment::Environment;
use crate::port::process::interpreter::Interpreter;
use crate::port::process::limits;
use crate::port::process::package;
use crate::port::process::records::Records;
use crate::port::process::spawn::{self, CommandLine, Process, Spawned};
use crate::port::process::stack_dump::Stacks;
use crate::port::process::start_marker::{StartMarker, StartedCalls};
use crate::port::wire::codec::Codec;
use crate::port::wire::frame::{DEFAULT_MAX_FRAME_BYTES, PROTOCOL};
use crate::port::wire::message::{
    CANCEL_SIGNAL, Hello, Ready, Reply, STACK_SIGNAL, TemplateHello, WorkerError,
};
use crate::port::write_buffer::Purpose;
use crate::port::zygote::{self, ForkError, ForkOrder, Ours};
use crate::timer::deadline;

/// How long a worker that closed its channel is given to end by itself, so that its own exit code is told.
pub(crate) const CLOSED_GRACE: Duration = Duration::from_secs(1);

/// How long Python may take to write its stack when its start has timed out.
const STACK_WAIT: Duration = Duration::from_millis(500);

/// What to start, and how.
#[derive(Clone)]
pub(crate) struct PortSpec {
    pub(crate) python: Option<PathBuf>,
    /// Put before the interpreter's command line. The first is an absolute path; empty for none.
    pub(crate) launcher: Vec<OsString>,
    pub(crate) env: Environment,
    pub(crate) current_dir: Option<PathBuf>,
    /// The number of workers, and whether they are forked, for errors that say how many descriptors a pool needs.
    pub(crate) workers: u32,
    pub(crate) zygote: bool,
    pub(crate) module: String,
    pub(crate) path: Vec<PathBuf>,
    /// Modules whose threads and open files in a template are nothing to tell.
    pub(crate) zygote_allow: Vec<String>,
    pub(crate) functions: Option<Vec<String>>,
    pub(crate) max_frame_bytes: u32,
    pub(crate) in_flight: u32,
    pub(crate) threads: u32,
    pub(crate) spawn_timeout: Duration,
    pub(crate) codec: Codec,
    pub(crate) host_functions: Vec<String>,
}

impl PortSpec {
    /// Whether a worker may get several calls at a time.
    pub(crate) fn needs_start_marker(&self) -> bool {
        self.in_flight > 1 || self.threads > 0
    }

    /// The error of a program that the system refused to start.
    pub(crate) fn spawn_failed(&self, program: &Path, error: io::Error) -> WorkerStartError {
        let hint = limits::hint(&error, self);
        WorkerStartError::Spawn { program: program.display().to_string(), source: Arc::new(error), hint }
    }
}

impl fmt::Debug for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            python,
            launcher,
            env,
            current_dir,
            workers,
            zygote,
            module,
            path,
            zygote_allow,
            functions,
            max_frame_bytes,
            in_flight,
            threads,
            spawn_timeout,
            codec,
            host_functions,
        } = self;
        f.debug_struct("PortSpec")
            .field("python", python)
            .field("launcher", launcher)
            .field("env", env)
            .field("current_dir", current_dir)
            .field("workers", workers)
            .field("zygote", zygote)
            .field("module", module)
            .field("path", path)
            .field("zygote_allow", zygote_allow)
            .field("functions", functions)
            .field("max_frame_bytes", max_frame_bytes)
            .field("in_flight", in_flight)
            .field("threads", threads)
            .field("spawn_timeout", spawn_timeout)
            .field("codec", codec)
            .field("host_functions", host_functions)
            .finish()
    }
}

impl Default for PortSpec {
    fn default() -> Self {
        Self {
            python: None,
            launcher: Vec::new(),
            env: Environment::default(),
            current_dir: None,
            workers: 1,
            zygote: false,
            module: String::new(),
            path: Vec::new(),
            zygote_allow: Vec::new(),
            functions: None,
            max_frame_bytes: DEFAULT_MAX_FRAME_BYTES,
            in_flight: 1,
            threads: 0,
            spawn_timeout: Duration::from_secs(30),
            codec: Codec::Auto,
            host_functions: Vec::new(),
        }
    }
}

/// A Python that is ready, and all that connects us with it. Dropping it kills the process's whole group.
pub(crate) struct Port {
    pub(crate) process: Process,
    pub(crate) reader: FrameReader,
    /// Until it is [taken](Self::take_writer).
    writer: Option<FrameWriter>,
    pub(crate) stacks: Stacks,
    begun: Option<StartMarker>,
    capture: Option<Capture>,
    /// Where all that it says is logged.
    pub(crate) records: Arc<Records>,
    pub(crate) ready: Ready,
    /// It was forked of a template.
    pub(crate) forked: bool,
}

impl Port {
    /// The writer of frames.
    ///
    /// # Panics
    /// At the second time.
    pub(crate) fn take_writer(&mut self) -> FrameWriter {
        self.writer.take().expect("nobody has taken it yet")
    }

    /// Which of several calls have begun; `None` where only one is in the worker at a time.
    pub(crate) fn begun(&self) -> Option<StartedCalls> {
        self.begun.as_ref().map(StartMarker::read)
    }

    /// Reads the rest of the output of a process that has ended, and returns the last lines of its standard error.
    pub(crate) fn finish_capture(&mut self) -> impl Future<Output = String> + use<> {
        let capture = self.capture.take();
        async move {
            match capture {
                Some(mut capture) => {
                    capture.finish().await;
                    capture.stderr_tail()
                }
                None => String::new(),
            }
        }
    }

    /// Starts a Python and waits until it is ready, at most for the spawn timeout. Must be called on an arbiter.
    pub(crate) async fn start(spec: &PortSpec, worker: &str) -> Result<Self, WorkerStartError> {
        let (starting, ready) = Starting::start(spec, worker, None).await?;
        Ok(starting.into_port(ready, false))
    }

    /// Has a Python forked and waits until it is ready, at most for the spawn timeout. Must be called on an arbiter.
    /// `ask` sends the order to the owner of the template. `turn` is dropped when that has answered.
    pub(crate) async fn fork(
        spec: &PortSpec,
        worker: &str,
        turn: impl Sized,
        ask: impl FnOnce(ForkOrder),
    ) -> Result<Self, ForkError> {
        let order = zygote::order(worker, spec.needs_start_marker());
        let (order, ours) = order.map_err(|error| ForkError::Descriptors(limits::explained(error, spec)))?;
        ask(order);
        let Ours { socket, stdout, stderr, stacks, descriptors, begun, forked } = ours;
        // The owner of the template always answers.
        let process = forked.await.unwrap_or(Err(ForkError::NoTemplate))?;
        drop(turn);
        let starting = Starting {
            program: String::new(),
            process,
            channel: Channel::new(socket, descriptors, spec.max_frame_bytes),
            stacks: Stacks::new(stacks),
            begun,
            capture: Capture::start(worker, stdout, stderr),
        };
        // It has inherited the search path.
        let hello = Hello { path: Vec::new(), ..starting.hello(spec, worker) };
        let deadline = deadline(Instant::now(), spec.spawn_timeout);
        let started = starting.shake_hands(&hello, None, deadline, spec.spawn_timeout).await;
        let (starting, ready) = started.map_err(ForkError::Start)?;
        Ok(starting.into_port(ready, true))
    }
}

/// Python's number of the lowest level that is logged here.
fn python_level(level: log::LevelFilter) -> u32 {
    match level {
        log::LevelFilter::Off => 1000,
        log::LevelFilter::Error => 40,
        log::LevelFilter::Warn => 30,
        log::LevelFilter::Info => 20,
        log::LevelFilter::Debug => 10,
        log::LevelFilter::Trace => 1,
    }
}

/// A process that is not ready yet.
pub(crate) struct Starting {
    /// The program, for errors; empty for a forked worker.
    program: String,
    pub(crate) process: Process,
    pub(crate) channel: Channel,
    stacks: Stacks,
    begun: Option<StartMarker>,
    pub(crate) capture: Capture,
}

/// Why it will not be.
enum Failure {
    /// It said so.
    Told(WorkerError),
    Channel(ChannelError),
    Protocol(String),
    /// Python runs as another process than the one that was started.
    NotReplaced(u32),
    Ended,
}

impl Starting {
    fn spawn(spec: &PortSpec, worker: &str, interpreter: &Interpreter) -> Result<Self, WorkerStartError> {
        let python = [interpreter.program.clone().into(), "-c".into(), package::STUB.into(), worker.into()];
        let mut words = spec.launcher.iter().cloned().chain(python);
        let line = CommandLine {
            program: words.next().map(PathBuf::from).unwrap_or_default(),
            args: words.collect(),
            env: spec.env.clone(),
            current_dir: spec.current_dir.clone(),
        };
        let begun = spec.needs_start_marker().then(StartMarker::new).transpose();
        let spawned = begun.and_then(|begun| {
            let shared = begun.as_ref().map(|begun| begun.as_fd());
            let bootstrap = package::BOOTSTRAP.as_bytes();
            let first = [&(bootstrap.len() as u32).to_be_bytes(), bootstrap].concat();
            Ok((spawn::spawn(&line, &first, shared)?, begun))
        });
        let (spawned, begun) = spawned.map_err(|error| spec.spawn_failed(&line.program, error))?;
        let Spawned { process, socket, stdout, stderr, stacks, descriptors } = spawned;
        let channel = Channel::new(socket, descriptors, spec.max_frame_bytes);
        let capture = Capture::start(worker, stdout, stderr);
        let stacks = Stacks::new(stacks);
        let program = line.program.display().to_string();
        Ok(Self { program, process, channel, stacks, begun, capture })
    }

    /// Starts a Python and waits until it is ready: a template when it is told what to preload, else a worker.
    pub(crate) async fn start(
        spec: &PortSpec,
        name: &str,
        preload: Option<&[String]>,
    ) -> Result<(Self, Ready), WorkerStartError> {
        let after = spec.spawn_timeout;
        let deadline = deadline(Instant::now(), after);
        let interpreter = Interpreter::find(spec, deadline).await?;
        let starting = Self::spawn(spec, name, &interpreter)?;
        let template = preload
            .map(|preload| TemplateHello { preload: preload.to_vec(), allow: spec.zygote_allow.clone() });
        let hello = Hello { template, ..starting.hello(spec, name) };
        starting.shake_hands(&hello, Some(&interpreter), deadline, after).await
    }

    fn hello(&self, spec: &PortSpec, worker: &str) -> Hello {
        Hello {
            protocol: PROTOCOL,
            worker: worker.into(),
            module: spec.module.clone(),
            path: spec.path.iter().map(|folder| folder.as_path().into()).collect(),
            functions: spec.functions.clone(),
            max_frame_bytes: spec.max_frame_bytes,
            cancel_signal: CANCEL_SIGNAL,
            stack_signal: STACK_SIGNAL,
            in_flight: spec.in_flight,
            threads: spec.threads,
            codec: spec.codec,
            log_level: python_level(log::max_level()),
            host_functions: spec.host_functions.clone(),
            template: None,
        }
    }

    fn into_port(self, ready: Ready, forked: bool) -> Port {
        let Self { process, channel: Channel { reader, writer }, stacks, begun, capture, .. } = self;
        let records = capture.records().clone();
        let (writer, capture) = (Some(writer), Some(capture));
        Port { process, reader, writer, stacks, begun, capture, records, ready, forked }
    }

    /// Waits until Python is ready; ends it otherwise. `interpreter`: the one that compiled its package.
    async fn shake_hands(
        mut self,
        hello: &Hello,
        interpreter: Option<&Interpreter>,
        deadline: Instant,
        after: Duration,
    ) -> Result<(Self, Ready), WorkerStartError> {
        match tokio::time::timeout_at(deadline.into(), self.handshake(hello, interpreter)).await {
            Ok(Ok(ready)) => Ok((self, ready)),
            Ok(Err(failure)) => Err(self.failed(failure, interpreter).await),
            Err(_) => {
                let stack = self.stack().await;
                self.process.kill();
                self.process.ended().await;
                self.capture.finish().await;
                Err(WorkerStartError::TimedOut { after, stack, output: self.capture.output_tail() })
            }
        }
    }

    /// What Python is doing, where it says so in time. The signal ends a process that has not come as far as to
    /// take it.
    async fn stack(&mut self) -> Option<String> {
        self.process.signal(STACK_SIGNAL);
        let stack = tokio::time::timeout(STACK_WAIT, poll_fn(|cx| self.stacks.poll_start_stack(cx)));
        tokio::select! {
            stack = stack => stack.ok().filter(|stack| !stack.is_empty()),
            _ = self.process.ended() => None,
        }
    }

    async fn handshake(
        &mut self,
        hello: &Hello,
        interpreter: Option<&Interpreter>,
    ) -> Result<Ready, Failure> {
        if let Some(Interpreter { package, .. }) = interpreter {
            self.channel.writer.queue_raw(&(package.len() as u32).to_be_bytes());
            self.channel.writer.queue_raw(package);
        }
        self.channel.writer.send(&hello.to_frame(), Purpose::Other).map_err(Failure::Channel)?;
        let frame = poll_fn(|cx| {
            // Both may be there at once. The frame is handled first, since it says more.
            if let Poll::Ready(frame) = self.channel.reader.poll_frame(cx) {
                return Poll::Ready(frame.map_err(Failure::Channel));
            }
            if let Poll::Ready(Err(error)) = self.channel.writer.poll_flush(cx) {
                return Poll::Ready(Err(Failure::Channel(error)));
            }
            self.process.poll_ended(cx).map(|_| Err(Failure::Ended))
        })
        .await?;
        match Reply::from_frame(frame).map_err(|error| Failure::Protocol(error.to_string()))? {
            // A forked worker is no child of ours, and its pid comes from the template.
            Reply::Ready(ready) if interpreter.is_some() && ready.pid != self.process.pid() => {
                Err(Failure::NotReplaced(ready.pid))
            }
            Reply::Ready(ready) if ready.protocol == PROTOCOL => Ok(ready),
            Reply::Ready(ready) => {
                let detail = format!("the worker speaks version {}, not {PROTOCOL}", ready.protocol);
                Err(Failure::Protocol(detail))
            }
            Reply::Error { error, .. } => Err(Failure::Told(error)),
            _ => Err(Failure::Protocol("an answer before the worker was ready".into())),
        }
    }

    /// Ends the process, and returns the reason of the failure.
    async fn failed(mut self, failure: Failure, interpreter: Option<&Interpreter>) -> WorkerStartError {
        if matches!(
            failure,
            Failure::Protocol(_) | Failure::NotReplaced(_) | Failure::Channel(ChannelError::Frame(_))
        ) {
            self.process.kill();
        }
        let exit = match tokio::time::timeout(CLOSED_GRACE, self.process.ended()).await {
            Ok(exit) => exit,
            Err(_) => {
                self.process.kill();
                self.process.ended().await
            }
        };
        self.capture.finish().await;
        let output = self.capture.output_tail();
        match failure {
            Failure::Told(error) => error.into_start_error(output),
            Failure::Protocol(detail) => WorkerStartError::Protocol { detail, output },
            Failure::Channel(ChannelError::Frame(error)) => {
                WorkerStartError::Protocol { detail: error.to_string(), output }
            }
            Failure::NotReplaced(pid) => WorkerStartError::NotReplaced { program: self.program, pid },
            Failure::Channel(_) | Failure::Ended => {
                if exit.code == Some(package::EXIT_WRONG_PACKAGE)
                    && let Some(interpreter) = interpreter
                {
                    interpreter.forget();
                }
                WorkerStartError::Died { exit: exit.code, signal: exit.signal, output }
            }
        }
    }
}
