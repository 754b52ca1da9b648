//! Hosts under attack, each in its own PID namespace: a wrong signal cannot hit a process outside.
//!
//! ```text
//!   test  ->  unshare  ->  sh, PID 1 of the namespace  ->  host (this binary, in a role): prints "passed" at the end
//! ```

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hatchery::{CallError, Phase, Pool};
use serde_json::Value;

use crate::faults::pools::{FRAMES, pool_of, serves, start, status};
use crate::support::{alone_test, in_system, is_alive, kill, role, role_command, status_when, test_path};

/// The `unshare` command that creates PID and mount namespaces on this machine. When namespaces are not available, returns
/// `None` and says so; in CI (`CI` is set) it fails the test.
fn unshare() -> Option<Command> {
    let plain = ["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"];
    for user in [&[][..], &["--user", "--map-root-user"]] {
        let command = || {
            let mut command = Command::new("unshare");
            command.args(user).args(plain);
            command
        };
        let works = command().arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if works.is_ok_and(|status| status.success()) {
            return Some(command());
        }
    }
    assert!(std::env::var_os("CI").is_none(), "`unshare` can make no PID namespace here");
    eprintln!("skipped: `unshare` can make no PID namespace here");
    None
}

/// Runs the host of the test in its own namespaces, after the shell commands `prepare`.
pub(crate) fn in_namespace(test: &str, prepare: &str) {
    let Some(mut unshare) = unshare() else { return };
    let host = role_command(test, "host");
    unshare.args(["sh", "-c", &format!("{prepare}\n\"$@\"\nexit $?"), "sh"]);
    unshare.arg(host.get_program()).args(host.get_args());
    unshare.envs(host.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    let output = unshare.output().expect("it ran a moment ago");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("passed"), "{}\n{text}\n{errors}", output.status);
}

/// A process that the pool must not signal.
pub(crate) struct Bystander(pub(crate) Child);

impl Bystander {
    pub(crate) fn new() -> Self {
        Self(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("sleep is there"))
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        kill(self.0.id());
        // A host that reaps all children may have reaped it.
        let _ = self.0.wait();
    }
}

/// Asserts that killed workers are replaced and that a bystander stays alive.
async fn assert_kills_hit_only_workers(pool: &Pool) {
    let bystander = Bystander::new();
    for round in 1..=5 {
        kill(status(pool).await.workers[0].pid.expect("it is ready"));
        status_when(pool, "the worker is replaced", |it| it.restarts == round && it.idle == 1).await;
        serves(pool).await;
    }
    let error = pool.request("spin").timeout(Duration::from_millis(100)).send::<()>().await;
    error.expect_err("the call never returns");
    status_when(pool, "the pool kills it", |it| it.restarts == 6 && it.idle == 1).await;
    assert!(is_alive(bystander.0.id()), "the bystander lives");
}

const SPIN: &str = "
import signal
def spin():
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    sum(range(10**15))
";

alone_test! {
    within 180 seconds:
    fn host_ignoring_sigchld_signals_only_its_workers() {
        let test = test_path!(host_ignoring_sigchld_signals_only_its_workers);
        if role().is_none() {
            return in_namespace(test, "");
        }
        // SAFETY: this installs no handler.
        #[allow(unsafe_code)]
        unsafe {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        }
        in_system(|| async {
            let pool = start(pool_of(SPIN).cancel_grace(Duration::from_millis(100))).await;
            assert_kills_hit_only_workers(&pool).await;
            pool.shutdown().await;
            println!("passed");
        })();
    }
}

alone_test! {
    within 180 seconds:
    fn host_reaping_all_children_signals_only_its_workers() {
        let test = test_path!(host_reaping_all_children_signals_only_its_workers);
        if role().is_none() {
            return in_namespace(test, "");
        }
        std::thread::spawn(|| {
            loop {
                // SAFETY: a null status pointer is allowed.
                #[allow(unsafe_code)]
                let reaped = unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
                if reaped == -1 {
                    std::thread::sleep(Duration::from_millis(5)); // this process has no child now
                }
            }
        });
        in_system(|| async {
            let pool = start(pool_of(SPIN).cancel_grace(Duration::from_millis(100))).await;
            assert_kills_hit_only_workers(&pool).await;
            pool.shutdown().await;
            println!("passed");
        })();
    }
}

