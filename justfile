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
    cargo clippy --all-targets --all-features -- -D warnings
    cargo clippy --all-features --test faults --test random --test zygote --test in_flight -- -D warnings
    ruff check src/python examples/python
    mypy --strict src/python/hatchery
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# README's second command. It takes less than five minutes on two quiet cores, building aside.
test *ARGS:
    cargo test {{ARGS}}

# All suites: the long ones, too, and those that run others again.
test-all: test
    cargo test --test faults --test random --test zygote --test in_flight

# The pool's core and the frame codec with many more random cases than CI takes.
soak-properties CASES="200000":
    PROPTEST_CASES={{CASES}} cargo test --release --lib properties

# Kill the host, and storm the workers, far more often than CI does.
soak-kills ROUNDS="1000":
    HATCHERY_ROUNDS={{ROUNDS}} cargo test --release --test faults -- host_killed storm

# The embedded Python package alone, on one interpreter.
test-python PYTHON="python3":
    {{PYTHON}} -m unittest discover -s src/python/tests -t src/python

bench *ARGS:
    cargo bench --bench calls -- {{ARGS}}

bench-streams *ARGS:
    cargo bench --bench streams -- {{ARGS}}

# Makes a virtual environment with numpy and orjson under target/ at its first run.
bench-payloads *ARGS:
    cargo bench --bench payloads -- {{ARGS}}

# Makes a virtual environment with DSPy under target/ at its first run.
bench-startup *ARGS:
    cargo bench --bench startup -- {{ARGS}}

# One lethal call a second for ten minutes.
bench-chaos *ARGS:
    cargo bench --bench chaos -- {{ARGS}}

# The pool's core alone: one call, with an empty and a full queue.
bench-core *ARGS:
    cargo bench --bench core -- {{ARGS}}

bench-supervision:
    cargo bench --bench supervision

# All but `actix_web`, which serves until it is stopped. The last one says how to install numpy if it is not there.
examples:
    cargo run --release --example quickstart
    cargo run --release --example streaming
    cargo run --release --example sessions
    cargo run --release --example host_calls
    cargo run --release --example typed
    cargo run --release --example zygote
    cargo run --example supervision_tree
    cargo run --example strategies
    cargo run --example application
    cargo run --release --example numpy_bytes

docs:
    cargo doc --no-deps --open

# Bytes that no worker should send, against the host's end, guided by coverage (libFuzzer; stable Rust and a C++ compiler):
# frames, replies or stacks. What it finds lies in fuzz/. CI runs the same targets under proptest.
fuzz TARGET="frames" SECONDS="60":
    #!/usr/bin/env bash
    set -euo pipefail
    mkdir -p fuzz/corpus/{{TARGET}}
    python3 fuzz/seeds.py {{TARGET}}
    # What cargo-fuzz sets, without a sanitizer, which would need a nightly toolchain. With a target named, build scripts
    # do not get it.
    coverage=(--cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module)
    for option in level=4 trace-compares inline-8bit-counters pc-table; do
        coverage+=("-Cllvm-args=-sanitizer-coverage-$option")
    done
    export RUSTFLAGS="${coverage[*]}" CARGO_TARGET_DIR="$PWD/fuzz/target"
    host=$(rustc -vV | sed -n 's/^host: //p')
    cargo build --release --manifest-path fuzz/Cargo.toml --target "$host" --bin {{TARGET}}
    cd fuzz
    "target/$host/release/{{TARGET}}" -max_total_time={{SECONDS}} corpus/{{TARGET}}
