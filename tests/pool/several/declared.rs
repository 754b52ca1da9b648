//! Functions declared with Rust signatures.

use hatchery::{CallError, Module, Pool, PoolStartError, WorkerStartError};

use crate::support::{alone_test, pool_of};

const SOURCE: &str = r#"
def add(a, b=10, *, c=0):
    return a + b + c


def nothing():
    pass


def match(type, yes=True):
    return type if yes else None


def words(text):
    yield from text.split()
"#;

hatchery::module! {
    /// The correct declaration.
    struct Right;

    /// The sum.
    fn add(a: i64, b: i64) -> i64;
    fn nothing();
    fn r#match(r#type: &str) -> String;
    stream fn words(text: &str) -> String;
}

hatchery::module! {
    struct Misspelt;
    fn ad(a: i64) -> i64;
}

hatchery::module! {
    struct Misnamed;
    fn add(a: i64, x: i64) -> i64;
}

hatchery::module! {
    struct TooMany;
    fn words(text: &str, language: &str);
}

alone_test! {
    async fn declared_functions_can_be_called_as_methods() {
        let pool = pool_of(SOURCE).size(1).declares::<Right>().start().await.expect("it is as declared");
        let module = Right::of(pool.clone());
        assert_eq!(module.add(1, 2).await.expect("it adds"), 3);
        module.nothing().await.expect("it returns None");
        assert_eq!(module.r#match("x").await.expect("its name is a keyword here"), "x");
        let mut words = module.words("to be").await.expect("it opens");
        let mut all = Vec::new();
        while let Some(word) = words.next().await {
            all.push(word.expect("it has words"));
        }
        assert_eq!(all, ["to", "be"]);
        let error = module.pool().call::<_, ()>("add", ("x",)).await.expect_err("Python knows better");
        assert!(matches!(error, CallError::Python { .. }), "{error:?}");
        pool.shutdown().await;
    }
}

async fn refused<M: Module>(told: &str) {
    let started: Result<Pool, PoolStartError> = pool_of(SOURCE).size(1).declares::<M>().start().await;
    let error = started.expect_err("it is not as declared");
    let Some(WorkerStartError::Declaration(problem)) = error.worker_error() else { panic!("{error:?}") };
    assert!(problem.contains(told), "{problem}");
}

alone_test! {
    async fn module_that_differs_from_its_declaration_is_refused() {
        refused::<Misspelt>("function `ad`: the module exports no such function").await;
        refused::<Misnamed>("declared as `x`, but is `b`").await;
        refused::<TooMany>("declared with 2 parameters, but takes 1").await;
    }
}
