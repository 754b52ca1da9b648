//! Partition supervisors, as Elixir's.

use std::collections::HashSet;

use hatchery::supervisor::{
    ChildError, ChildRef, LookupError, Partitions, Supervisor, SupervisorBuilder, SupervisorRef,
};

use crate::support::*;

async fn parts(diary: &Diary, count: usize) -> (Supervisor, SupervisorRef, Partitions<ChildRef<Puppet>>) {
    let builder = SupervisorBuilder::partition("parts", count, |_| Puppet::spec(diary, "part"));
    let app = Supervisor::builder("app").supervisor("parts", builder).start().await.unwrap();
    let (supervisor, parts) = (app.supervisor("parts").unwrap(), app.partitions("parts").unwrap());
    (app, supervisor, parts)
}

#[actix::test]
async fn keys_are_routed() {
    let diary = Diary::default();
    let (app, supervisor, parts) = parts(&diary, 3).await;
    assert_eq!(counts(&supervisor).await, [3, 3, 0, 3]);
    assert_eq!(listed(&supervisor).await, ["0 running", "1 running", "2 running"]);
    assert_eq!((parts.len(), parts.all().len()), (3, 3));
    for (key, index) in [(0, 0), (1, 1), (2, 2), (3, 0), (-1, 1), (i64::MIN, 2)] {
        let part = parts.route_number(key).unwrap();
        assert_eq!(part.path(), format!("app/parts/{index}"), "key {key}");
        assert_eq!(within("an answer", part.send(Who)).await.ok(), part.incarnation());
    }
    // Any other key goes by its hash: always to the same, and all are used.
    let route = |key: u32| parts.route(&format!("key {key}")).unwrap().path().to_owned();
    let used: HashSet<String> = (0..100).map(route).collect();
    assert_eq!(used.len(), 3);
    assert!((0..100).all(|key| route(key) == route(key)));
    // A partition that is restarted keeps its keys.
    crash(&supervisor, "1").await;
    assert_eq!(
        within("an answer", parts.route_number(1).unwrap().send(Who)).await.ok(),
        incarnations(&supervisor).await[1]
    );
    stop(app, &diary).await;
}

#[actix::test]
async fn resize() {
    let diary = Diary::default();
    let (app, supervisor, parts) = parts(&diary, 8).await;
    diary.take();
    assert_eq!(parts.resize(0).await.unwrap(), 8);
    assert_eq!(
        diary.take(),
        ["stop 7", "stop 6", "stop 5", "stop 4", "stop 3", "stop 2", "stop 1", "stop 0"]
    );
    assert!(parts.is_empty());
    assert!(parts.route(&"key").is_none() && parts.route_number(i64::MIN).is_none());
    assert_eq!(counts(&supervisor).await, [8, 0, 0, 8]);

    assert_eq!(parts.resize(8).await.unwrap(), 0);
    assert_eq!(counts(&supervisor).await, [8, 8, 0, 8]);
    assert_eq!(parts.resize(8).await.unwrap(), 8);
    assert!(matches!(parts.resize(9).await, Err(ChildError::MaxChildren { max: 8 })));
    assert_eq!(parts.len(), 8);

    assert_eq!(parts.resize(3).await.unwrap(), 8);
    assert_eq!(counts(&supervisor).await, [8, 3, 0, 8]);
    assert_eq!(parts.route_number(-4).unwrap().path(), "app/parts/1");
    assert_eq!(parts.resize(5).await.unwrap(), 3);
    assert_eq!(parts.route_number(-4).unwrap().path(), "app/parts/4");
    // All who have it see the same size.
    assert_eq!(app.partitions::<Puppet>("parts").unwrap().len(), 5);
    stop(app, &diary).await;
}

#[actix::test]
async fn what_is_no_partition() {
    let diary = Diary::default();
    let (app, ..) = parts(&diary, 2).await;
    app.start_child(Supervisor::builder("inner")).await.unwrap();
    for path in ["inner", "parts/1", "nobody"] {
        assert!(app.partitions::<Puppet>(path).is_err(), "{path}");
        assert!(app.supervisor_partitions(path).is_err(), "{path}");
    }
    struct Other;
    impl actix::Actor for Other {
        type Context = actix::Context<Self>;
    }
    assert!(matches!(app.partitions::<Other>("parts"), Err(LookupError::WrongType { .. })));
    assert!(matches!(app.supervisor_partitions("parts"), Err(LookupError::WrongKind { .. })));
    stop(app, &diary).await;
}
