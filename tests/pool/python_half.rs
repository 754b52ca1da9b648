//! The unit tests of the embedded Python package.

use std::path::Path;

use crate::support::{alone_test, python_module, scratch, unittest, unittest_with};

#[test]
fn python_unittests_pass() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/python");
    if let Err(said) = unittest(&top, &top.join("tests")) {
        panic!("{said}");
    }
}

/// Runs only when `HATCHERY_TEST_PYTHON_EXTRAS` is set.
#[test]
fn python_unittests_with_optional_packages_pass() {
    let Some(python) = crate::payloads::python_with_extras() else { return };
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/python");
    for names in ["test_attachments.py", "test_codecs.py"] {
        if let Err(said) = unittest_with(&python, &top, &top.join("tests"), names) {
            panic!("{said}");
        }
    }
}

const PASSING: &str = "import unittest\nclass T(unittest.TestCase):\n    def test(self): pass\n";
const FAILING: &str =
    "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.fail('so it is')\n";

alone_test! {
    fn unittest_runner_reports_failures_and_empty_runs() {
        let top = scratch();
        let said = unittest(&top, &top).expect_err("there is no test");
        assert!(said.contains("Ran 0 tests") || said.contains("NO TESTS RAN"), "{said}");
        python_module(&top, "test_passing", PASSING);
        assert_eq!(unittest(&top, &top), Ok(()));
        python_module(&top, "test_failing", FAILING);
        let said = unittest(&top, &top).expect_err("a test fails");
        assert!(said.contains("so it is"), "{said}");
    }
}
