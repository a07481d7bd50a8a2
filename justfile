# Short names for what is done often. CI calls .ci/run, which calls tests/run; nothing is only here.

# Type-check and lint everything.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# All tests; `just test --quick` runs the unit tests only.
test *ARGS:
    tests/run {{ARGS}}

# Style and layers only.
tidy:
    cargo test --test tidy

# Rewrite the lists that tidy keeps (they only shrink) and docs/features.md.
bless:
    AOB_TIDY_BLESS=1 cargo test --test tidy

# The demo, in a fresh directory.
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# Load on a node that runs already.
load URL SHAPE="chain5" RATE="max":
    cargo run --release -p aob-loadgen -- run --url {{URL}} --shape {{SHAPE}} --rate {{RATE}}

# A model that answers by a script and costs nothing (docs/operating/stub-model.md).
stub *ARGS:
    cargo run --release -p aob-stub-model -- {{ARGS}}

# Licences, advisories, sources of dependencies (needs cargo-deny).
deny:
    cargo deny check

# Spelling (needs typos).
typos:
    typos

# The library's documentation.
doc:
    cargo doc --no-deps --open
