//! What the builder sets for the worker, and what a module exports.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use hatchery::{CallError, PoolStartError};
use serde_json::{Value, json};

use super::pools::{pool_of, serves, start};
use crate::support::{alone_test, builder, python_module, scratch};

const SOURCE: &str = "import os, sys
def variable(name): return os.environ.get(name)
def folder(): return os.getcwd()
def first_paths(count): return sys.path[:count]
";

alone_test! {
    async fn env_is_added_to_the_host_environment() {
        let pool = start(pool_of(SOURCE).env("FAULTY", "a=b ü").env("PYTHONHASHSEED", "0").env("HOME", "/elsewhere")).await;
        for (name, value) in [("FAULTY", json!("a=b ü")), ("HOME", json!("/elsewhere")), ("NOBODY_SETS_IT", Value::Null)] {
            assert_eq!(pool.call::<_, Value>("variable", (name,)).await.expect("the call succeeds"), value);
        }
        let path: Option<String> = pool.call("variable", ("PATH",)).await.expect("the call succeeds");
        assert_eq!(path, std::env::var("PATH").ok());
        pool.shutdown().await;
    }
}

alone_test! {
    async fn invalid_env_is_refused() {
        for (name, value) in [("", ""), ("a=b", ""), ("zero\0byte", ""), ("FAULTY", "zero\0byte")] {
            let error = pool_of(SOURCE).env(name, value).start().await.expect_err("no such variable");
            assert!(matches!(&error, PoolStartError::Config(error) if error.field == "env"), "{error:?}");
        }
    }
}

alone_test! {
    async fn relative_path_starts_at_the_worker_directory() {
        let folder = scratch().join("project");
        std::fs::create_dir_all(folder.join("lib")).expect("the scratch folder is writable");
        std::fs::create_dir_all(folder.join("more")).expect("the scratch folder is writable");
        python_module(&folder.join("lib"), "relative", SOURCE);
        python_module(&folder.join("more"), "relative", "raise RuntimeError('the wrong one')");
        let builder = builder().module("relative").path("lib").path("more").size(1);
        let pool = start(builder.current_dir(&folder)).await;
        let now: PathBuf = pool.call("folder", ()).await.expect("the call succeeds");
        assert_eq!(now, std::fs::canonicalize(&folder).expect("it is there"));
        let paths: Vec<PathBuf> = pool.call("first_paths", (2,)).await.expect("the call succeeds");
        assert_eq!(paths, [PathBuf::from("lib"), PathBuf::from("more")]);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn path_outside_the_locale_encoding_is_searched() {
        for (name, locale) in [(&b"caf\xe9"[..], "C.UTF-8"), ("café".as_bytes(), "C"), (&b"na\xefve"[..], "C")] {
            let folder = scratch().join(OsStr::from_bytes(name));
            std::fs::create_dir_all(&folder).expect("the scratch folder is writable");
            python_module(&folder, "abroad", SOURCE);
            // Without these two Python takes UTF-8 in the locale C, too.
            let builder = builder().module("abroad").path(&folder).size(1);
            let builder = builder.env("LC_ALL", locale).env("PYTHONUTF8", "0").env("PYTHONCOERCECLOCALE", "0");
            let pool = start(builder).await;
            let set: String = pool.call("variable", ("LC_ALL",)).await.expect("the call succeeds");
            assert_eq!(set, locale);
            pool.shutdown().await;
        }
    }
}

alone_test! {
    async fn missing_path_fails_the_start() {
        let file = scratch().join("abroad.py");
        std::fs::write(&file, SOURCE).expect("the scratch folder is writable");
        for (path, said) in [(scratch().join("none"), "does not exist"), (file, "is neither a directory nor a zip archive")] {
            let error = pool_of(SOURCE).path(&path).start().await.expect_err("it cannot be searched");
            let error = error.worker_error().expect("the worker cannot start").to_string();
            let named = path.display().to_string();
            assert!(error.contains(said) && error.contains(&named) && error.contains(".path()"), "{error}");
        }
    }
}

alone_test! {
    async fn missing_current_dir_is_refused() {
        let error = pool_of(SOURCE).current_dir(scratch().join("none")).start().await.expect_err("it is not there");
        let error = error.worker_error().expect("the worker cannot start").to_string();
        assert!(error.contains("current directory") && error.contains("scratch/none"), "{error}");
    }
}

alone_test! {
    async fn current_dir_does_not_shadow_the_standard_library() {
        let folder = scratch().join("project");
        std::fs::create_dir(&folder).expect("the scratch folder is writable");
        for name in ["os", "json", "struct", "traceback", "socket"] {
            python_module(&folder, name, "raise RuntimeError('not the standard library')");
        }
        let pool = start(pool_of(SOURCE).current_dir(folder)).await;
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn module_in_a_package_can_be_served() {
        let package = scratch().join("package");
        std::fs::create_dir(&package).expect("the scratch folder is writable");
        python_module(&package, "__init__", "BASE = 40");
        python_module(&package, "part", "from . import BASE\ndef answer(): return BASE + 2");
        let pool = start(builder().module("package.part").path(scratch()).size(1)).await;
        assert_eq!(pool.call::<_, u32>("answer", ()).await.expect("the call succeeds"), 42);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn only_listed_functions_can_be_called() {
        let pool = start(pool_of(SOURCE).functions(["ping", "folder"])).await;
        serves(&pool).await;
        let error = pool.call::<_, Value>("variable", ("PATH",)).await.expect_err("it is not exported");
        assert!(matches!(error, CallError::NoSuchFunction { .. }), "{error:?}");
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn dunder_all_decides_what_is_exported() {
        let source = "from os import getpid\nfrom os.path import basename\n__all__ = ['getpid', '_odd', 'ping', 'CONSTANT']
CONSTANT = 3\ndef _odd(): return 'odd'\ndef hidden(): return 'hidden'";
        let pool = start(pool_of(source)).await;
        serves(&pool).await;
        assert_eq!(pool.call::<_, String>("_odd", ()).await.expect("it is exported"), "odd");
        assert!(pool.call::<_, u32>("getpid", ()).await.expect("it is exported") > 0);
        for name in ["hidden", "basename", "CONSTANT"] {
            let error = pool.call::<_, Value>(name, ()).await.expect_err("it is not exported");
            assert!(matches!(error, CallError::NoSuchFunction { .. }), "{error:?}");
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn without_dunder_all_own_definitions_are_exported() {
        let source = "from os import getpid
class Thing:\n    def __call__(self): return 'called'
thing = Thing()\nshort = lambda: 'lambda'\ndef _private(): pass";
        let pool = start(pool_of(source)).await;
        assert_eq!(pool.call::<_, String>("thing", ()).await.expect("an object that can be called"), "called");
        assert_eq!(pool.call::<_, String>("short", ()).await.expect("a lambda"), "lambda");
        for name in ["getpid", "Thing", "_private"] {
            let error = pool.call::<_, Value>(name, ()).await.expect_err("it is not exported");
            assert!(matches!(error, CallError::NoSuchFunction { .. }), "{error:?}");
        }
        pool.shutdown().await;
    }
}
