//! Partitions on real actors.

use futures_util::future::join_all;
use hatchery::supervisor::{
    ChildCount, ChildError, ChildRef, ChildSpec, Partitions, Supervisor, SupervisorBuilder,
};

use crate::support::*;

async fn eight(diary: &Diary) -> (Supervisor, Partitions<ChildRef<Puppet>>) {
    let builder =
        SupervisorBuilder::partition("eight", 8, |_| Puppet::spec(diary, "part")).intensity(1, HOUR);
    let app = Supervisor::builder("app").supervisor("eight", builder).start().await.unwrap();
    let partitions = app.partitions("eight").unwrap();
    (app, partitions)
}

async fn active(app: &Supervisor) -> usize {
    let ChildCount { active, .. } = app.supervisor("eight").unwrap().count_children().await.unwrap();
    active
}

/// Each resize begins where the one before has ended.
#[actix::test]
async fn concurrent_resizes_follow_one_another() {
    let diary = Diary::default();
    let (app, partitions) = eight(&diary).await;
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut size = partitions.len();
        let sizes: Vec<usize> = (0..30).map(|_| random.usize(..=8)).collect();
        let resizes = sizes.iter().map(|&size| partitions.resize(size));
        for (former, next) in within("all resizes", join_all(resizes)).await.into_iter().zip(&sizes) {
            assert_eq!(former.unwrap(), size, "seed {seed}");
            size = *next;
        }
        assert_eq!((partitions.len(), active(&app).await), (size, size), "seed {seed}");
        assert_eq!(diary.living(), size);
        for key in 0..size {
            let partition = partitions.route_number(key as i64).unwrap();
            assert!(within("an answer", partition.send(Who)).await.is_ok());
        }
    }
    stop(app, &diary).await;
}

#[test]
fn resizes_from_other_threads() {
    let diary = Diary::default();
    actix::System::new().block_on(async {
        let (app, partitions) = eight(&diary).await;
        let threads: Vec<_> = (0..8)
            .map(|seed| {
                let partitions = partitions.clone();
                std::thread::spawn(move || {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..25 {
                        let resize = partitions.resize(random.usize(..=8));
                        runtime.block_on(within("a resize", resize)).unwrap();
                    }
                })
            })
            .collect();
        wait_until("all threads to end", || threads.iter().all(|thread| thread.is_finished())).await;
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(active(&app).await, partitions.len());
        stop(app, &diary).await;
    });
}

