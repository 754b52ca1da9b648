//! The actix-web example, over HTTP.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use serde_json::{Value, json};

use crate::built::example;
use crate::examples::example_test;
use crate::support::{
    LONG_TIMEOUT, descendants, describe, is_alive, kill, lines, python_module, scratch, scratch_file,
    wait_until_blocking,
};

/// Runs in every Python process and records an orderly exit.
const SITE: &str = r#"
import atexit, os

EXITS = os.path.join(os.path.dirname(__file__), "exits")


@atexit.register
def ended():
    with open(EXITS, "a") as file:
        file.write(f"{os.getpid()}\n")
"#;

/// The running example.
struct Service {
    process: Child,
    url: String,
}

struct Answer {
    status: u16,
    retry_after: Option<String>,
    body: Value,
}

impl Service {
    fn start(workers: u32, queue: u32) -> Service {
        python_module(&scratch(), "sitecustomize", SITE);
        let mut process = Command::new(example("actix_web"))
            .env("ADDRESS", "127.0.0.1:0")
            .env("WORKERS", workers.to_string())
            .env("QUEUE", queue.to_string())
            .env("PYTHONPATH", scratch())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(scratch_file("log")).expect("the scratch folder is there"))
            .spawn()
            .expect("the example starts");
        let stdout = BufReader::new(process.stdout.as_mut().expect("a pipe"));
        let line = stdout.lines().next().expect("it says where it listens").expect("it is text");
        let url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Service { process, url }
    }

    fn get(&self, path: &str) -> Answer {
        Answer::of(agent().get(format!("{}{path}", self.url)).call())
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        Answer::of(agent().post(format!("{}{path}", self.url)).send(body))
    }

    /// Sends a request and returns its connection.
    fn send(&self, path: &str) -> BufReader<TcpStream> {
        let address = self.url.strip_prefix("http://").expect("it is a URL");
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(LONG_TIMEOUT)).expect("a time");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("it reads");
        BufReader::new(stream)
    }

    /// The process ids of the workers, and the number of restarts.
    fn workers(&self) -> (Vec<u32>, u64) {
        let health = self.get("/health").body;
        let workers = health["workers"].as_array().expect("a list");
        let pid = |worker: &Value| worker["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let pids = workers.iter().map(|worker| pid(worker).expect("it is ready")).collect();
        (pids, health["restarts"].as_u64().expect("a number"))
    }

    /// Waits until the health of the pool meets the condition.
    fn health_when(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) {
        wait_until_blocking(what, LONG_TIMEOUT, || {
            let health = self.get("/health");
            assert_eq!(health.status, 200);
            wanted(&health.body)
        });
    }

    /// Sends SIGTERM and waits for the exit.
    fn end(mut self) -> ExitStatus {
        self.terminate();
        self.ended()
    }

    fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    }

    fn ended(&mut self) -> ExitStatus {
        let mut rest = String::new();
        self.process.stdout.take().expect("a pipe").read_to_string(&mut rest).expect("it is text");
        assert_eq!(rest.trim(), "ended");
        self.process.wait().expect("the process is our child")
    }
}

impl Answer {
    #[track_caller]
    fn of(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
        let mut answer = answer.expect("an answer");
        let retry_after =
            answer.headers().get("retry-after").map(|value| value.to_str().expect("text").to_owned());
        let body = answer.body_mut().read_to_string().expect("text");
        let body = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        Answer { status: answer.status().as_u16(), retry_after, body }
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(LONG_TIMEOUT));
    config.build().into()
}

example_test! {
    fn service_answers_results_and_errors() {
        let service = Service::start(2, 100);
        let words = service.get("/words?text=to+be+or+not+to+be");
        assert_eq!((words.status, words.body), (200, json!({"words": 6})));
        let scores = service.post("/readability", "To be, or not to be. That is the question.");
        assert_eq!(scores.status, 200);
        assert!(scores.body["flesch"].as_f64().is_some_and(|flesch| flesch > 50.0), "{}", scores.body);
        let raised = service.post("/readability", "");
        assert_eq!(raised.status, 500);
        assert_eq!(raised.body, json!({"type": "ValueError", "message": "the text has no words"}));
        let health = service.get("/health");
        assert_eq!((health.status, &health.body["size"], &health.body["ready"]), (200, &json!(2), &json!(2)));
        let status = service.end();
        assert!(status.success(), "{status}");
    }
}

example_test! {
    fn service_streams_words_and_errors() {
        let service = Service::start(1, 100);
        let answer = service.send("/generate?prompt=to+be&tokens=3");
        let mut events = answer.lines().map_while(Result::ok).filter(|line| line.contains("data") || line.contains("event"));
        let mut next = || events.next().expect("another line");
        assert_eq!(next(), "content-type: text/event-stream");
        for _ in 0..3 {
            let data = next();
            let word = data.strip_prefix("data: ").unwrap_or_else(|| panic!("{data}"));
            assert!(serde_json::from_str::<String>(word).is_ok_and(|word| !word.is_empty()), "{word}");
        }
        assert_eq!((next(), next()), ("event: end".to_owned(), "data".to_owned()));

        let (workers, _) = service.workers();
        let broken = service.send("/generate?prompt=to+be&tokens=100000");
        let mut lines = broken.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with("data: ")));
        kill(workers[0]);
        assert!(lines.any(|line| line == "event: error"));
        let why = lines.next().expect("it says why");
        assert!(why.starts_with("data: \"the worker died (signal 9, SIGKILL) while it ran `generate`"), "{why}");
        let status = service.end();
        assert!(status.success(), "{status}");
    }
}

