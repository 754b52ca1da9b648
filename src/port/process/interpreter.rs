//! Finds the Python interpreter, and asks it once for its version and path.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::OnceCell;

use crate::error::{WorkerStartError, ended_by};
use crate::port::process::environment::Environment;
use crate::port::process::spawn::{self, CommandLine, Spawned};
use crate::port::start::PortSpec;

/// The oldest Python that the embedded package runs on.
const OLDEST: [u32; 2] = [3, 9];
const PROBE: &str = include_str!("../../python/probe.py");
/// Comes before the sources, with the probe's descriptors. JSON ignores it.
const FIRST: &[u8] = b"\n";
/// The beginning of the probe's line, which may stand among other output.
const MARK: &str = "HATCHERY-PROBE ";
/// More than any Python answers. Another program may print without end.
const MOST_BYTES: u64 = 4 << 20;
/// How much of what an interpreter printed goes into an error, of each stream.
const MOST_PRINTED_BYTES: usize = 8 << 10;
const MOST_PRINTED_LINES: usize = 30;
/// How long the pipes of an interpreter that has ended are read on.
const ENDED_GRACE: Duration = Duration::from_secs(1);

/// An interpreter that has been asked.
#[derive(Debug)]
pub(crate) struct Interpreter {
    /// What workers are started with: a wrapper, which may set limits or variables for them, or else what the interpreter
    /// calls itself, still inside its virtual environment.
    pub(crate) program: PathBuf,
    /// The embedded package, compiled by it.
    pub(crate) package: Bytes,
    key: Key,
}

/// The key of a probe's answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    program: PathBuf,
    changed: Option<SystemTime>,
    env: Environment,
    current_dir: Option<PathBuf>,
}

/// One of [`KNOWN`].
#[derive(Default)]
struct Known {
    interpreter: OnceCell<Arc<Interpreter>>,
    printed: Mutex<Printed>,
}

/// The output of a probe so far. All starts that wait for its answer may time out.
#[derive(Default)]
struct Printed {
    out: Vec<u8>,
    err: Vec<u8>,
    /// It is of the probe before, which was given up: another waiter has begun one, which has printed nothing yet.
    is_former: bool,
}

impl Known {
    fn printed(&self) -> MutexGuard<'_, Printed> {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the bytes of a pipe.
    async fn keep(&self, pipe: &mut (impl AsyncRead + Unpin), stream: fn(&mut Printed) -> &mut Vec<u8>) {
        let mut chunk = vec![0; 16 << 10];
        // An error of the pipe shows as missing output.
        while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
            let mut printed = self.printed();
            if printed.is_former {
                *printed = Printed::default();
            }
            stream(&mut printed).extend_from_slice(&chunk[..read]);
        }
    }
}

/// Dropped with a probe. Of an abandoned probe's output only the end is used.
struct GivenUp<'a>(&'a Known);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        let mut printed = self.0.printed();
        let Printed { out, err, .. } = &mut *printed;
        for stream in [out, err] {
            stream.drain(..stream.len().saturating_sub(MOST_PRINTED_BYTES));
            stream.shrink_to_fit();
        }
    }
}

/// Answers are kept for the life of this process: asking takes an interpreter's start.
static KNOWN: Mutex<Option<HashMap<Key, Arc<Known>>>> = Mutex::new(None);

impl Interpreter {
    /// Finds the interpreter and asks it, once for all workers that start at the same time.
    pub(crate) async fn find(spec: &PortSpec, deadline: Instant) -> Result<Arc<Self>, WorkerStartError> {
        let program = locate(spec.python.as_deref())?;
        let changed = std::fs::metadata(&program).and_then(|file| file.modified()).ok();
        let key = Key { program, changed, env: spec.env.clone(), current_dir: spec.current_dir.clone() };
        let known = with_known(|all| all.entry(key.clone()).or_default().clone());
        let find =
            known.interpreter.get_or_try_init(|| async { probe(key, spec, &known).await.map(Arc::new) });
        match tokio::time::timeout_at(deadline.into(), find).await {
            Ok(found) => found.cloned(),
            Err(_) => {
                let printed = known.printed();
                let output = last_lines(&printed.out, &printed.err);
                Err(WorkerStartError::TimedOut { after: spec.spawn_timeout, stack: None, output })
            }
        }
    }

    /// Asks the interpreter again at the next start: it has changed.
    pub(crate) fn forget(&self) {
        with_known(|known| known.remove(&self.key));
    }
}

fn with_known<T>(use_it: impl FnOnce(&mut HashMap<Key, Arc<Known>>) -> T) -> T {
    let mut known = KNOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    use_it(known.get_or_insert_default())
}

/// The program to start: the one chosen, else the active virtual environment's, else `python3` on `PATH`.
fn locate(chosen: Option<&Path>) -> Result<PathBuf, WorkerStartError> {
    let missing = |looked_for: String| WorkerStartError::NoInterpreter { looked_for };
    if let Some(chosen) = chosen {
        let is_not = if is_path(chosen) { "is not an executable file" } else { "is not on PATH" };
        return find_program(chosen.as_os_str())
            .ok_or_else(|| missing(format!("{} {is_not}", chosen.display())));
    }
    if let Some(environment) = std::env::var_os("VIRTUAL_ENV").filter(|dir| !dir.is_empty()) {
        let program = Path::new(&environment).join("bin/python3");
        return if is_program(&program) {
            Ok(program)
        } else {
            let program = program.display();
            Err(missing(format!("VIRTUAL_ENV is set, but {program} is not an executable file")))
        };
    }
    find_program(OsStr::new("python3")).ok_or_else(|| missing("python3 is not on PATH".into()))
}

