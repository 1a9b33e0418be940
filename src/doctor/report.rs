//! What was found, for people and for machines.

use super::needs::{Need, Verdict};
use super::plan::Part;
use super::text::{count, thousands};
use serde_json::{Value, json};
use std::fmt::Write;

/// All that was found.
pub struct Report {
    /// Sockets that were planned for.
    pub sockets: u64,
    /// The share of them that does not read.
    pub stalled_share: f64,
    /// Whose settings were judged.
    pub settings: String,
    /// The memory that they take.
    pub memory: [Part; 6],
    /// One for each need, in the order of the table.
    pub findings: Vec<Finding>,
}

/// One need and what was found of it.
pub struct Finding {
    /// What is needed.
    pub need: &'static Need,
    /// What is there.
    pub verdict: Verdict,
}

impl Report {
    /// What is short.
    pub fn short(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.verdict.is_short())
    }

    /// What cannot be told.
    pub fn unknown(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| matches!(finding.verdict, Verdict::Unknown(_)))
    }

    /// For machines: one object, an array of findings in it.
    pub fn json(&self) -> Value {
        let finding = |Finding { need, verdict }: &Finding| {
            let state = match verdict {
                Verdict::Fine(_) => "ok",
                Verdict::Short(..) | Verdict::ShortEither(..) => "short",
                Verdict::Unknown(_) => "unknown",
            };
            let mends = verdict.mends().iter();
            let mends: Vec<_> = mends.map(|mend| json!({ "line": mend.to_string(), "where": mend.place() })).collect();
            json!({
                "id": need.id, "what": need.what, "state": state, "seen": verdict.seen(), "needed": need.needed,
                "why": need.why, "source": need.source, "mends": mends,
                "any_one_mends": matches!(verdict, Verdict::ShortEither(..)),
            })
        };
        let part =
            |part: &Part| json!({ "what": part.what, "times": part.times, "each": part.each, "bytes": part.bytes() });
        json!({
            "sockets": self.sockets,
            "stalled_share": self.stalled_share,
            "settings": self.settings,
            "memory": self.memory.iter().map(part).collect::<Vec<_>>(),
            "short": self.short().count(),
            "unknown": self.unknown().count(),
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    }

    /// For people: what is short with its reason and its mend, then what cannot be told, then what is fine.
    pub fn text(&self, color: bool) -> String {
        let paint = |code: &str, text: &str| if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
        let sockets = count(self.sockets, "socket");
        let share = self.stalled_share * 100.0;
        let head = indented(&format!("{sockets}, {share:.0} % of them stalled; settings: {}", self.settings), 0);
        let mut text = head.replacen(&sockets, &paint("1", &sockets), 1) + "\n";
        // Writing to a `String` cannot fail; the results are let go.
        for Finding { need, verdict } in self.short() {
            let _ = writeln!(text, "\n{} {}", paint("31", "SHORT"), indented(&said(need, verdict), 6));
            let _ = writeln!(text, "      why   {}", indented(need.why, 12));
            let between = if matches!(verdict, Verdict::ShortEither(..)) { "or   " } else { "and  " };
            for (at, mend) in verdict.mends().iter().enumerate() {
                let word = if at == 0 { "mend " } else { between };
                // A line that is typed is never broken.
                let _ = writeln!(text, "      {word} {}", paint("1", &mend.to_string()));
                let _ = writeln!(text, "            {}", indented(&format!("({})", mend.place()), 12));
            }
        }
        if self.unknown().next().is_some() {
            text.push('\n');
        }
        for Finding { need, verdict } in self.unknown() {
            let _ = writeln!(text, "{}     {}", paint("33", "?"), indented(&said(need, verdict), 6));
        }
        text.push('\n');
        for Finding { need, verdict } in &self.findings {
            if let Verdict::Fine(_) = verdict {
                let _ = writeln!(text, "{}    {}", paint("32", "ok"), indented(&said(need, verdict), 6));
            }
        }
        let (short, unknown) = (self.short().count(), self.unknown().count());
        let fine = self.findings.len() - short - unknown;
        let verdict = match short {
            0 => paint("32", "nothing is short"),
            short => paint("31", &format!("{} short", thousands(short as u64))),
        };
        let unknown = if unknown == 0 { String::new() } else { format!(", {unknown} cannot be told") };
        let _ = writeln!(text, "\n{verdict}{unknown}, {fine} fine");
        text
    }
}

/// Columns of a terminal that everybody has.
const COLUMNS: usize = 80;

fn said(need: &Need, verdict: &Verdict) -> String {
    format!("{}: {}", need.what, verdict.seen())
}

/// Text that begins at a column, broken between words so that it ends within [`COLUMNS`].
fn indented(text: &str, column: usize) -> String {
    let mut lines = String::new();
    let mut at = column;
    for word in text.split(' ') {
        let width = word.chars().count();
        if at > column && at + 1 + width > COLUMNS {
            lines.push('\n');
            lines.extend(std::iter::repeat_n(' ', column));
            at = column;
        } else if at > column {
            lines.push(' ');
            at += 1;
        }
        lines += word;
        at += width;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_and_stands_under_itself() {
        let text = indented(&"seventeen columns ".repeat(6), 12);
        assert!(text.lines().count() > 1, "{text}");
        let is_under = |line: &str| line.starts_with(&" ".repeat(12)) && line.trim_end().len() <= COLUMNS;
        assert!(text.lines().skip(1).all(is_under), "{text}");
        let long = "x".repeat(100);
        assert_eq!(indented(&format!("a {long}"), 2), format!("a\n  {long}"), "a word is never broken");
    }
}
