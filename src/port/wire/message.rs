//! What frames say: their typed bodies, JSON.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::budget::LOG_FRAME_BYTES;
use crate::error::{CallError, Direction, HostCallCause, StartPhase, WorkerStartError};

use crate::port::wire::attachment::{Attachment, Body};
use crate::port::wire::codec;
use crate::port::wire::frame::{Codec, Frame, FrameError, Kind};
use crate::text;

/// The host's first frame: what to become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// [`PROTOCOL`](crate::port::wire::frame::PROTOCOL).
    pub(crate) protocol: u32,
    /// The worker's name, such as `textstats-1`.
    pub(crate) worker: String,
    /// The module to import.
    pub(crate) module: String,
    /// Goes to the front of `sys.path`, in this order.
    pub(crate) path: Vec<Folder>,
    /// The only functions that can be called; `None`: all that the module exports.
    pub(crate) functions: Option<Vec<String>>,
    /// The limit of a frame's payload, for both sides.
    pub(crate) max_frame_bytes: u32,
    /// [`CANCEL_SIGNAL`].
    pub(crate) cancel_signal: i32,
    /// [`STACK_SIGNAL`].
    pub(crate) stack_signal: i32,
    /// How many calls it gets at most.
    pub(crate) in_flight: u32,
    /// How many threads run synchronous functions; 0: the main thread does.
    pub(crate) threads: u32,
    /// How the worker reads and writes JSON.
    pub(crate) codec: codec::Codec,
    /// Python's number of the lowest level that is logged.
    pub(crate) log_level: u32,
    /// The host functions that it may call.
    pub(crate) host_functions: Vec<String>,
    /// Be a template, of which workers are forked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) template: Option<TemplateHello>,
}

/// A folder's path; bytes where it is not UTF-8, which JSON cannot hold otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Folder {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<&Path> for Folder {
    fn from(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes(path.as_os_str().as_bytes().to_owned()),
        }
    }
}

/// What only a template is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TemplateHello {
    /// Imported before the module, in this order.
    pub(crate) preload: Vec<String>,
    /// Those of them, or the pool's own, of which nothing is told: threads and files that they leave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) allow: Vec<String>,
}

/// Tells a worker's main thread to look for a [`Cancel`](Kind::Cancel) frame. The numbers are told by hello, so that
/// two C libraries with different ideas of `SIGRTMIN` agree; both are real-time signals in all of them.
pub(crate) const CANCEL_SIGNAL: i32 = 44;

/// Makes a worker write its main thread's stack to the pipe for stacks.
pub(crate) const STACK_SIGNAL: i32 = 45;

impl Hello {
    /// The frame to send.
    pub(crate) fn to_frame(&self) -> Frame {
        let body = serde_json::to_vec(self).expect("strings and numbers are JSON");
        Frame::new(Kind::Hello, 0, Codec::Json, body.into())
    }
}

/// The worker's answer to hello, once the module is imported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) protocol: u32,
    pub(crate) pid: u32,
    /// Such as `3.11.7`.
    pub(crate) python: String,
    /// The functions that can be called.
    pub(crate) functions: Vec<Function>,
    /// Resident memory after the import; None where `/proc` does not tell.
    pub(crate) rss_bytes: Option<u64>,
    /// How long the import took, in milliseconds.
    pub(crate) import_ms: f64,
    /// Of a template: imported modules that may not survive a fork.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
    /// Of a template: why no worker can be forked of it, if so. It has imported nothing then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cannot_fork: Option<String>,
}

/// A function that may be called.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// for worker in pool.status().await?.workers {
///     for function in worker.python.iter().flat_map(|python| &python.functions) {
///         println!("{}{}", function.name, function.signature.as_deref().unwrap_or("(…)"));
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Function {
    /// Its name in the module.
    pub name: String,
    /// Such as `(text: str) -> int`; None when Python cannot tell, as for some functions in C.
    pub signature: Option<String>,
    /// None together with the signature.
    pub parameters: Option<Vec<Parameter>>,
    /// First line of the documentation.
    pub doc: Option<String>,
}

