//! The guides of the repository, as pages of this documentation. The modules hold text only.
//!
//! | | |
//! |---|---|
//! | [`getting_started`] | from an empty crate to a service |
//! | [`python_workers`] | what a Python module can do |
//! | [`payloads`] | what crosses between Rust and Python, bytes and arrays |
//! | [`batching`] | why small work is sent in batches |
//! | [`zygote`] | workers that are forked from one template |
//! | [`errors`] | every error and what to do about it |
//! | [`supervision`] | supervision of your own actors |
//! | [`otp_and_actix`], [`otp_cases`] | what OTP has and actix cannot; OTP's test cases |
//! | [`deployment`] | Docker, systemd, limits, memory, sizes |
//! | [`security`], [`faults`] | the trust model; each known fault and its test |
//! | [`when_not`] | when another tool is the better choice |
//! | [`design`], [`design_decisions`], [`design_glossary`] | how it works inside, why, and in which words |
//! | [`wire_protocol`], [`benchmarks`], [`api_guidelines`] | the protocol; how fast; the Rust API Guidelines point by point |
//! | [`examples`], [`changelog`] | the examples with their source; what changed |

/// The targets of the guides' links in this documentation.
///
/// Each page defines its links once more at its end, for readers of the repository. Markdown takes the first definition,
/// so these win here.
macro_rules! links {
    ($page:literal) => {
        concat!(
            "[batching]: crate::guide::batching\n",
            "[benchmarks]: crate::guide::benchmarks\n",
            "[changelog]: crate::guide::changelog\n",
            "[decisions]: crate::guide::design_decisions\n",
            "[deployment]: crate::guide::deployment\n",
            "[design]: crate::guide::design\n",
            "[errors]: crate::guide::errors\n",
            "[examples]: crate::guide::examples\n",
            "[faults]: crate::guide::faults\n",
            "[getting-started]: crate::guide::getting_started\n",
            "[otp-and-actix]: crate::guide::otp_and_actix\n",
            "[otp-and-actix#what-a-panic-does]: crate::guide::otp_and_actix#what-a-panic-does\n",
            "[otp-and-actix#what-cannot-be-killed]: crate::guide::otp_and_actix#what-cannot-be-killed\n",
            "[otp-cases]: crate::guide::otp_cases\n",
            "[payloads]: crate::guide::payloads\n",
            "[payloads#bytes]: crate::guide::payloads#bytes\n",
            "[python-workers]: crate::guide::python_workers\n",
            "[python-workers#descriptors]: crate::guide::python_workers#descriptors\n",
            "[python-workers#launcher-and-environment]: crate::guide::python_workers#launcher-and-environment\n",
            "[python-workers#several-calls-at-once]: crate::guide::python_workers#several-calls-at-once\n",
            "[python-workers#what-ps-shows]: crate::guide::python_workers#what-ps-shows\n",
            "[security]: crate::guide::security\n",
            "[security#budgets]: crate::guide::security#budgets\n",
            "[supervision]: crate::guide::supervision\n",
            "[when-not]: crate::guide::when_not\n",
            "[wire-protocol]: crate::guide::wire_protocol\n",
            "[wire-protocol#values]: crate::guide::wire_protocol#values\n",
            "[zygote]: crate::guide::zygote\n",
            "[actix_web]: crate::guide::examples::actix_web\n",
            "[glossary]: crate::guide::design_glossary\n",
            "[host_calls]: crate::guide::examples::host_calls\n",
            "[typed]: crate::guide::examples::typed\n",
            "[license-apache]: https://www.apache.org/licenses/LICENSE-2.0\n",
            "[license-mit]: https://opensource.org/license/mit\n",
            "\n",
            include_str!(concat!("../", $page))
        )
    };
}
pub(crate) use links;

macro_rules! pages {
    ($($name:ident: $page:literal,)+) => {
        $(#[doc = links!($page)] pub mod $name {})+
    };
}

pages! {
    batching: "docs/batching.md",
    benchmarks: "docs/benchmarks.md",
    changelog: "CHANGELOG.md",
    deployment: "docs/deployment.md",
    design: "docs/design/README.md",
    design_decisions: "docs/design/decisions.md",
    design_glossary: "docs/design/glossary.md",
    api_guidelines: "docs/design/api-guidelines.md",
    errors: "docs/errors.md",
    faults: "docs/faults.md",
    getting_started: "docs/getting-started.md",
    otp_and_actix: "docs/otp-and-actix.md",
    otp_cases: "docs/otp-cases.md",
    payloads: "docs/payloads.md",
    python_workers: "docs/python-workers.md",
    security: "docs/security.md",
    supervision: "docs/supervision.md",
    when_not: "docs/when-not.md",
    wire_protocol: "docs/wire-protocol.md",
    zygote: "docs/zygote.md",
}

#[doc = links!("examples/README.md")]
pub mod examples {
    /// A page with the source of an example. Tests of the documentation leave these out: `cargo test` builds the examples.
    macro_rules! sources {
        ($($name:ident)+) => {
            $(
                #[cfg(not(doctest))]
                #[doc = concat!("The source of the example.\n\n````rust\n", include_str!(concat!("../examples/", stringify!($name), ".rs")), "````\n")]
                pub mod $name {}
            )+
        };
    }

    sources! { actix_web application host_calls numpy_bytes quickstart sessions strategies streaming supervision_tree typed zygote }
}
