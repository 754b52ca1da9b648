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
    /// What the ratio, or the value, must come to: told where there is a target.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
}

/// What a figure must come to.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// The ratio, of a time.
    AtMost(f64),
    /// The ratio, of a rate.
    AtLeast(f64),
    /// The value: so many floors and so many units more.
    Within { floors: f64, more: f64 },
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
        let (value, floor, ratio) = (rounded(value), rounded(floor), rounded(ratio));
        Row { bench, case, value, unit, floor, ratio, limit: None, met: None }
    }

    /// Holds it against a target, if it has one.
    pub(crate) fn against(mut self, target: Option<Target>) -> Row {
        let (limit, met) = match target {
            None => return self,
            Some(Target::AtMost(limit)) => (limit, self.ratio <= limit),
            Some(Target::AtLeast(limit)) => (limit, self.ratio >= limit),
            Some(Target::Within { floors, more }) => {
                let limit = rounded(floors * self.floor + more);
                (limit, self.value <= limit)
            }
        };
        (self.limit, self.met) = (Some(limit), Some(met));
        self
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
