//! What a worker prints: each line to `log`, the last ones kept for errors.
//!
//! The pipes are always drained, so that no `print` ever blocks. A line is cut at [`LINE_CAP_BYTES`]:
//! the rest of it is dropped and counted.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How much of one captured line is kept.
pub(crate) const LINE_CAP_BYTES: usize = 16 * 1024;
/// How many lines of each stream are kept for errors, and how many bytes of them in all.
const TAIL_LINES: usize = 30;
const TAIL_BYTES: usize = 32 * 1024;
/// What a pipe holds on Linux unless somebody asked for more.
const PIPE_BYTES: usize = 64 * 1024;

/// Splits what a pipe delivers into lines. Pure.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
    dropped_bytes: usize,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8], line: &mut impl FnMut(String)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.keep(&bytes[..end]);
            self.finish(line);
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// Ends a line, or what there is of one.
    fn finish(&mut self, line: &mut impl FnMut(String)) {
        if self.partial.last() == Some(&b'\r') && self.dropped_bytes == 0 {
            self.partial.pop();
        }
        let mut text = String::from_utf8_lossy(&self.partial).into_owned();
        if self.dropped_bytes > 0 {
            text.push_str(&format!(" [{} more bytes]", self.dropped_bytes));
        }
        self.partial.clear();
        self.dropped_bytes = 0;
        line(text);
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_CAP_BYTES - self.partial.len();
        let kept = bytes.len().min(room);
        self.partial.extend_from_slice(&bytes[..kept]);
        self.dropped_bytes += bytes.len() - kept;
    }

    fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }
}

/// The last lines of a stream.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > TAIL_LINES || (self.bytes > TAIL_BYTES && self.lines.len() > 1) {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
        }
    }

    fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

#[derive(Debug, Default)]
struct Tails {
    stdout: Tail,
    stderr: Tail,
}

/// The capture of one worker's standard output and error. Dropping it stops it.
pub(crate) struct Capture {
    tails: Arc<Mutex<Tails>>,
    finish: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Capture {
    /// Starts to read both pipes on this thread. `worker` names the worker in the log's target,
    /// `hatchery::python::WORKER`: standard output at `info`, standard error at `warn`.
    pub(crate) fn start(worker: &str, stdout: pipe::Receiver, stderr: pipe::Receiver) -> Self {
        let tails = Arc::new(Mutex::new(Tails::default()));
        let target = format!("hatchery::python::{worker}");
        let (finish, finished) = oneshot::channel();
        let streams = [
            Stream::new(stdout, log::Level::Info, target.clone(), tails.clone(), |tails| &mut tails.stdout),
            Stream::new(stderr, log::Level::Warn, target, tails.clone(), |tails| &mut tails.stderr),
        ];
        let task = tokio::task::spawn_local(capture(streams, finished));
        Self { tails, finish: Some(finish), task }
    }

    /// The last lines of its standard error.
    pub(crate) fn stderr_tail(&self) -> String {
        lock(&self.tails).stderr.text()
    }

    /// The last lines that it printed, standard output first.
    pub(crate) fn output_tail(&self) -> String {
        let tails = lock(&self.tails);
        let (stdout, stderr) = (tails.stdout.text(), tails.stderr.text());
        if stdout.is_empty() || stderr.is_empty() { stdout + &stderr } else { format!("{stdout}\n{stderr}") }
    }

    /// Takes in what a worker that has ended had still written. It does not wait for the end of the
    /// pipes, which a process that left the worker's group may hold open.
    pub(crate) async fn finish(&mut self) {
        if let Some(finish) = self.finish.take() {
            let _ = finish.send(());
            let _ = (&mut self.task).await;
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(tails: &Mutex<Tails>) -> MutexGuard<'_, Tails> {
    tails.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn capture(streams: [Stream; 2], finished: oneshot::Receiver<()>) {
    let [mut stdout, mut stderr] = streams;
    tokio::select! {
        _ = async { tokio::join!(stdout.read_on(), stderr.read_on()) } => {}
        _ = finished => {}
    }
    stdout.read_rest();
    stderr.read_rest();
}

/// One pipe, and where its lines go.
struct Stream {
    pipe: pipe::Receiver,
    lines: Lines,
    level: log::Level,
    target: String,
    tails: Arc<Mutex<Tails>>,
    tail: fn(&mut Tails) -> &mut Tail,
}

impl Stream {
    fn new(
        pipe: pipe::Receiver,
        level: log::Level,
        target: String,
        tails: Arc<Mutex<Tails>>,
        tail: fn(&mut Tails) -> &mut Tail,
    ) -> Self {
        Self { pipe, lines: Lines::default(), level, target, tails, tail }
    }

    /// Reads until the end of the pipe. A worker that prints without end leaves this thread to all others after each
    /// read.
    async fn read_on(&mut self) {
        while self.pipe.readable().await.is_ok() {
            match self.read_some() {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// Reads once; 0 at the end of the pipe.
    fn read_some(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let read = self.pipe.try_read(&mut buffer)?;
        let Self { lines, level, target, tails, tail, .. } = self;
        lines.push(&buffer[..read], &mut |line| emit(*level, target, tails, *tail, line));
        Ok(read)
    }

    /// Reads what the pipe holds, and not what a process that left the worker's group goes on to write.
    fn read_rest(&mut self) {
        let mut held = rustix::pipe::fcntl_getpipe_size(&self.pipe).unwrap_or(PIPE_BYTES);
        while held > 0 {
            match self.read_some() {
                Ok(0) | Err(_) => break,
                Ok(read) => held = held.saturating_sub(read),
            }
        }
        if !self.lines.is_empty() {
            let Self { lines, level, target, tails, tail, .. } = self;
            lines.finish(&mut |line| emit(*level, target, tails, *tail, line));
        }
    }
}

fn emit(
    level: log::Level,
    target: &str,
    tails: &Mutex<Tails>,
    tail: fn(&mut Tails) -> &mut Tail,
    line: String,
) {
    log::log!(target: target, level, "{line}");
    tail(&mut lock(tails)).push(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk, &mut |line| out.push(line));
        }
        if !lines.is_empty() {
            lines.finish(&mut |line| out.push(line));
        }
        out
    }

    #[test]
    fn lines_are_split_wherever_the_reads_fall() {
        assert_eq!(lines_of(&[b"one\ntw", b"o\r\n\nthree"]), ["one", "two", "", "three"]);
    }

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        let long = vec![b'x'; LINE_CAP_BYTES + 7];
        let lines = lines_of(&[&long, b"yz\nnext\n"]);
        assert_eq!(lines[0].len(), LINE_CAP_BYTES + " [9 more bytes]".len());
        assert!(lines[0].ends_with("x [9 more bytes]"));
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        assert_eq!(lines_of(&[b"a\xffb\n"]), ["a\u{fffd}b"]);
    }

    #[test]
    fn the_tail_keeps_the_last_lines() {
        let mut tail = Tail::default();
        for n in 0..100 {
            tail.push(format!("line {n}"));
        }
        assert!(tail.text().starts_with("line 70\n") && tail.text().ends_with("line 99"));
        tail.push("x".repeat(TAIL_BYTES + 1));
        assert_eq!(tail.lines.len(), 1);
    }
}
