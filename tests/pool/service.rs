//! The actix-web example, over HTTP.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use serde_json::{Value, json};

use crate::support::{
    SOON, alone_test, descendants, describe, example, is_alive, lines, python_module, scratch,
    wait_until_blocking,
};

/// Runs in every Python: tells of an orderly end.
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

    /// Waits until the pool's health is as wanted.
    fn health_when(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) {
        wait_until_blocking(what, SOON, || {
            let health = self.get("/health");
            assert_eq!(health.status, 200);
            wanted(&health.body)
        });
    }

    /// Tells it to end, and waits until it has.
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
        self.process.wait().expect("it is ours")
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
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(SOON));
    config.build().into()
}

alone_test! {
    fn results_and_errors_are_answered() {
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

alone_test! {
    fn requests_from_many_threads_are_answered() {
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

alone_test! {
    fn overload_is_answered_with_when_to_come_again() {
        let service = Service::start(1, 1);
        thread::scope(|scope| {
            let running = scope.spawn(|| service.get("/think?seconds=3"));
            service.health_when("one runs", |health| health["busy"] == 1);
            let waiting = scope.spawn(|| service.get("/think?seconds=0"));
            service.health_when("one waits", |health| health["waiting"] == 1);
            let refused = service.get("/think?seconds=0");
            assert_eq!((refused.status, &refused.body["type"]), (503, &json!("Overloaded")));
            let retry_after = refused.retry_after.expect("a header");
            assert!(retry_after.parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{retry_after}");
            assert_eq!(running.join().expect("no panic").status, 200);
            assert_eq!(waiting.join().expect("no panic").status, 200);
        });
        let status = service.end();
        assert!(status.success(), "{status}");
    }
}

alone_test! {
    fn on_a_signal_to_end_the_request_in_progress_is_answered_first() {
        let mut service = Service::start(2, 100);
        let health = service.get("/health");
        let workers: Vec<u32> = health.body["workers"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|worker| worker["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("it is ready"))
            .collect();
        assert!(workers.len() == 2 && workers.iter().all(|&pid| is_alive(pid)));
        thread::scope(|scope| {
            let running = scope.spawn(|| service.get("/think?seconds=2.5"));
            service.health_when("it runs", |health| health["busy"] == 1);
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
