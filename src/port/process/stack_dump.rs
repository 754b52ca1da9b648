//! Stack dumps of a worker, which Python's faulthandler writes to a pipe of their own.

use std::task::{Context, Poll};

use tokio::net::unix::pipe;

/// A whole stack is far shorter: a hundred frames at most, with names cut at 500 characters.
const MOST_BYTES: usize = 256 * 1024;

/// Begins each frame's line.
const FRAME: &str = "  File \"";
/// Begins the frames of the embedded package, below which there is no user code.
const OURS: &str = "  File \"<hatchery>/";
/// Stands where faulthandler stops after its hundred frames; Python 3.13 just stops.
const CUT: &str = "  ...";
const MOST_FRAMES: usize = 100;

/// The reading end of a worker's pipe for stacks.
pub(crate) struct Stacks {
    pipe: pipe::Receiver,
    text: Vec<u8>,
}

impl Stacks {
    pub(crate) fn new(pipe: pipe::Receiver) -> Self {
        Self { pipe, text: Vec::new() }
    }

    /// Drops a stack that came too late for its caller.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        let mut late = [0; 4096];
        while self.pipe.try_read(&mut late).is_ok_and(|read| read > 0) {}
    }

    /// Ready when a stack has come whole. Pending for ever once the pipe is closed: a worker may close anything.
    pub(crate) fn poll_stack(&mut self, cx: &mut Context<'_>) -> Poll<Stack> {
        self.poll_parsed(cx, Stack::parse)
    }

    /// The same of a worker that is not ready yet: the text of its stack.
    pub(crate) fn poll_start_stack(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        self.poll_parsed(cx, Stack::parse_start)
    }

    fn poll_parsed<T>(&mut self, cx: &mut Context<'_>, parse: fn(&str) -> Option<T>) -> Poll<T> {
        loop {
            let mut buffer = [0; 4096];
            match self.pipe.try_read(&mut buffer) {
                Ok(0) => return Poll::Pending,
                Ok(read) if self.text.len() + read <= MOST_BYTES => {
                    self.text.extend_from_slice(&buffer[..read]);
                }
                // Text that faulthandler did not write.
                Ok(_) => self.text.clear(),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if let Some(stack) = parse(&String::from_utf8_lossy(&self.text)) {
                        self.text.clear();
                        return Poll::Ready(stack);
                    }
                    match self.pipe.poll_read_ready(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) | Poll::Pending => return Poll::Pending,
                    }
                }
                Err(_) => return Poll::Pending,
            }
        }
    }
}

/// The stack of a worker's main thread. Pure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stack {
    /// Lines of user code, outermost frame first.
    pub(crate) text: String,
    /// Nothing of it runs: an event loop waits. The worker itself can then say more.
    pub(crate) is_waiting: bool,
}

impl Stack {
    /// The newest complete stack of user code; `None` when there is none, as of an idle worker.
    pub(crate) fn parse(written: &str) -> Option<Self> {
        let mut frames = user_frames(written)?;
        // An import directly above our frames is our own. No user code runs then.
        if frames.last().is_some_and(|frame| is_import(frame)) {
            frames.clear();
        }
        let is_waiting = frames.iter().all(|frame| is_machinery(frame));
        Some(Self { text: text(&frames), is_waiting })
    }

    /// The same of a worker that is not ready yet: an import right above ours is that of the user's module, and the
    /// import system's own frames say nothing.
    pub(crate) fn parse_start(written: &str) -> Option<String> {
        let mut frames = user_frames(written)?;
        frames.retain(|frame| !is_import(frame));
        Some(text(&frames))
    }
}

/// The frames of the newest whole stack, innermost first, down to ours.
fn user_frames(written: &str) -> Option<Vec<&str>> {
    let mut frames = Vec::new();
    let mut whole = None;
    let mut is_over = false;
    let whole_lines = written.rfind('\n').map_or("", |end| &written[..end]);
    for line in whole_lines.lines() {
        if line.starts_with(OURS) || line == CUT {
            // Ours stand above user code too, where that calls `hatchery.progress`.
            if !is_over && !frames.is_empty() {
                whole = Some(std::mem::take(&mut frames));
                is_over = true;
            }
        } else if line.starts_with(FRAME) {
            if !is_over {
                frames.push(line);
                if frames.len() == MOST_FRAMES {
                    whole = Some(std::mem::take(&mut frames));
                    is_over = true;
                }
            }
        } else {
            // A heading: another stack begins.
            frames.clear();
            is_over = false;
        }
    }
    whole
}

fn text(frames: &[&str]) -> String {
    frames.iter().rev().map(|frame| readable(frame)).collect::<Vec<_>>().join("\n")
}

fn is_import(frame: &str) -> bool {
    frame[FRAME.len()..].starts_with("<frozen importlib")
}