/// Functions that pass a socket whose last close blocks: it lingers, and its peer reads nothing.
const LINGERS: &str = r#"
import socket, time
import hatchery._memfds as memfds

def lingering(port):
    made = socket.create_connection(("127.0.0.1", port))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
    made.setblocking(False)
    try:
        while True:
            made.send(bytes(1 << 16))
    except BlockingIOError:
        return made.detach()

def on_memfds(port):
    send, null = memfds._send_memfds, os.open(os.devnull, os.O_RDONLY)
    def send_and_close(channel, call_id, fds):
        sent = send(channel, call_id, fds)
        for fd in fds:
            os.dup2(null, fd)  # the close in the host is the last one
        return sent
    memfds._memfd_of, memfds._send_memfds = lambda data: lingering(port), send_and_close
    return bytes(1 << 20)

def on_channel(port):
    fd = lingering(port)
    try:
        with socket.socket(fileno=os.dup(_channel())) as channel:
            channel.sendmsg([_frame(19, 1, codec=0)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))])
    except PermissionError:
        return  # the kernel refuses descriptors on the channel
    finally:
        os.closerange(fd, fd + 1)

def sleep(seconds):
    time.sleep(seconds)
"#;

/// Asserts that calls succeed and a deadline holds.
async fn assert_pool_serves(pool: &Pool) {
    for _ in 0..20 {
        serves(pool).await;
    }
    let error = pool.request("sleep").args((1000,)).timeout(Duration::from_millis(200)).send::<()>().await;
    assert!(matches!(error, Err(CallError::Timeout { phase: Phase::Run, .. })), "{error:?}");
}

alone_test! {
    within 180 seconds:
    fn slow_close_of_passed_socket_does_not_delay_others() {
        let test = test_path!(slow_close_of_passed_socket_does_not_delay_others);
        if role().is_none() {
            return in_namespace(test, "");
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        // Connections stay open and are not read.
        std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
        in_system(move || async move {
            for function in ["on_memfds", "on_channel"] {
                // The bytes do not fit in a frame, so they go in a memfd.
                let pool = start(pool_of(&[FRAMES, LINGERS].concat()).size(2).max_frame_bytes(1 << 16)).await;
                let answer = pool.call::<_, Value>(function, (port,)).await;
                assert!(function == "on_channel" || answer.is_err(), "{answer:?}");
                assert_pool_serves(&pool).await;
                pool.shutdown().await;
            }
            println!("passed");
        })();
    }
}

/// Traces a process and never waits for it.
const TRACER: &str = "
import ctypes, sys, time
PTRACE_SEIZE = 0x4206
arguments = [ctypes.c_long(it) for it in (PTRACE_SEIZE, int(sys.argv[1]), 0, 0)]
print(ctypes.CDLL(None).ptrace(*arguments), flush=True)
time.sleep(1000)
";

alone_test! {
    within 180 seconds:
    fn death_of_traced_worker_does_not_delay_others() {
        let test = test_path!(death_of_traced_worker_does_not_delay_others);
        if role().is_none() {
            return in_namespace(test, "");
        }
        in_system(|| async {
            let pool = start(pool_of(&[FRAMES, LINGERS].concat()).size(2)).await;
            let worker = status(&pool).await.workers[0].pid.expect("it is ready");
            let mut tracer = Command::new("python3");
            tracer.args(["-c", TRACER, &worker.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
            let mut tracer = Bystander(tracer.spawn().expect("Python is there"));
            let mut answer = String::new();
            let said = tracer.0.stdout.take().expect("it is a pipe");
            BufReader::new(said).read_line(&mut answer).expect("it says whether it traces");
            assert_eq!(answer, "0\n", "the tracer is not permitted to trace");
            kill(worker);
            status_when(&pool, "the worker is replaced", |it| it.restarts == 1 && it.idle == 2).await;
            assert_pool_serves(&pool).await;
            pool.shutdown().await;
            println!("passed");
        })();
    }
}
