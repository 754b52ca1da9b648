# `just` lists the recipes. None of them is needed to use the crate; CI runs `.ci/run`.

default:
    @just --list

# Format both halves.
fmt:
    cargo fmt --all
    ruff format src/python examples/python

# What CI asks of the code before it runs it.
lint:
    cargo fmt --all --check
    cargo clippy --all-targets -- -D warnings
    ruff check src/python
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# README's second command.
test *ARGS:
    cargo test {{ARGS}}

# The pool's core and the frame codec with many more random cases than CI takes.
soak-properties CASES="200000":
    PROPTEST_CASES={{CASES}} cargo test --release --lib properties

# Kill the host, and storm the workers, far more often than CI does.
soak-kills ROUNDS="1000":
    HATCHERY_ROUNDS={{ROUNDS}} cargo test --release --test pool -- host_killed storm

# The embedded Python package alone, on one interpreter.
test-python PYTHON="python3":
    {{PYTHON}} -m unittest discover -s src/python/tests -t src/python

bench *ARGS:
    cargo bench --bench calls -- {{ARGS}}

bench-streams *ARGS:
    cargo bench --bench streams -- {{ARGS}}

bench-supervision:
    cargo bench --bench supervision

examples:
    cargo run --release --example quickstart
    cargo run --example strategies

docs:
    cargo doc --no-deps --open
