//! Templates in their own PID namespaces.

use crate::faults::pools::{pool_of, serves, start, status};
use crate::kills::namespace::{Bystander, in_namespace};
use crate::safety::lying_template;
use crate::support::{alone_test, in_system, is_alive, role, scratch, status_when, test_path};

/// Answers with the process id in the file `named` and a pidfd of that process.
const NAMES_ANOTHER_PROCESS: &str = "with open('named') as file:
            body['pid'] = int(file.read())
        fd = self.pidfd_open(body['pid'])";

alone_test! {
    within 180 seconds:
    fn template_naming_foreign_pids_signals_no_process() {
        let test = test_path!(template_naming_foreign_pids_signals_no_process);
        if role().is_none() {
            return in_namespace(test, "");
        }
        in_system(|| async {
            let bystander = Bystander::new();
            for named in [bystander.0.id(), std::process::id(), 1] {
                std::fs::write(scratch().join("named"), named.to_string()).expect("the scratch folder is writable");
                let pool = start(pool_of(&lying_template(NAMES_ANOTHER_PROCESS)).current_dir(scratch())).await;
                status_when(&pool, "the template is replaced", |it| {
                    it.zygote.as_ref().is_some_and(|zygote| zygote.restarts == 1) && it.idle == 1
                })
                .await;
                serves(&pool).await;
                pool.shutdown().await;
                // PID 1 ignores signals from inside its namespace, so only the bystander proves anything.
                assert!(is_alive(bystander.0.id()), "{named} was named");
            }
            println!("passed");
        })();
    }
}

alone_test! {
    within 120 seconds:
    fn zygote_without_proc_starts_workers_cold() {
        let test = test_path!(zygote_without_proc_starts_workers_cold);
        if role().is_none() {
            return in_namespace(test, "mount -t tmpfs none /proc || exit 9");
        }
        in_system(|| async {
            assert!(!std::path::Path::new("/proc/self").exists());
            let pool = start(pool_of("")).await;
            serves(&pool).await;
            let status = status(&pool).await;
            assert_eq!(status.workers[0].forked, Some(false), "{status:?}");
            pool.shutdown().await;
            println!("passed");
        })();
    }
}
