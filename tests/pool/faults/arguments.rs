//! Calls that cannot be made as they are put.

use hatchery::CallError;
use serde_json::{Value, json};

use super::pools::{pool_of, serves, start, status};
use crate::support::alone_test;

const SOURCE: &str = "
def greet(name, greeting='hello', *, mark='!'):
    return f'{greeting} {name}{mark}'

def nothing():
    return None

def anything(*args, **kwargs):
    return [args, kwargs]

def wrong_inside(name):
    return greet(name, name, name)

def raises_type_error(name):
    raise TypeError('mine')

def count_words(text): pass
def count_lines(text): pass

async def later(name):
    return name
";

alone_test! {
    async fn arguments_are_bound_to_their_parameters() {
        let pool = start(pool_of(SOURCE)).await;
        let greet = async |args: Value| pool.call::<_, String>("greet", args).await;
        assert_eq!(greet(json!(["you"])).await.expect("positional"), "hello you!");
        assert_eq!(greet(json!(["you", "bye"])).await.expect("positional"), "bye you!");
        assert_eq!(greet(json!({"name": "you", "mark": "?"})).await.expect("keywords"), "hello you?");
        let both = pool.request("greet").args(("you",)).kwargs(json!({"mark": "."})).send::<String>().await;
        assert_eq!(both.expect("both"), "hello you.");
        assert_eq!(pool.call::<_, Value>("anything", ()).await.expect("none"), json!([[], {}]));
        assert_eq!(pool.call::<_, String>("later", ("on",)).await.expect("a coroutine"), "on");
        pool.call::<_, ()>("nothing", ()).await.expect("None is the unit");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn arguments_that_do_not_match_are_refused_with_reason() {
        let pool = start(pool_of(SOURCE)).await;
        let cases = [
            ("greet", json!([]), "name"),
            ("greet", json!(["you", "bye", "!"]), "too many positional arguments"),
            ("greet", json!({"name": "you", "colour": "red"}), "colour"),
            ("greet", json!({"mark": "?"}), "name"),
            ("nothing", json!([1]), "too many positional arguments"),
            ("later", json!([]), "name"),
        ];
        for (function, args, reason) in cases {
            let error = pool.call::<_, Value>(function, &args).await.expect_err("it does not fit");
            let told = matches!(&error, CallError::Arguments { message, .. } if message.contains(reason));
            assert!(told && !error.is_retryable(), "{function} {args}: {error:?}");
        }
        let doubled = pool.request("greet").args(("you",)).kwargs(json!({"name": "me"})).send::<Value>().await;
        let told = matches!(&doubled, Err(CallError::Arguments { message, .. }) if message.contains("name"));
        assert!(told, "{doubled:?}");
        serves(&pool).await;
        assert_eq!(status(&pool).await.restarts, 0);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn argument_error_shows_the_signature() {
        let pool = start(pool_of(SOURCE)).await;
        let error = pool.call::<_, Value>("greet", ()).await.expect_err("it does not fit");
        assert!(error.to_string().contains("(name, greeting='hello', *, mark='!')"), "{error}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn type_error_in_user_code_is_a_python_error() {
        let pool = start(pool_of(SOURCE)).await;
        for (function, message) in [("wrong_inside", "positional argument"), ("raises_type_error", "mine")] {
            let error = pool.call::<_, Value>(function, ("you",)).await.expect_err("the function raises");
            let told = matches!(&error, CallError::Python { type_name, message: told, traceback, .. }
                if type_name == "TypeError" && told.contains(message) && traceback.contains(function));
            assert!(told, "{error:?}");
        }
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn invalid_argument_shape_is_refused_before_sending() {
        let pool = start(pool_of(SOURCE)).await;
        for error in [
            pool.call::<_, Value>("greet", "you").await,
            pool.call::<_, Value>("greet", 3).await,
            pool.request("greet").args(json!({"name": "you"})).kwargs(json!({"mark": "?"})).send().await,
            pool.request("greet").args(("you",)).kwargs([1, 2]).send().await,
        ] {
            assert!(matches!(error, Err(CallError::Encode { .. })), "{error:?}");
        }
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn unknown_function_error_suggests_similar_names() {
        let pool = start(pool_of(SOURCE)).await;
        let error = pool.call::<_, Value>("count_word", ("text",)).await.expect_err("there is none");
        let CallError::NoSuchFunction { name, similar, .. } = &error else { panic!("{error:?}") };
        assert_eq!((name.as_str(), similar[0].as_str()), ("count_word", "count_words"));
        assert!(similar.len() <= 3, "{similar:?}");
        assert!(error.to_string().contains("did you mean `count_words`"), "{error}");
        for name in ["", "__import__", "os.system", "naïve \"name\"\n", "\u{10ffff}"] {
            let error = pool.call::<_, Value>(name, ()).await.expect_err("there is none");
            let told = matches!(&error, CallError::NoSuchFunction { name: told, .. } if told == name);
            assert!(told, "{error:?}");
        }
        serves(&pool).await;
        assert_eq!(status(&pool).await.restarts, 0);
        pool.shutdown().await;
    }
}

/// Names that are there and cannot be called, and a part of why.
const NOT_CALLABLE: [(&str, &str); 7] = [
    ("join", "is defined in module 'posixpath' and only imported here"),
    ("again", "is a functools.partial"),
    ("_private", "leading underscore"),
    ("number", "is an int, which cannot be called"),
    ("json", "is a module, which cannot be called"),
    ("Class", "it is a class"),
    ("Class.method", "names with a dot"),
];

alone_test! {
    async fn name_that_cannot_be_called_reports_the_reason() {
        let source = "
import functools, json
from os.path import join
def nothing(): return None
def _private(): pass
class Class:
    def method(self): pass
number = 1
again = functools.partial(nothing)
";
        let pool = start(pool_of(source)).await;
        for (name, why) in NOT_CALLABLE {
            let error = pool.call::<_, Value>(name, ()).await.expect_err("it cannot be called");
            let told = matches!(&error, CallError::NoSuchFunction { reason: Some(reason), .. } if reason.contains(why));
            assert!(told && error.to_string().contains(why), "{name}: {error:?}");
        }
        let error = pool.call::<_, Value>("absent", ()).await.expect_err("there is none");
        assert!(matches!(error, CallError::NoSuchFunction { reason: None, .. }), "{error:?}");
        pool.shutdown().await;
        let narrowed = start(pool_of(source).functions(Vec::<String>::new())).await;
        let error = narrowed.call::<_, Value>("nothing", ()).await.expect_err("it is left out").to_string();
        assert!(error.contains("`.functions([...])`"), "{error}");
        narrowed.shutdown().await;
    }
}