/// A function's parameter.
///
/// ```no_run
/// # async fn example(function: hatchery::Function) -> Result<(), Box<dyn std::error::Error>> {
/// for parameter in function.parameters.iter().flatten() {
///     println!("{}: required: {}", parameter.name, parameter.required);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// How an argument finds it.
    pub kind: ParameterKind,
    /// Whether a call must give it.
    pub required: bool,
}

/// How an argument finds its parameter; the terms are Python's.
///
/// ```no_run
/// # async fn example(function: hatchery::Function) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::ParameterKind;
///
/// let parameters = function.parameters.iter().flatten();
/// let keywords = parameters.filter(|parameter| parameter.kind == ParameterKind::KeywordOnly).count();
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ParameterKind {
    /// Before a `/`.
    PositionalOnly,
    /// An ordinary one.
    PositionalOrKeyword,
    /// `*args`.
    VarPositional,
    /// After a `*`.
    KeywordOnly,
    /// `**kwargs`.
    VarKeyword,
}

/// Why there is no result, or no ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum WorkerError {
    /// The function raised.
    Python {
        /// With its module unless that is builtins: `ValueError`, `json.decoder.JSONDecodeError`.
        #[serde(rename = "type")]
        type_name: String,
        message: String,
        /// Begins at user code; with chained causes, cut in the middle at 64 Ki characters.
        traceback: String,
        /// Of an `ImportError`: the interpreter, its search path, and what may be wrong with them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        environment: Option<String>,
    },
    /// The module exports no such function.
    NoSuchFunction {
        name: String,
        /// Near names, best first, at most three.
        similar: Vec<String>,
        /// Why the object of this name in the module cannot be called.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The function's signature refuses the arguments.
    Arguments { message: String, signature: Option<String> },
    /// The result has no form on the wire; the message names the place and what to do.
    Encode { message: String },
    /// The worker cannot read the call.
    Decode { message: String },
    /// The result does not fit a frame.
    FrameTooLarge {
        /// Bytes of payload.
        size: u64,
        /// Bytes of payload.
        limit: u32,
    },
    /// The function gave up because it was cancelled.
    Cancelled,
    /// A host call failed, and the function did not catch the error. Also the body of a failed
    /// host result.
    HostCall {
        /// The name of the host function.
        name: String,
        message: String,
        cause: HostCallCause,
    },
    /// A stop hook raised. Sent after shutdown, before the worker exits.
    Stop {
        #[serde(rename = "type")]
        type_name: String,
        message: String,
        traceback: String,
    },
    /// In place of ready: the module cannot serve. The worker then exits with code 1.
    Start {
        phase: StartPhase,
        #[serde(rename = "type")]
        type_name: String,
        message: String,
        traceback: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        environment: Option<String>,
    },
    /// The host sent bytes that are not a frame of this protocol. The worker then exits with code 76.
    Protocol { message: String },
}

impl WorkerError {
    /// As the answer to a call.
    pub(crate) fn into_call_error(self) -> CallError {
        let context = Box::default();
        match self {
            Self::Python { type_name, message, traceback, environment } => {
                CallError::Python { type_name, message, traceback, environment, attempts: 1, context }
            }
            Self::NoSuchFunction { name, similar, reason } => {
                CallError::NoSuchFunction { name: text::name(&name).into_owned(), similar, reason, context }
            }
            Self::Arguments { message, signature } => CallError::Arguments {
                message: match signature {
                    Some(signature) => format!("{message}; the signature is {signature}"),
                    None => message,
                },
                context,
            },
            Self::Encode { message } => CallError::Encode { message, direction: Direction::Result, context },
            Self::FrameTooLarge { size, limit } => CallError::too_large(Direction::Result, size, limit),
            Self::Decode { message } | Self::Protocol { message } => CallError::protocol(message),
            Self::Cancelled => CallError::Cancelled,
            Self::HostCall { name, message, cause } => {
                CallError::HostCall { name: text::name(&name).into_owned(), message, cause, context }
            }
            Self::Start { message, .. } => CallError::protocol(format!("it had started: {message}")),
            Self::Stop { message, .. } => CallError::protocol(format!("it was not told to stop: {message}")),
        }
    }

    /// The error as a problem of the protocol.
    pub(crate) fn into_detail(self) -> String {
        match self.into_call_error() {
            CallError::Protocol { detail, .. } => detail,
            other => other.to_string(),
        }
    }

