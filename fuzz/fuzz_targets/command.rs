//! A command is accepted exactly if a plain reading of it by serde_json alone says that it is one, and it then says
//! the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use spillgate::config::Limits;
use spillgate::wire::command::{ID_BYTES_MAX, parse};
use spillgate::wire::{Command, check_channel};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain<'a> {
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    subscribe: Option<String>,
    #[serde(default, deserialize_with = "present")]
    unsubscribe: Option<String>,
    #[serde(default, deserialize_with = "present")]
    publish: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// A null is there too.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fuzz_target!(|text: &str| {
    let limits = Limits::default();
    let command = parse(text, &limits);
    if command.as_ref().is_err_and(|error| error.message.contains("nested too deep")) {
        return;
    }
    assert_eq!(command.ok(), plainly(text, &limits), "{text}");
});

/// The same command, the slow way. Ids are compared by their JSON.
fn plainly(text: &str, limits: &Limits) -> Option<Command> {
    // serde's derive takes an array for a struct, too.
    if !text.trim_ascii_start().starts_with('{') {
        return None;
    }
    let mut plain: Plain<'_> = serde_json::from_str(text).ok()?;
    let id = match plain.id.take() {
        None => None,
        Some(Value::String(id)) if id.len() <= ID_BYTES_MAX => Some(id_of(Value::String(id))),
        Some(Value::Number(id)) if id.is_u64() || id.is_i64() => Some(id_of(Value::Number(id))),
        Some(_) => return None,
    };
    let command = match (plain.subscribe, plain.unsubscribe, plain.publish, plain.data) {
        (Some(channel), None, None, None) => Command::Subscribe { id, channel: checked(channel, limits)? },
        (None, Some(channel), None, None) => Command::Unsubscribe { id, channel: checked(channel, limits)? },
        (None, None, Some(channel), Some(data)) => {
            Command::Publish { id, channel: checked(channel, limits)?, data: data.get().as_bytes().to_vec() }
        }
        _ => return None,
    };
    Some(command)
}

fn checked(channel: String, limits: &Limits) -> Option<Box<str>> {
    check_channel(&channel, limits).ok().map(|()| channel.into_boxed_str())
}

fn id_of(id: Value) -> spillgate::wire::Id {
    use spillgate::wire::Id;
    match id {
        Value::String(text) => Id::Text(text.into_boxed_str()),
        Value::Number(number) => number.as_u64().map(Id::Unsigned).or(number.as_i64().map(Id::Signed)).expect("whole"),
        _ => unreachable!("neither a string nor a number"),
    }
}