example_test! {
    fn service_answers_requests_from_many_threads() {
        let service = Service::start(2, 100);
        thread::scope(|scope| {
            for client in 0..8 {
                let service = &service;
                scope.spawn(move || {
                    for words in 1..=20 {
                        let text = vec![format!("client{client}"); words].join("+");
                        let answer = service.get(&format!("/words?text={}", text.replace(char::is_numeric, "")));
                        assert_eq!((answer.status, answer.body), (200, json!({"words": words})));
                    }
                });
            }
        });
        let status = service.end();
        assert!(status.success(), "{status}");
    }
}

example_test! {
    fn overloaded_service_answers_with_retry_after() {
        let service = Service::start(1, 1);
        thread::scope(|scope| {
            let running = service.send("/think?seconds=1000");
            service.health_when("one runs", |health| health["busy"] == 1);
            let waiting = scope.spawn(|| service.get("/think?seconds=0"));
            service.health_when("one request is queued", |health| health["waiting"] == 1);
            let refused = service.get("/think?seconds=0");
            assert_eq!((refused.status, &refused.body["type"]), (503, &json!("Overloaded")));
            let retry_after = refused.retry_after.expect("a header");
            assert!(retry_after.parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{retry_after}");
            // Dropping the connection frees the worker.
            drop(running);
            assert_eq!(waiting.join().expect("no panic").status, 200);
        });
        let status = service.end();
        assert!(status.success(), "{status}");
    }
}

example_test! {
    fn sigterm_answers_the_running_request_before_exit() {
        let mut service = Service::start(2, 100);
        let (workers, _) = service.workers();
        assert!(workers.len() == 2 && workers.iter().all(|&pid| is_alive(pid)));
        thread::scope(|scope| {
            let running = scope.spawn(|| service.get("/think?seconds=2.5"));
            // On a busy machine the call may end before the next poll.
            service.health_when("the call has started", |health| health["assigned"] == 1);
            service.terminate();
            let answer = running.join().expect("no panic");
            assert_eq!((answer.status, answer.body), (200, json!({"thought": "thought for 2.5 s"})));
        });
        assert_eq!(service.ended().code(), Some(0));
        let left: Vec<String> = workers.iter().filter(|&&pid| is_alive(pid)).map(|&pid| describe(pid)).collect();
        assert!(left.is_empty(), "the pool ends before the process: {left:?}");
        assert!(descendants(std::process::id()).is_empty());
        let exits = lines("exits");
        assert!(workers.iter().all(|pid| exits.contains(&pid.to_string())), "{workers:?} in order: {exits:?}");
    }
}

example_test! {
    fn second_signal_ends_the_service_at_once() {
        let mut service = Service::start(1, 100);
        let (workers, _) = service.workers();
        let _running = service.send("/think?seconds=1000");
        service.health_when("it runs", |health| health["busy"] == 1);
        service.terminate();
        let address = service.url.strip_prefix("http://").expect("it is a URL");
        wait_until_blocking("it takes no more requests", LONG_TIMEOUT, || TcpStream::connect(address).is_err());
        service.terminate();
        assert_eq!(service.process.wait().expect("the process is our child").code(), Some(1));
        wait_until_blocking("its worker has ended with it", LONG_TIMEOUT, || !is_alive(workers[0]));
    }
}

example_test! {
    fn used_port_is_reported_before_python_starts() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("it is bound").to_string();
        python_module(&scratch(), "sitecustomize", "open(__file__ + '.ran', 'w').close()");
        let output = Command::new(example("actix_web"))
            .env("ADDRESS", &address)
            .env("PYTHONPATH", scratch())
            .output()
            .expect("the example starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(&format!("cannot listen on {address}")), "{told}");
        assert!(!scratch_file("sitecustomize.py.ran").exists(), "Python was started");
    }
}

example_test! {
    fn client_closing_its_stream_cancels_the_generator() {
        let service = Service::start(1, 100);
        let before = service.workers();
        let mut answer = service.send("/generate?prompt=to+be&tokens=100000");
        let mut words = answer.by_ref().lines().map_while(Result::ok).filter(|line| line.starts_with("data: "));
        assert!(words.nth(2).is_some(), "three words have come");
        drop(answer);
        wait_until_blocking("the generator's `finally` has run", LONG_TIMEOUT, || {
            lines("log").iter().any(|line| line.contains("generate('to be'): closed after "))
        });
        service.health_when("its worker is free", |health| health["busy"] == 0);
        assert_eq!(service.get("/words?text=to+be").body, json!({"words": 2}));
        assert_eq!(service.workers(), before, "the same process serves on");
        let status = service.end();
        assert!(status.success(), "{status}");
    }
}

example_test! {
    fn client_disconnect_cancels_its_call() {
        let service = Service::start(1, 100);
        let before = service.workers();
        let running = service.send("/think?seconds=1000");
        service.health_when("it runs", |health| health["busy"] == 1);
        let waiting = service.send("/think?seconds=1000");
        service.health_when("another one waits", |health| health["waiting"] == 1);
        drop(waiting);
        service.health_when("it has left the queue", |health| health["waiting"] == 0);
        drop(running);
        service.health_when("the worker is free", |health| health["busy"] == 0);
        // A handler that outlived its client would run into a deadline: 5 s in the queue or 30 s for the call.
        let timeouts: Vec<String> = lines("log").into_iter().filter(|line| line.contains("the deadline passed")).collect();
        assert!(timeouts.is_empty(), "{timeouts:?}");
        assert_eq!(service.get("/words?text=to+be").body, json!({"words": 2}));
        assert_eq!(service.workers(), before, "the same process serves on");
        let status = service.end();
        assert!(status.success(), "{status}");
    }
}
