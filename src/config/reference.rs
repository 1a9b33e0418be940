//! docs/configuration.md, written from the schema of the settings.

use super::schema::{Kind, Setting, schema};
use std::fmt::Write;
use toml::Value;

const HEAD: &str = "\
# Settings

Every setting, its default and its environment variable. Generated from the code: `UPDATE_DOCS=1 cargo test --test docs`
writes it, and that test holds it.

- `spillgate config print > spillgate.toml` writes all of them down with the values in effect; `spillgate config check FILE`
  says what is wrong with a file, and where.
- A flag goes before an environment variable, that before the file (`--config FILE`, `SPILLGATE_CONFIG`), that before the default.
- Durations are written as `\"30s\"`, `\"1m 30s\"`, `\"250ms\"`; sizes are bytes.
- A name that does not exist is refused, and so is a value that makes no sense, alone or beside others.
";

/// The text of docs/configuration.md.
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    // Writing to a `String` cannot fail; the results are let go.
    let (tables, plain): (Vec<_>, Vec<_>) =
        schema().settings.iter().partition(|setting| matches!(setting.kind, Kind::Tables(_)));
    let top = plain.iter().filter(|setting| setting.section().is_none());
    list("At the top", None, top.copied(), &mut text);
    for section in &schema().sections {
        let settings = plain.iter().filter(|setting| setting.section() == Some(&section.key));
        list(&format!("`[{}]`", section.key), Some(&section.doc), settings.copied(), &mut text);
    }
    for table in tables {
        let Kind::Tables(fields) = &table.kind else { continue };
        let about = format!("{} Environment: `{}`, as a list in TOML.", table.doc, table.variable());
        let _ = write!(text, "\n## `[[{}]]`\n\n{about}\n\n| setting | default | |\n| --- | --- | --- |\n", table.key);
        for field in fields {
            let _ = writeln!(text, "| `{}` | {} | {} |", field.key, default(field), cell(&field.doc));
        }
    }
    text
}

fn list<'a>(head: &str, about: Option<&str>, settings: impl Iterator<Item = &'a Setting>, text: &mut String) {
    let about = about.map(|about| format!("{about}\n\n")).unwrap_or_default();
    let _ = write!(text, "\n## {head}\n\n{about}| setting | default | environment | |\n| --- | --- | --- | --- |\n");
    for setting in settings {
        let (name, variable) = (setting.name(), setting.variable());
        let _ = writeln!(text, "| `{name}` | {} | `{variable}` | {} |", default(setting), cell(&setting.doc));
    }
}

fn default(setting: &Setting) -> String {
    match (&setting.default, &setting.example) {
        (Some(Value::Array(items)), _) if items.is_empty() => "none".to_owned(),
        (Some(default), _) => format!("`{}`", cell(&default.to_string())),
        (None, Some(example)) => format!("not set (for example `{}`)", cell(&example.to_string())),
        (None, None) => "not set".to_owned(),
    }
}

/// A bar would end a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
