//! Process titles and child processes of a worker.

use std::fs;

use crate::support::{alone_test, pids, pool_of};

const CHILDREN: &str = r#"
import os, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import hatchery


def pid(_=None):
    hatchery.progress("harmless")
    return os.getpid()


def spawned(method):
    with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
        return pool.submit(pid).result() != os.getpid()


def started():
    return subprocess.check_output([sys.executable, "-c", "import hatchery; print(hatchery.cancelled())"], text=True)
"#;

alone_test! {
    async fn children_of_a_worker_can_import_hatchery() {
        let pool = pool_of(CHILDREN).size(1).start().await.expect("the pool starts");
        for _ in 0..2 {
            let spawned: bool = pool.call("spawned", ("spawn",)).await.expect("a child imports the module");
            assert!(spawned);
            let started: String = pool.call("started", ()).await.expect("a child imports hatchery");
            assert_eq!(started, "False\n");
            // The same in a replaced worker.
            let status = pool.status().await.expect("the pool runs");
            crate::support::kill(pids(&pool).await[0]);
            crate::support::status_when(&pool, "the worker is replaced", |now| now.restarts > status.restarts && now.idle == 1)
                .await;
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn title_names_pool_worker_and_state_without_source() {
        let pool = pool_of(CHILDREN).name("shop").size(2).start().await.expect("the pool starts");
        let title = |pid: u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).expect("it runs");
            String::from_utf8_lossy(&line).trim_end_matches('\0').to_owned()
        };
        let mut titles: Vec<_> = pids(&pool).await.into_iter().map(title).collect();
        titles.sort();
        assert_eq!(titles, ["hatchery: shop-1 (serving)", "hatchery: shop-2 (serving)"]);
        let template = pool.status().await.expect("the pool runs").zygote.and_then(|zygote| zygote.pid);
        assert_eq!(template.is_some(), crate::ZYGOTE);
        if let Some(template) = template {
            assert_eq!(title(template), "hatchery: shop-zygote (template)");
        }
        pool.shutdown().await;
    }
}