    /// As the answer to hello.
    pub(crate) fn into_start_error(self, output: String) -> WorkerStartError {
        match self {
            Self::Start { phase, type_name, message, traceback, environment } => {
                WorkerStartError::Python { phase, type_name, message, traceback, environment }
            }
            other => WorkerStartError::Protocol { detail: other.into_detail(), output },
        }
    }
}

/// A message of a worker.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    /// The module is imported.
    Ready(Ready),
    /// The result of a function, decoded by the caller.
    Result {
        /// The call's.
        call_id: u64,
        /// One JSON value.
        body: Body,
    },
    /// No result, or no ready.
    Error {
        /// The call's; 0 when there is none (a failed start or stop, a protocol error).
        call_id: u64,
        /// Why.
        error: WorkerError,
    },
    /// One item of a stream.
    Chunk {
        /// The call's.
        call_id: u64,
        /// One JSON value.
        body: Body,
    },
    /// A stream is at its end.
    End {
        /// The call's.
        call_id: u64,
    },
    /// How far a call has come.
    Progress {
        /// The call's.
        call_id: u64,
        /// One JSON value.
        body: Body,
    },
    /// It calls the host.
    HostCall {
        /// The host call's own.
        id: u64,
        /// The name of the host function, and the call that it belongs to.
        request: HostRequest,
        /// What its placeholders stand for.
        attachments: Vec<Attachment>,
    },
    /// It gives a host call up.
    HostCancel {
        /// The host call's.
        id: u64,
    },
    /// A record of Python's `logging`.
    Log {
        /// Python's number.
        level: u32,
        /// The rest of it.
        record: LogRecord,
    },
    /// Where a call is suspended.
    Stack {
        /// The call's.
        call_id: u64,
        /// As text, outermost frame first.
        text: String,
    },
}

impl Reply {
    /// Reads a frame that came from a worker.
    ///
    /// # Errors
    /// [`FrameError`] when it is none that a worker sends, or its body cannot be read.
    pub(crate) fn from_frame(frame: Frame) -> Result<Reply, FrameError> {
        let Frame { kind, codec, number, call_id, body, attachments } = frame;
        let carries_values = matches!(kind, Kind::Result | Kind::Chunk | Kind::Progress | Kind::HostCall);
        if !attachments.is_empty() && !carries_values {
            return Err(FrameError::UnexpectedAttachments(kind));
        }
        // It may repeat a text of the body.
        let unreadable = |error: serde_json::Error| {
            let message = text::name(&error.to_string()).into_owned();
            FrameError::Body { kind, message }
        };
        if codec == Codec::None && carries_values {
            return Err(FrameError::Body { kind, message: "there is none".to_owned() });
        }
        let body =
            Body::received(body, attachments).map_err(|message| FrameError::Attachments { kind, message })?;
        match kind {
            Kind::Result => Ok(Reply::Result { call_id, body }),
            Kind::Chunk => Ok(Reply::Chunk { call_id, body }),
            Kind::End => Ok(Reply::End { call_id }),
            Kind::Progress => Ok(Reply::Progress { call_id, body }),
            Kind::Ready => serde_json::from_slice(&body.json).map(Reply::Ready).map_err(unreadable),
            Kind::Error => serde_json::from_slice(&body.json)
                .map(|error| Reply::Error { call_id, error })
                .map_err(unreadable),
            Kind::Stack => serde_json::from_slice(&body.json)
                .map(|text| Reply::Stack { call_id, text })
                .map_err(unreadable),
            Kind::HostCall => serde_json::from_slice(&body.json)
                .map(|request| Reply::HostCall { id: call_id, request, attachments: body.attachments })
                .map_err(unreadable),
            Kind::HostCancel => Ok(Reply::HostCancel { id: call_id }),
            Kind::Log if body.json.len() > LOG_FRAME_BYTES => {
                let message = format!("a log record of {} bytes is too large to be read", body.json.len());
                let record = LogRecord { logger: "hatchery".to_owned(), message, request_id: None };
                Ok(Reply::Log { level: number, record })
            }
            Kind::Log => serde_json::from_slice(&body.json)
                .map(|record| Reply::Log { level: number, record })
                .map_err(unreadable),
            other => Err(FrameError::UnexpectedKind(other)),
        }
    }
}

