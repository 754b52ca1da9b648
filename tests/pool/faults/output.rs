//! What user code prints goes to the log, line by line, and never into the protocol.

use std::time::Duration;

use hatchery::{CallError, Phase};
use log::Level;
use serde_json::Value;

use super::pools::{pid, pool_of, serves, start, status};
use crate::support::{
    LONG_TIMEOUT, SHORT_TIMEOUT, alone_test, kill, logged, rss_bytes, status_when, wait_until,
};

const TARGET: &str = "hatchery::python::faulty-1";

alone_test! {
    async fn print_is_logged_with_and_without_flush() {
        let source = "
def talk(lines, flush):
    for n in range(lines):
        print(f'{flush} {n}', flush=flush)
    return lines";
        let pool = start(pool_of(source)).await;
        for flush in [true, false] {
            assert_eq!(pool.call::<_, u32>("talk", (3000, flush)).await.expect("it only prints"), 3000);
        }
        serves(&pool).await;
        let word = |flush| if flush { "True" } else { "False" };
        let expected: Vec<String> =
            [true, false].into_iter().flat_map(|flush| (0..3000).map(move |n| format!("{} {n}", word(flush)))).collect();
        wait_until("all lines are logged", LONG_TIMEOUT, || logged(Level::Info, TARGET).len() >= 6000).await;
        assert_eq!(logged(Level::Info, TARGET), expected);
        assert_eq!(status(&pool).await.restarts, 0);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn output_by_every_route_is_captured() {
        let source = "
import ctypes, os, subprocess, sys
def talk():
    print('print')
    sys.stdout.write('half a ')
    sys.stdout.write('line\\n')
    os.write(1, b'os.write\\n')
    os.system('echo os.system')
    libc = ctypes.CDLL(None)
    libc.puts(b'puts')
    libc.fflush(None)
    subprocess.run(['sh', '-c', 'echo subprocess'])
    os.write(1, 'ünïcode \\n'.encode())
    os.write(1, b'no \\xff utf-8\\n')
    print('lone \\ud800')
    os.write(2, b'os.write(2)\\n')
    sys.stderr.write('stderr\\n')
    return 'said'
";
        let pool = start(pool_of(source)).await;
        assert_eq!(pool.call::<_, String>("talk", ()).await.expect("it only prints"), "said");
        serves(&pool).await;
        let lines = [
            "print", "half a line", "os.write", "os.system", "puts", "subprocess", "ünïcode ", "no \u{fffd} utf-8",
            "lone \\ud800",
        ];
        wait_until("all lines are logged", LONG_TIMEOUT, || {
            logged(Level::Info, TARGET).len() >= lines.len() && logged(Level::Warn, TARGET).len() >= 2
        })
        .await;
        assert_eq!(logged(Level::Info, TARGET), lines);
        assert_eq!(logged(Level::Warn, TARGET), ["os.write(2)", "stderr"]);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn standard_input_is_empty() {
        let source = "
import sys
def ask(): return input('your name? ')
def read(): return sys.stdin.read()";
        let pool = start(pool_of(source)).await;
        let error = pool.call::<_, Value>("ask", ()).await.expect_err("there is no input");
        assert!(matches!(&error, CallError::Python { type_name, .. } if type_name == "EOFError"), "{error:?}");
        assert_eq!(pool.call::<_, String>("read", ()).await.expect("the end of the file"), "");
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn output_line_of_10_mb_is_cut_and_uses_no_memory() {
        const MB: usize = 1_000_000;
        let source = "
import os, sys
def long(size):
    sys.stderr.write('x' * size + '\\n')
    return size
def last_words(size):
    sys.stderr.write('y' * size)
    os._exit(3)";
        let pool = start(pool_of(source)).await;
        let own = std::process::id();
        let before = rss_bytes(own).expect("it lives");
        assert_eq!(pool.call::<_, usize>("long", (10 * MB,)).await.expect("it only prints"), 10 * MB);
        serves(&pool).await;
        wait_until("the line is logged", LONG_TIMEOUT, || !logged(Level::Warn, TARGET).is_empty()).await;
        let cap = 16 * 1024;
        assert_eq!(logged(Level::Warn, TARGET), [format!("{} [{} more bytes]", "x".repeat(cap), 10 * MB - cap)]);
        let grown = rss_bytes(own).expect("it lives").saturating_sub(before);
        assert!(grown < 5 * MB as u64, "{grown} bytes more for a line of 10 MB");

        let error = pool.call::<_, Value>("last_words", (10 * MB,)).await.expect_err("the worker dies");
        let CallError::WorkerDied { exit: Some(3), stderr_tail, .. } = &error else { panic!("{error:?}") };
        let last = stderr_tail.lines().last().expect("it wrote a line");
        assert!(last.len() < cap + 100 && last.ends_with(&format!("[{} more bytes]", 10 * MB - cap)), "{}", last.len());
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn flood_of_output_does_not_delay_the_pool() {
        let source = "
import os
def flood(): os.system('yes')
def flood_without_end_of_line(): os.system('cat /dev/zero')";
        // What runs in `os.system` hears no cancel.
        let pool = start(pool_of(source).size(2).cancel_grace(Duration::from_millis(300))).await;
        for function in ["flood", "flood_without_end_of_line"] {
            let call = pool.request(function).timeout(SHORT_TIMEOUT);
            let before = status(&pool).await.assigned;
            let (flood, ()) = tokio::join!(call.send::<Value>(), async {
                status_when(&pool, "the flood has started", |status| status.assigned > before).await;
                for _ in 0..10 {
                    serves(&pool).await;
                }
            });
            let error = flood.expect_err("the call never returns");
            assert!(matches!(error, CallError::Timeout { phase: Phase::Run, .. }), "{error:?}");
        }
        status_when(&pool, "both are back", |status| status.restarts == 2 && status.ready == 2).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn output_of_an_escaped_process_does_not_delay_the_end() {
        let source = "
import os, subprocess
def leave():
    return subprocess.Popen(['yes'], start_new_session=True).pid";
        let pool = start(pool_of(source)).await;
        // The documented escape: a process that calls setsid is nobody's.
        let escaped: u32 = pool.call("leave", ()).await.expect("the call succeeds");
        kill(pid(&pool).await);
        status_when(&pool, "the next worker is ready", |status| status.restarts == 1 && status.ready == 1).await;
        serves(&pool).await;
        pool.shutdown().await;
        kill(escaped);
    }
}
