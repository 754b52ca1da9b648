//! Workers that send unsafe memfds: the callers get an error and the host is not harmed.

use hatchery::{Buffer, CallError};

use super::{SMALL_FRAME, pool_of};
use crate::support::{LONG_TIMEOUT, alone_test, fds, status_when, wait_until};

/// User code that replaces how the package sends memfds.
const SOURCE: &str = r#"
import fcntl, os, struct, threading, time
import hatchery._memfds as memfds

SIZE = 1 << 20
honest = memfds._memfd_of
kept = []

def ping(): return 'pong'

def send_with(make):
    memfds._memfd_of = lambda data: make(bytes(data))
    return bytes(SIZE)

def plain(data, seals=0):
    fd = os.memfd_create('test', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    kept.append(os.dup(fd))
    return fd

def unsealed(): return send_with(plain)
def may_shrink(): return send_with(lambda data: plain(data, fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE))
def may_be_written(): return send_with(lambda data: plain(data, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK))
def future_write_only(): return send_with(lambda data: plain(data, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | 0x10))
def short(): return send_with(lambda data: honest(data[:100]))
def empty(): return send_with(lambda data: honest(b''))
def a_file(): return send_with(lambda data: os.open(__file__, os.O_RDONLY))
def a_pipe(): return send_with(lambda data: os.pipe()[0])
def a_directory(): return send_with(lambda data: os.open('/', os.O_RDONLY))

def truncated():
    def make(data):
        fd = plain(data)
        os.ftruncate(fd, 1)
        return fd
    return send_with(make)

def truncated_later():
    def make(data):
        fd = plain(data)
        def cut():
            while True:
                os.ftruncate(kept[-1], 0)
                os.ftruncate(kept[-1], SIZE)
        threading.Thread(target=cut, daemon=True).start()
        return fd
    return send_with(make)

def none_sent():
    class Deaf:
        def sendmsg(self, *_): pass
    memfds._connected = lambda fd: Deaf()
    return bytes(SIZE)

def of_another_call():
    memfds._CALL_ID = struct.Struct('<Q')
    return bytes(SIZE)

def too_few():
    real = memfds._connected
    class Half:
        def __init__(self, fd): self.fd = fd
        def sendmsg(self, data, rights, flags):
            (level, kind, fds), = rights
            return real(self.fd).sendmsg(data, [(level, kind, fds[:1])], flags)
    memfds._connected = Half
    return [bytes(SIZE), bytes(SIZE)]

def longer_than_addresses():
    def make(data):
        fd = os.memfd_create('test', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, (1 << 63) - 4096)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 7)
        return fd
    memfds._memfd_of = make
    class Long(bytes):
        def __len__(self): return 1 << 62
    import hatchery._attachments as attachments
    attachments._bytes_of = lambda value: (Long(b'x'),) if isinstance(value, bytes) else None
    memfds._size = lambda body, large: 20 + 8 + len(body.json) if large else 1 << 62
    return b'x'

def keeps():
    def make(data):
        fd = honest(data)
        kept.append(os.dup(fd))
        return fd
    return send_with(make)

def harms():
    said = []
    for harm in (lambda fd: os.ftruncate(fd, 0), lambda fd: os.pwrite(fd, b'x', 0), lambda fd: os.ftruncate(fd, 2 * SIZE)):
        try:
            harm(kept[-1])
            said.append('done')
        except OSError as error:
            said.append(type(error).__name__)
    return said
"#;

const UNSAFE_SENDS: &[&str] = &[
    "unsealed",
    "may_shrink",
    "may_be_written",
    "future_write_only",
    "short",
    "empty",
    "a_file",
    "a_pipe",
    "a_directory",
    "truncated",
    "truncated_later",
    "none_sent",
    "of_another_call",
    "too_few",
    "longer_than_addresses",
];

alone_test! {
    async fn unsafe_memfd_is_a_protocol_error_and_replaces_worker() {
        let open = || fds(std::process::id()).len();
        let before = open();
        for function in UNSAFE_SENDS {
            // One pool per case, because repeated deaths would cause a back-off.
            let pool = pool_of(SOURCE).max_frame_bytes(SMALL_FRAME).start().await.expect("the pool starts");
            let error = pool.call::<_, Buffer>(function, ()).await.expect_err(function);
            let CallError::Protocol { detail, .. } = &error else { panic!("{function}: {error:?}") };
            assert!(detail.contains("attachments of a frame"), "{function}: {detail}");
            status_when(&pool, "the worker is replaced", |it| it.restarts == 1 && it.ready == 1).await;
            assert_eq!(pool.call::<_, String>("ping", ()).await.expect("the pool serves"), "pong");
            pool.shutdown().await;
            wait_until(&format!("{function}: what came is closed"), LONG_TIMEOUT, || open() == before).await;
        }
    }
}

alone_test! {
    async fn sent_memfd_cannot_be_changed_by_the_worker() {
        let pool = pool_of(SOURCE).max_frame_bytes(SMALL_FRAME).start().await.expect("the pool starts");
        let buffer: Buffer = pool.call("keeps", ()).await.expect("it is good");
        let said: Vec<String> = pool.call("harms", ()).await.expect("the call succeeds");
        assert_eq!(said, ["PermissionError"; 3]);
        assert!(buffer.len() == 1 << 20 && buffer.iter().all(|byte| *byte == 0));
        assert_eq!(pool.status().await.expect("the pool runs").restarts, 0);
        pool.shutdown().await;
    }
}
