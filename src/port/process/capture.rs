//! The output of a worker: each line goes to `log`, and the last ones are kept for errors.
//!
//! The pipes are always drained, so that no `print` ever blocks. A line is cut at [`LINE_CAP_BYTES`]:
//! the rest of it is dropped and counted.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::budget::LINES_PER_TURN;
use crate::port::process::records::Records;
use crate::text::escaped;

/// How much of one captured line is kept.
pub(crate) const LINE_CAP_BYTES: usize = 16 * 1024;
/// How many lines of each stream are kept for errors, and how many bytes of them in all.
const TAIL_LINES: usize = 30;
const TAIL_BYTES: usize = 32 * 1024;
/// The default capacity of a pipe on Linux.
const PIPE_BYTES: usize = 64 * 1024;

/// Splits the bytes of a pipe into lines. Pure.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
    dropped_bytes: usize,
}

impl Lines {
    /// Takes bytes up to the end of the next line; the line, if its end has come.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<String> {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.keep(std::mem::take(bytes));
            return None;
        };
        self.keep(&bytes[..end]);
        *bytes = &bytes[end + 1..];
        Some(self.finish())
    }

    /// Ends a line, or what there is of one.
    fn finish(&mut self) -> String {
        if self.partial.last() == Some(&b'\r') && self.dropped_bytes == 0 {
            self.partial.pop();
        }
        let text = String::from_utf8_lossy(&self.partial);
        let mut line = escaped(&text).into_owned();
        if self.dropped_bytes > 0 {
            line.push_str(&format!(" [{} more bytes]", self.dropped_bytes));
        }
        self.partial.clear();
        self.dropped_bytes = 0;
        line
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
    records: Arc<Records>,
    finish: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Capture {
    /// Starts to read both pipes on this thread, within a `LocalSet`. The lines of standard output are logged at `info`,
    /// those of standard error at `warn`.
    pub(crate) fn start(worker: &str, stdout: pipe::Receiver, stderr: pipe::Receiver) -> Self {
        let tails = Arc::new(Mutex::new(Tails::default()));
        let records = Records::new(worker);
        let (finish, finished) = oneshot::channel();
        let stream = |pipe, level, tail| Stream::new(pipe, level, records.clone(), tails.clone(), tail);
        let streams = [
            stream(stdout, log::Level::Info, |tails| &mut tails.stdout),
            stream(stderr, log::Level::Warn, |tails| &mut tails.stderr),
        ];
        let task = tokio::task::spawn_local(capture(streams, finished));
        Self { tails, records, finish: Some(finish), task }
    }

    /// Where all records of this worker go.
    pub(crate) fn records(&self) -> &Arc<Records> {
        &self.records
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

    /// Reads the rest of the output of a worker that has ended. It does not wait for the end of the
    /// pipes, which a process that left the worker's group may hold open.
    pub(crate) async fn finish(&mut self) {
        if let Some(finish) = self.finish.take() {
            let _ = finish.send(());
            let _ = (&mut self.task).await;
            self.records.flush();
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
    stdout.read_rest().await;
    stderr.read_rest().await;
}

/// One pipe, and where its lines go.
struct Stream {
    pipe: pipe::Receiver,
    /// Bytes that are not split into lines yet.
    unread: Vec<u8>,
    lines: Lines,
    level: log::Level,
    records: Arc<Records>,
    tails: Arc<Mutex<Tails>>,
    tail: TailOf,
}

/// Which of the two tails.
type TailOf = fn(&mut Tails) -> &mut Tail;

impl Stream {
    fn new(
        pipe: pipe::Receiver,
        level: log::Level,
        records: Arc<Records>,
        tails: Arc<Mutex<Tails>>,
        tail: TailOf,
    ) -> Self {
        Self { pipe, unread: Vec::new(), lines: Lines::default(), level, records, tails, tail }
    }

    /// Reads until the end of the pipe.
    async fn read_on(&mut self) {
        while self.pipe.readable().await.is_ok() {
            match self.read_some() {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => self.emit_lines().await,
            }
        }
    }

    /// Reads once; 0 at the end of the pipe.
    fn read_some(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let read = self.pipe.try_read(&mut buffer)?;
        self.unread.extend_from_slice(&buffer[..read]);
        Ok(read)
    }

    /// Takes the lines of the bytes that were read. A worker that prints without end yields this thread after each
    /// [`LINES_PER_TURN`].
    ///
    /// Dropping the future loses nothing.
    async fn emit_lines(&mut self) {
        while !self.unread.is_empty() {
            let mut rest = &self.unread[..];
            let mut emitted = 0;
            while emitted < LINES_PER_TURN && !rest.is_empty() {
                if let Some(line) = self.lines.next(&mut rest) {
                    emit(&self.records, self.level, &self.tails, self.tail, line);
                    emitted += 1;
                }
            }
            let taken = self.unread.len() - rest.len();
            self.unread.drain(..taken);
            tokio::task::yield_now().await;
        }
    }

    /// Reads the bytes that are in the pipe now. A process that left the worker's group may go on writing.
    async fn read_rest(&mut self) {
        self.emit_lines().await;
        let mut held = rustix::pipe::fcntl_getpipe_size(&self.pipe).unwrap_or(PIPE_BYTES);
        while held > 0 {
            match self.read_some() {
                Ok(0) | Err(_) => break,
                Ok(read) => held = held.saturating_sub(read),
            }
            self.emit_lines().await;
        }
        if !self.lines.is_empty() {
            let line = self.lines.finish();
            emit(&self.records, self.level, &self.tails, self.tail, line);
        }
    }
}

fn emit(records: &Arc<Records>, level: log::Level, tails: &Mutex<Tails>, tail: TailOf, line: String) {
    records.record(level, &line);
    tail(&mut lock(tails)).push(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for chunk in chunks {
            let mut rest = *chunk;
            while !rest.is_empty() {
                out.extend(lines.next(&mut rest));
            }
        }
        if !lines.is_empty() {
            out.push(lines.finish());
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
    fn line_with_escape_sequences_is_shown_escaped() {
        assert_eq!(lines_of(&[b"10%\r\x1b[2K20%\r\n"]), ["10%\\r\\u{1b}[2K20%"]);
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