/// Whoever asked may go away: half a resize would be worse.
#[actix::test]
async fn a_resize_goes_on_without_its_caller() {
    let diary = Diary::default();
    let (app, partitions) = eight(&diary).await;
    let mut resize = Box::pin(partitions.resize(1));
    let waker = std::task::Waker::noop();
    assert!(resize.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
    drop(resize);
    assert_eq!(within("the next", partitions.resize(1)).await.unwrap(), 1);
    assert_eq!(diary.living(), 1);
    stop(app, &diary).await;
}

#[actix::test]
async fn a_restart_of_the_supervisor_brings_all_back() {
    let diary = Diary::default();
    let (app, partitions) = eight(&diary).await;
    partitions.resize(2).await.unwrap();
    let eight = app.supervisor("eight").unwrap();
    let mut reports = app.subscribe();
    for _ in 0..2 {
        // Its own restart of the partition may come first.
        partitions.all()[0].ready(PATIENCE).await.unwrap().do_send(End::Panic);
        terminated(&mut reports, "0").await;
    }
    started(&mut reports, "eight").await;
    assert_eq!((partitions.len(), active(&app).await), (8, 8));
    assert_eq!(within("a resize", partitions.resize(0)).await.unwrap(), 8);
    assert!(matches!(partitions.resize(9).await, Err(ChildError::MaxChildren { max: 8 })));
    let stopping = app.stop_within(PATIENCE);
    within("the stop", stopping).await.unwrap();
    assert!(matches!(partitions.resize(1).await, Err(ChildError::SupervisorDown)));
    assert!(eight.count_children().await.is_err());
    assert_eq!(diary.living(), 0);
}

/// Each on a thread of its own: what Elixir's partitions are mostly used for.
#[actix::test]
async fn partitions_that_are_supervisors() {
    let diary = Diary::default();
    let builder = SupervisorBuilder::partition("rooms", 3, |number| {
        let room = Supervisor::dynamic("room").intensity(number as u32, HOUR);
        ChildSpec::from(room).on_dedicated_arbiter()
    });
    let app =
        Supervisor::builder("app").intensity(1, HOUR).supervisor("rooms", builder).start().await.unwrap();
    let rooms = app.supervisor_partitions("rooms").unwrap();
    assert!(app.partitions::<Puppet>("rooms").is_err());
    for key in 0..6 {
        let room = rooms.route_number(key).unwrap();
        room.start_child(Puppet::spec(&diary, &format!("guest {key}"))).await.unwrap();
        assert_eq!(room.path(), format!("app/rooms/{}", key % 3));
    }
    // One room gives up; it is still the one of its keys.
    let mut reports = app.subscribe();
    puppet(&app, "rooms/0/guest 3").do_send(End::Panic).unwrap();
    started(&mut reports, "0").await;
    let rooms_alive = app.supervisor("rooms").unwrap();
    assert_eq!(counts(&rooms_alive).await, [3, 3, 3, 0]);
    assert_eq!(counts(rooms.route_number(3).unwrap()).await, [0, 0, 0, 0]);
    assert_eq!(counts(rooms.route_number(4).unwrap()).await, [2, 2, 0, 2]);

    assert_eq!(rooms.resize(1).await.unwrap(), 3);
    assert_eq!(diary.living(), 0, "the rooms out of use are empty");
    assert!(rooms.route_number(2).unwrap().path().ends_with("/0"));
    assert_eq!(rooms.resize(2).await.unwrap(), 1);
    rooms.route_number(1).unwrap().start_child(Puppet::spec(&diary, "guest")).await.unwrap();
    stop(app, &diary).await;
}

#[actix::test]
async fn by_default_one_for_each_core() {
    let diary = Diary::default();
    let builder = SupervisorBuilder::partition("parts", None, |_| Puppet::spec(&diary, "part"));
    let app = Supervisor::builder("app").supervisor("parts", builder).start().await.unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(app.partitions::<Puppet>("parts").unwrap().len(), cores);
    stop(app, &diary).await;
}

/// A root has no supervisor above it that could look it up.
#[actix::test]
async fn partitions_of_a_root_are_found_by_its_own_path() {
    let diary = Diary::default();
    let builder = SupervisorBuilder::partition("app", 3, |_| Puppet::spec(&diary, "part"));
    let app = builder.start().await.unwrap();
    for path in ["", "app", app.path()] {
        let partitions: Partitions<ChildRef<Puppet>> = app.partitions(path).unwrap();
        assert_eq!(partitions.len(), 3);
        assert_eq!(partitions.route_number(4).unwrap().path(), "app/1");
        assert_eq!(app.supervisor(path).unwrap().path(), "app");
    }
    assert!(app.partitions::<Puppet>("0").is_err(), "an actor");
    assert_eq!(app.child::<Puppet>("app/2").unwrap().path(), "app/2");
    within("an end", app.terminate_child("app/2")).await.unwrap();
    assert_eq!(listed(&app).await, ["0 running", "1 running", "2 down"]);
    stop(app, &diary).await;

    let nested = Supervisor::builder("nested").supervisor("parts", Supervisor::dynamic("parts"));
    let builder = SupervisorBuilder::partition("app", 2, |_| nested.clone());
    let app = builder.start().await.unwrap();
    let parts = app.supervisor_partitions("").unwrap();
    assert_eq!(parts.route_number(1).unwrap().path(), "app/1");
    let one = app.supervisor("app/1").unwrap();
    assert_eq!(one.supervisor(one.path()).unwrap().path(), "app/1");
    assert_eq!(one.supervisor("app/1/parts").unwrap().path(), "app/1/parts");
    assert!(one.supervisor("app/10").is_err() && one.supervisor("app").is_err());
    within("the stop", app.stop()).await;
}

#[actix::test]
async fn child_with_the_id_of_the_root_comes_first() {
    let diary = Diary::default();
    let inner = Supervisor::builder("app").child_spec(Puppet::spec(&diary, "a"));
    let app = Supervisor::builder("app").supervisor("app", inner).start().await.unwrap();
    assert_eq!(app.supervisor("app").unwrap().path(), "app/app");
    assert_eq!(app.child::<Puppet>("app/a").unwrap().path(), "app/app/a");
    assert_eq!(app.supervisor("").unwrap().path(), "app");
    stop(app, &diary).await;
}