/// A call of the host: `[name, args, kwargs, {"call": id}]`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct HostRequest(
    pub(crate) String,
    pub(crate) Option<Box<RawValue>>,
    pub(crate) Option<Box<RawValue>>,
    pub(crate) OnBehalf,
);

impl PartialEq for HostRequest {
    fn eq(&self, other: &Self) -> bool {
        let text = |value: &Option<Box<RawValue>>| value.as_ref().map(|value| value.get().to_owned());
        (&self.0, text(&self.1), text(&self.2), self.3.call)
            == (&other.0, text(&other.1), text(&other.2), other.3.call)
    }
}

/// The call that calls the host.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct OnBehalf {
    pub(crate) call: u64,
}

/// A record of Python's `logging`, without its level.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct LogRecord {
    pub(crate) logger: String,
    pub(crate) message: String,
    pub(crate) request_id: Option<String>,
}

/// The options of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CallOptions<'a> {
    /// The session that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<&'a str>,
    /// The caller wants a stream, with this many items at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credit: Option<u32>,
    /// The caller wants its progress.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) progress: bool,
    /// Names the request in logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<&'a str>,
    /// W3C trace context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) traceparent: Option<&'a str>,
    /// How many host calls it is nested in.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) depth: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde wants it
fn is_zero(depth: &u32) -> bool {
    *depth == 0
}

impl CallOptions<'_> {
    /// Appends the options to a call's body; without any it stays as it is.
    pub(crate) fn append_to(&self, mut body: Body) -> Body {
        if *self == CallOptions::default() {
            return body;
        }
        body.json = self.append_to_json(&body.json);
        body
    }

    fn append_to_json(&self, body: &[u8]) -> Bytes {
        let mut whole = Vec::with_capacity(body.len() + 64);
        // `call_body` ends with the bracket of its list.
        whole.extend_from_slice(&body[..body.len() - 1]);
        whole.push(b',');
        serde_json::to_writer(&mut whole, self).expect("strings and numbers are JSON");
        whole.push(b']');
        whole.into()
    }
}

/// The frame of a call. `timeout_ms`: how long the caller still allows, 0 = no limit. `body` is that of
/// [`call_body`](crate::port::wire::value::call_body), with or without [`CallOptions`].
pub(crate) fn call_frame(call_id: u64, timeout_ms: u32, body: Body) -> Frame {
    Frame { number: timeout_ms, ..Frame::with_body(Kind::Call, call_id, body) }
}

/// The frame that allows a stream this many more items.
pub(crate) fn credit_frame(call_id: u64, items: u32) -> Frame {
    Frame { number: items, ..Frame::new(Kind::Credit, call_id, Codec::None, Bytes::new()) }
}

/// The answer to a host call: one JSON value, or an error as [`WorkerError`] has it.
pub(crate) fn host_result_frame(id: u64, body: Body, failed: bool) -> Frame {
    let Body { json, attachments } = body;
    Frame { number: u32::from(failed), attachments, ..Frame::new(Kind::HostResult, id, Codec::Json, json) }
}

/// The frame that asks a call to give up.
pub(crate) fn cancel_frame(call_id: u64) -> Frame {
    Frame::new(Kind::Cancel, call_id, Codec::None, Bytes::new())
}

/// The frame that asks where a call is suspended.
pub(crate) fn stack_frame(call_id: u64) -> Frame {
    Frame::new(Kind::Stack, call_id, Codec::None, Bytes::new())
}

/// The frame that says that a session is over; answered like a call. `timeout_ms` bounds the module's hooks.
pub(crate) fn session_end_frame(call_id: u64, timeout_ms: u32, session: &str, cause: &str) -> Frame {
    #[derive(Serialize)]
    struct Body<'a> {
        session: &'a str,
        cause: &'a str,
    }
    let body = serde_json::to_vec(&Body { session, cause }).expect("strings are JSON");
    Frame { number: timeout_ms, ..Frame::new(Kind::SessionEnd, call_id, Codec::Json, body.into()) }
}

/// The frame that asks a worker to end in an orderly way, running Python's exit handlers.
pub(crate) fn shutdown_frame() -> Frame {
    Frame::new(Kind::Shutdown, 0, Codec::None, Bytes::new())
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
