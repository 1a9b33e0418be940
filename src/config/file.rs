//! The layer of the TOML file: every value with its line and column.

use super::error::{Mistake, Origin, Position};
use super::layers::{Layers, join, unknown_key};
use super::schema::schema;
use super::secret::mask;
use std::fs;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Reads the file into the layers. A file that is not TOML gives one mistake, for what follows the first is often its echo.
pub(super) fn read(path: &Path, layers: &mut Layers) {
    let place = |at| Origin::File { path: path.to_owned(), at };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return layers.refuse(place(None), "", Mistake::Unreadable(error.to_string())),
    };
    let origin = |byte| place(Some(Position::of(&text, byte)));
    match DeTable::parse(&text) {
        Ok(root) => read_table(root.get_ref(), "", layers, &origin),
        Err(error) => {
            let at = error.span().map_or(text.len(), |span| span.start);
            layers.refuse(origin(at), "", Mistake::Syntax(mask(error.message().trim_end())));
        }
    }
}

fn read_table(table: &DeTable<'_>, section: &str, layers: &mut Layers, origin: &dyn Fn(usize) -> Origin) {
    for (name, value) in table {
        let key = join(section, name.get_ref());
        if let Some(setting) = schema().setting(&key) {
            layers.take(setting, value, origin);
        } else if !schema().is_section(&key) {
            layers.refuse(origin(name.span().start), &key, unknown_key(&key));
        } else if let DeValue::Table(inner) = value.get_ref() {
            read_table(inner, &key, layers, origin);
        } else {
            layers.refuse(origin(value.span().start), &key, Mistake::NotASection(key.clone()));
        }
    }
}