/// The absolute path of a program that is given by its path, or by a name to be found on `PATH`.
pub(crate) fn find_program(program: &OsStr) -> Option<PathBuf> {
    let path = Path::new(program);
    if is_path(path) {
        std::path::absolute(path).ok().filter(|path| is_program(path))
    } else {
        search(program, &std::env::var_os("PATH").unwrap_or_default())
    }
}

fn is_path(program: &Path) -> bool {
    program.components().count() > 1 || program.is_absolute()
}

fn search(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|dir| dir.join(name))
        .find(|program| is_program(program))
        .and_then(|program| std::path::absolute(program).ok())
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The output of the probe. Texts are bytes in hex.
#[derive(Deserialize)]
struct Facts {
    version: [u32; 3],
    executable: String,
    /// Only from [`OLDEST`] on.
    package: Option<String>,
}

/// Runs the probe. Its callers have deadlines: dropping this future kills it.
async fn probe(key: Key, spec: &PortSpec, known: &Known) -> Result<Interpreter, WorkerStartError> {
    let path = key.program.display().to_string();
    let line = CommandLine {
        program: key.program.clone(),
        args: vec!["-c".into(), PROBE.into()],
        env: key.env.clone(),
        current_dir: key.current_dir.clone(),
    };
    let Spawned { mut process, mut socket, stdout, stderr, .. } =
        spawn::spawn(&line, FIRST, None).map_err(|error| spec.spawn_failed(&key.program, error))?;
    let sources: HashMap<_, _> = crate::port::process::package::SOURCES.iter().copied().collect();
    let sources = serde_json::to_vec(&sources).expect("a map of strings has a JSON form");
    known.printed().is_former = true;
    let _given_up = GivenUp(known);
    let write = async {
        let _ = socket.write_all(&sources).await;
        let _ = socket.shutdown().await;
    };
    let (mut stdout, mut stderr) = (stdout.take(MOST_BYTES), stderr.take(MOST_BYTES));
    let exit = {
        let talk = async {
            let out = known.keep(&mut stdout, |printed| &mut printed.out);
            tokio::join!(write, out, known.keep(&mut stderr, |printed| &mut printed.err))
        };
        let mut talk = pin!(talk);
        tokio::select! {
            exit = process.ended() => {
                // All that it wrote is in the pipes; their end never comes while a process that left its group holds them.
                let _ = tokio::time::timeout(ENDED_GRACE, talk).await;
                exit
            }
            _ = &mut talk => process.ended().await,
        }
    };
    let Printed { out, err, is_former } = std::mem::take(&mut *known.printed());
    let (out, err) = if is_former { Default::default() } else { (out, err) };
    let facts: Option<Facts> = String::from_utf8_lossy(&out)
        .lines()
        .filter_map(|line| line.strip_prefix(MARK))
        .find_map(|facts| serde_json::from_str(facts).ok());
    let unusable = |detail: String| {
        let output = last_lines(&out, &err);
        Err(WorkerStartError::InterpreterUnusable { path: path.clone(), detail, output })
    };
    let Some(facts) = facts else {
        return unusable(match (exit.code, exit.signal) {
            (None, None) => "it did not say what it is".into(),
            _ => format!("it did not say what it is, and ended ({})", ended_by(exit.code, exit.signal)),
        });
    };
    let [major, minor, micro] = facts.version;
    if [major, minor] < OLDEST {
        let version = format!("{major}.{minor}.{micro}");
        return Err(WorkerStartError::InterpreterTooOld { path, version });
    }
    let Some(package) = facts.package.and_then(|package| unhex(&package)) else {
        return unusable("it did not compile the worker's package".into());
    };
    let executable = unhex(&facts.executable).map(|path| PathBuf::from(OsString::from_vec(path.into())));
    let executable = executable.filter(|path| path.is_absolute()).unwrap_or_else(|| key.program.clone());
    let program = if is_wrapper(&key.program, &executable) { key.program.clone() } else { executable };
    Ok(Interpreter { program, package, key })
}

/// Whether a program is another one than the interpreter that it runs, and may do more than choose it. A program in a
/// directory named `shims` only chooses: those of pyenv, asdf and mise take longer than a bare interpreter's start.
fn is_wrapper(program: &Path, interpreter: &Path) -> bool {
    let is_shim = program.parent().is_some_and(|directory| directory.ends_with("shims"));
    let canonical = |path: &Path| path.canonicalize().ok();
    !is_shim && canonical(program) != canonical(interpreter)
}

/// The last lines that an interpreter printed, without the probe's own answer: standard output first.
fn last_lines(out: &[u8], err: &[u8]) -> String {
    let mut lines = Vec::new();
    for stream in [out, err] {
        let stream = &stream[stream.len().saturating_sub(MOST_PRINTED_BYTES)..];
        let text = String::from_utf8_lossy(stream);
        let own: Vec<_> = text.lines().filter(|line| !line.starts_with(MARK) && !line.is_empty()).collect();
        let last = own.len().saturating_sub(MOST_PRINTED_LINES);
        lines.extend(own[last..].iter().map(|line| (*line).to_owned()));
    }
    lines.join("\n")
}

fn unhex(text: &str) -> Option<Bytes> {
    text.as_bytes()
        .chunks(2)
        .map(|digits| std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()))
        .collect()
}