/// Whether a frame is of the event loop. Only a loop that waits has `select` innermost and none but such frames.
fn is_machinery(frame: &str) -> bool {
    let file = frame[FRAME.len()..].split('"').next().unwrap_or_default();
    file.ends_with("/selectors.py") || file.contains("/asyncio/")
}

/// As Python's tracebacks have it: a comma before `in`.
fn readable(frame: &str) -> String {
    match frame.rfind(" in ") {
        Some(at) => format!("{},{}", &frame[..at], &frame[at..]),
        None => frame.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_of_ours_is_no_stack_of_the_users() {
        let import = "  File \"<frozen importlib._bootstrap>\", line 1176 in _find_and_load\n";
        let module = "  File \"/usr/lib/python3.11/traceback.py\", line 3 in <module>\n";
        let users = "  File \"/srv/app.py\", line 7 in load\n";
        let ours = format!("{OURS}_serving.py\", line 350 in _tell_stack\n");
        let parse = |frames: &str| Stack::parse(&format!("Stack (most recent call first):\n{frames}{ours}"));
        let nothing = Stack { text: String::new(), is_waiting: true };
        assert_eq!(parse(&[module, import].concat()), Some(nothing));
        let loads = parse(&[module, import, users].concat()).expect("a stack");
        assert!(!loads.is_waiting && loads.text.contains("in load"), "{loads:?}");
    }

    const SLEEPING: &str = "Stack (most recent call first):\n\
        \x20 File \"/srv/app.py\", line 12 in nap\n\
        \x20 File \"/srv/app.py\", line 15 in serve\n\
        \x20 File \"<hatchery>/_serving.py\", line 88 in serve\n\
        \x20 File \"<hatchery>/_worker.py\", line 151 in main\n\
        \x20 File \"<string>\", line 38 in <module>\n";
    const TEXT: &str = "  File \"/srv/app.py\", line 15, in serve\n  File \"/srv/app.py\", line 12, in nap";

    #[test]
    fn user_code_comes_outermost_first_and_ends_where_ours_begins() {
        assert_eq!(Stack::parse(SLEEPING), Some(Stack { text: TEXT.to_owned(), is_waiting: false }));
    }

    #[test]
    fn user_code_that_has_called_ours_is_told_from_there() {
        let (heading, frames) = SLEEPING.split_at(SLEEPING.find("  File").expect("it is there"));
        let ours = "  File \"<hatchery>/_wire.py\", line 1 in send\n  File \"<hatchery>/_calls.py\", line 1 in progress\n";
        let stack = Stack::parse(&format!("{heading}{ours}{frames}"));
        assert_eq!(stack, Some(Stack { text: TEXT.to_owned(), is_waiting: false }));
    }

    #[test]
    fn a_stack_is_whole_only_with_its_end() {
        let end = SLEEPING.find("  File \"<hatchery>/").expect("it is there");
        for cut in 0..end + OURS.len() {
            assert_eq!(Stack::parse(&SLEEPING[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_deep_stack_is_cut_by_python() {
        let deep = format!(
            "Stack (most recent call first):\n{}  ...\n",
            "  File \"a.py\", line 1 in f\n".repeat(100)
        );
        let stack = Stack::parse(&deep).expect("it is whole");
        assert_eq!(stack.text.lines().count(), 100);
        assert!(!stack.is_waiting);
        let silently = deep.strip_suffix("  ...\n").expect("it is there");
        assert_eq!(Stack::parse(silently), Some(stack));
        assert_eq!(Stack::parse(silently.trim_end()), None, "the last line may go on");
    }

    #[test]
    fn a_loop_that_waits_and_an_idle_worker_are_told_from_code_that_runs() {
        let select = "  File \"/usr/lib/python3.11/selectors.py\", line 468 in select\n\
            \x20 File \"/usr/lib/python3.11/asyncio/base_events.py\", line 1884 in _run_once\n";
        let ours = "  File \"<hatchery>/_loop.py\", line 1 in run\n";
        let waiting =
            Stack::parse(&format!("Stack (most recent call first):\n{select}{ours}")).expect("whole");
        assert!(waiting.is_waiting && !waiting.text.is_empty());
        let idle = format!(
            "Stack (most recent call first):\n{ours}{ours}  File \"<string>\", line 38 in <module>\n"
        );
        assert_eq!(Stack::parse(&idle), None);
        let blocking =
            format!("Stack (most recent call first):\n  File \"app.py\", line 1 in f\n{select}{ours}");
        assert!(!Stack::parse(&blocking).expect("whole").is_waiting);
    }

    #[test]
    fn of_two_stacks_the_newest_counts_and_noise_does_not() {
        let other = SLEEPING.replace("line 12", "line 13");
        let stack = Stack::parse(&format!("noise\n{SLEEPING}{other}Stack (most rec")).expect("whole");
        assert!(stack.text.contains("line 13") && !stack.text.contains("line 12"), "{stack:?}");
    }
}
