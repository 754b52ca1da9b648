//! What is asked of a supervisor and of its children.

use hatchery::supervisor::{ChildCount, ChildError, ChildRef, Supervisor, SupervisorRef};

use super::{Diary, Puppet, Who, within};

/// [specs, active, supervisors, workers], as OTP's suite writes it.
pub(crate) async fn counts(supervisor: &impl AsRef<SupervisorRef>) -> [usize; 4] {
    let supervisor = supervisor.as_ref();
    let ChildCount { specs, active, supervisors, workers } =
        within("the counts", supervisor.count_children()).await.unwrap();
    [specs, active, supervisors, workers]
}

/// The children in start order, as "a running".
pub(crate) async fn listed(supervisor: &impl AsRef<SupervisorRef>) -> Vec<String> {
    let supervisor = supervisor.as_ref();
    let children = within("the list", supervisor.which_children()).await.unwrap();
    children.iter().map(|child| format!("{} {}", child.options.id, child.state)).collect()
}

/// The children's incarnations in start order; `None` for those that have no task.
pub(crate) async fn incarnations(supervisor: &impl AsRef<SupervisorRef>) -> Vec<Option<u64>> {
    let supervisor = supervisor.as_ref();
    let children = within("the list", supervisor.which_children()).await.unwrap();
    children.iter().map(|child| child.incarnation).collect()
}

/// Whether it runs and has not decided to end: one on its way out refuses calls.
pub(crate) async fn is_up(supervisor: &impl AsRef<SupervisorRef>) -> bool {
    let supervisor = supervisor.as_ref();
    match within("an answer", supervisor.terminate_child("nobody")).await {
        Err(ChildError::NotFound) => true,
        Err(ChildError::SupervisorDown) => false,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn puppet(supervisor: &impl AsRef<SupervisorRef>, path: &str) -> ChildRef<Puppet> {
    let supervisor = supervisor.as_ref();
    supervisor.child(path).unwrap()
}

pub(crate) async fn who(supervisor: &impl AsRef<SupervisorRef>, path: &str) -> u64 {
    let supervisor = supervisor.as_ref();
    within("an answer", puppet(supervisor, path).send(Who)).await.unwrap()
}

pub(crate) async fn stop(app: Supervisor, diary: &Diary) {
    within("the stop", app.stop()).await;
    assert_eq!(diary.living(), 0, "stopped, and nothing lives");
}

/// A stop that the test does something during.
pub(crate) fn begin_stop(app: Supervisor, diary: &Diary) -> actix_rt::task::JoinHandle<()> {
    let diary = diary.clone();
    actix_rt::spawn(async move { stop(app, &diary).await })
}
