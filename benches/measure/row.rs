//! One line of output.

use serde::Serialize;

/// A figure of one case beside its floor.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    bench: &'static str,
    case: String,
    value: f64,
    unit: &'static str,
    floor: f64,
    ratio: f64,
}

impl Row {
    /// A row whose figures are rounded to four digits.
    pub(crate) fn new(
        bench: &'static str,
        case: &str,
        unit: &'static str,
        value: f64,
        floor: f64,
        ratio: f64,
    ) -> Row {
        let case = case.to_owned();
        Row { bench, case, value: rounded(value), unit, floor: rounded(floor), ratio: rounded(ratio) }
    }

    /// Prints the row as one JSON object on one line.
    pub(crate) fn print(&self) {
        println!("{}", serde_json::to_string(self).expect("a row is JSON"));
    }
}

fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().expect("a number reads back")
}

/// The middle value; the upper one of two. Sorts in place.
///
/// # Panics
///
/// Without values.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
