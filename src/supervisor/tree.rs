//! A snapshot of a whole tree, and its pictures.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use serde::Serialize;

use super::{ChildInfo, ChildState, ExitReason, Kind};

/// A snapshot of a supervisor and all below it, from [`SupervisorRef::tree`](super::SupervisorRef::tree).
///
/// It prints as text, and exports as JSON, DOT (Graphviz) and Mermaid. Supervisors below are asked one after the
/// other, so that the snapshot of a busy tree need not be of one instant.
///
/// ```text
/// app [supervisor] running, up 12.1 s
/// |- db [worker] running, up 12.1 s
/// `- pools [supervisor] running, up 12.1 s
///    `- cache [worker] restarting, 3 restarts, last exit: panic: out of cheese
/// ```
///
/// ```no_run
/// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// println!("{}", app.tree().await?);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tree {
    /// The path, from the root ("app/pools/cache").
    pub path: String,
    /// The name among its siblings.
    pub id: String,
    /// Actor or supervisor.
    pub kind: Kind,
    /// Its state.
    pub state: ChildState,
    /// How often its supervisor has started it, less the first time. A restarted supervisor counts anew.
    pub restarts: u64,
    /// For how long it has been up.
    #[serde(rename = "uptime_s", serialize_with = "seconds")]
    pub uptime: Option<Duration>,
    /// How its last incarnation under this supervisor ended.
    #[serde(serialize_with = "text")]
    pub last_exit: Option<ExitReason>,
    /// Its children, in start order. Empty for a supervisor that is not running.
    pub children: Vec<Tree>,
}

fn seconds<S: serde::Serializer>(uptime: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    uptime.map(|uptime| uptime.as_secs_f64()).serialize(serializer)
}

fn text<S: serde::Serializer>(exit: &Option<ExitReason>, serializer: S) -> Result<S::Ok, S::Error> {
    exit.as_ref().map(ExitReason::to_string).serialize(serializer)
}

impl Tree {
    pub(crate) fn new(path: String, child: ChildInfo, children: Vec<Tree>) -> Self {
        let now = tokio::time::Instant::now().into_std();
        Self {
            path,
            id: child.options.id.to_string(),
            kind: child.options.kind,
            state: child.state,
            restarts: child.restarts,
            uptime: child.up_since.map(|since| now.saturating_duration_since(since)),
            last_exit: child.last_exit,
            children,
        }
    }

    /// The tree as JSON: each node an object with `path`, `id`, `kind`, `state`, `restarts`, `uptime_s` (seconds),
    /// `last_exit`, `children`.
    pub fn to_json(&self) -> String {
        // Strings, numbers and arrays of these cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The tree in the language of Graphviz: `dot -Tsvg`.
    pub fn to_dot(&self) -> String {
        let mut out = String::from("digraph supervision {\n  node [fontname=\"sans-serif\"];\n");
        for node in self.nodes() {
            let shape = match node.kind {
                Kind::Supervisor => "box",
                Kind::Worker => "ellipse",
            };
            let (path, label) = (quoted(&node.path), quoted(&format!("{}\n{}", node.id, node.state)));
            let _ = writeln!(out, "  {path} [label={label}, shape={shape}];");
            for child in &node.children {
                let _ = writeln!(out, "  {path} -> {};", quoted(&child.path));
            }
        }
        out.push_str("}\n");
        out
    }

    /// The tree as a Mermaid flowchart, which many Markdown viewers draw.
    pub fn to_mermaid(&self) -> String {
        let mut out = String::from("flowchart TD\n");
        let mut next = 0;
        self.write_mermaid(&mut out, &mut next);
        out
    }

    fn write_mermaid(&self, out: &mut String, next: &mut usize) -> usize {
        let number = *next;
        *next += 1;
        // Mermaid has no escapes in its strings, but knows HTML's.
        let id = self.id.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
        let (open, close) = match self.kind {
            Kind::Supervisor => ("[", "]"),
            Kind::Worker => ("(", ")"),
        };
        let _ = writeln!(out, "  n{number}{open}\"{id}<br>{}\"{close}", self.state);
        for child in &self.children {
            let child = child.write_mermaid(out, next);
            let _ = writeln!(out, "  n{number} --> n{child}");
        }
        number
    }

    /// This node and all below it, each before its children.
    pub fn nodes(&self) -> impl Iterator<Item = &Tree> {
        let mut waiting = vec![self];
        std::iter::from_fn(move || {
            let node = waiting.pop()?;
            waiting.extend(node.children.iter().rev());
            Some(node)
        })
    }

    fn write_text(&self, f: &mut fmt::Formatter<'_>, indent: &str) -> fmt::Result {
        write!(f, "{} [{}] {}", self.id, self.kind, self.state)?;
        if let Some(uptime) = self.uptime {
            write!(f, ", up {:.1} s", uptime.as_secs_f64())?;
        }
        match self.restarts {
            0 => {}
            1 => f.write_str(", 1 restart")?,
            n => write!(f, ", {n} restarts")?,
        }
        if let Some(exit) = &self.last_exit {
            write!(f, ", last exit: {exit}")?;
        }
        for (i, child) in self.children.iter().enumerate() {
            let is_last = i + 1 == self.children.len();
            write!(f, "\n{indent}{} ", if is_last { "`-" } else { "|-" })?;
            child.write_text(f, &format!("{indent}{}", if is_last { "   " } else { "|  " }))?;
        }
        Ok(())
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_text(f, "")
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(path: &str, kind: Kind, children: Vec<Tree>) -> Tree {
        Tree {
            path: path.into(),
            id: path.rsplit('/').next().unwrap().into(),
            kind,
            state: ChildState::Running,
            restarts: 0,
            uptime: None,
            last_exit: None,
            children,
        }
    }

    fn example() -> Tree {
        let mut cache = node("app/pools/ca\"che", Kind::Worker, vec![]);
        cache.state = ChildState::Restarting;
        cache.restarts = 3;
        cache.last_exit = Some(ExitReason::Panic("out of cheese".into()));
        let mut db = node("app/db", Kind::Worker, vec![]);
        db.uptime = Some(Duration::from_millis(12_140));
        let pools = node("app/pools", Kind::Supervisor, vec![cache]);
        node("app", Kind::Supervisor, vec![db, pools])
    }

    #[test]
    fn text() {
        let text = "app [supervisor] running\n\
                    |- db [worker] running, up 12.1 s\n\
                    `- pools [supervisor] running\n   \
                       `- ca\"che [worker] restarting, 3 restarts, last exit: panic: out of cheese";
        assert_eq!(example().to_string(), text);
    }

    #[test]
    fn json() {
        let json: serde_json::Value = serde_json::from_str(&example().to_json()).unwrap();
        assert_eq!(json["children"][0]["uptime_s"], 12.14);
        assert_eq!(json["children"][1]["kind"], "supervisor");
        assert_eq!(json["children"][1]["children"][0]["last_exit"], "panic: out of cheese");
    }

    #[test]
    fn dot_and_mermaid_escape_what_they_must() {
        let dot = example().to_dot();
        assert!(dot.contains(r#""app/pools" -> "app/pools/ca\"che";"#), "{dot}");
        let mermaid = example().to_mermaid();
        assert!(mermaid.contains(r#"n3("ca&quot;che<br>restarting")"#), "{mermaid}");
        assert!(mermaid.contains("n2 --> n3"));
    }
}
