//! Commands as clients write them, well and badly.

use super::*;

fn parsed(text: &str) -> Result<Command, CommandError> {
    parse(text, &Limits::default())
}

fn code(text: &str) -> &'static str {
    parsed(text).map_or_else(|error| error.code, |_| "fine")
}

#[test]
fn each_verb_is_read_with_and_without_an_id() {
    let channel: Box<str> = "a/b".into();
    assert_eq!(
        parsed(r#"{"id":1,"subscribe":"a/b"}"#),
        Ok(Command::Subscribe { id: Some(Id::Unsigned(1)), channel: channel.clone() })
    );
    assert_eq!(
        parsed(r#" {"unsubscribe" : "a\/b", "id" : "x"} "#),
        Ok(Command::Unsubscribe { id: Some(Id::Text("x".into())), channel: channel.clone() })
    );
    assert_eq!(
        parsed(r#"{"data":{ "a" : [1, 2.50] },"publish":"a/b"}"#),
        Ok(Command::Publish { id: None, channel, data: br#"{ "a" : [1, 2.50] }"#.to_vec() })
    );
}

#[test]
fn published_data_is_byte_for_byte_what_was_written() {
    for data in [
        "null",
        "1",
        "-0",
        "1.0e+05",
        "1e999",
        "123456789012345678901234567890",
        r#""\u00e9\/é\ud83d\ude00""#,
        r#""\ud800""#,
        r#""a\u0000b""#,
        r#"{"b":1, "a":2,"b":3}"#,
        "[ ]",
        r#"{"data":"publish","id":[]}"#,
    ] {
        let text = format!(r#"{{"id":7,"publish":"c","data":{data}}}"#);
        let Ok(Command::Publish { id, data: published, .. }) = parsed(&text) else { panic!("{text}") };
        assert_eq!((id, published), (Some(Id::Unsigned(7)), data.as_bytes().to_vec()));
    }
}

#[test]
fn an_id_comes_back_as_it_came() {
    let longest = format!("{:?}", "x".repeat(ID_BYTES_MAX));
    for id in ["0", "18446744073709551615", "-9223372036854775808", r#""""#, r#""a\"b""#, &longest] {
        let Ok(Command::Subscribe { id: Some(read), .. }) = parsed(&format!(r#"{{"id":{id},"subscribe":"c"}}"#)) else {
            panic!("{id}")
        };
        assert_eq!(serde_json::to_string(&read).unwrap(), id);
    }
    let too_long = format!("{:?}", "x".repeat(ID_BYTES_MAX + 1));
    for id in ["1.5", "1.0", "-0", "null", "true", "[]", "{}", "18446744073709551616", &too_long] {
        assert_eq!(code(&format!(r#"{{"id":{id},"subscribe":"c"}}"#)), "bad_id", "{id}");
    }
}

#[test]
fn every_refusal_says_what_and_keeps_the_id() {
    let rows = [
        (r#"{"id":4}"#, "bad_command", "nothing is asked for"),
        (r#"{"subscribe":"c","topic":"d","id":4}"#, "bad_command", "\"topic\""),
        (r#"{"id":4,"subscribe":"c","unsubscribe":"c"}"#, "bad_command", "several verbs"),
        (r#"{"id":4,"subscribe":"c","subscribe":"c"}"#, "bad_command", "several verbs"),
        (r#"{"id":4,"publish":"c"}"#, "bad_command", "without \"data\""),
        (r#"{"id":4,"publish":"c","data":1,"data":2}"#, "bad_command", "two \"data\""),
        (r#"{"id":4,"subscribe":"c","data":1}"#, "bad_command", "\"publish\" alone"),
        (r#"{"id":4,"subscribe":["c"]}"#, "bad_command", "a string"),
        (r#"{"id":4,"subscribe":7}"#, "bad_command", "a string"),
        (r#"{"id":4,"subscribe":""}"#, "bad_channel", "empty"),
        (r#"{"id":4,"subscribe":"a\u0000b"}"#, "bad_channel", "control character"),
    ];
    for (text, code, says) in rows {
        let error = parsed(text).unwrap_err();
        assert_eq!((error.id, error.code), (Some(Id::Unsigned(4)), code), "{text}");
        assert!(error.message.contains(says), "{text}: {}", error.message);
    }
    let long = format!(r#"{{"id":4,"publish":"{}","data":1}}"#, "c".repeat(201));
    assert_eq!(code(&long), "bad_channel");
    assert_eq!(code(r#"{"id":1,"id":2,"subscribe":"c"}"#), "bad_id");
}

#[test]
fn what_is_not_a_json_object_is_refused() {
    for text in [
        "",
        " ",
        "\0",
        "null",
        "[]",
        r#"[1,"c"]"#,
        "\"subscribe\"",
        r#"{"subscribe":"c""#,
        r#"{"subscribe":"c",}"#,
        r#"{"subscribe":"c"}x"#,
        r#"{"subscribe":"c"}{"subscribe":"d"}"#,
        "{\"subscribe\":\"c\"}\0",
        "{\"subscribe\":\"a\nb\"}",
        "{\"subscribe\":\"a\0b\"}",
        r#"{"subscribe":"\ud800"}"#,
        r#"{"subscribe":"\x"}"#,
        r#"{'subscribe':'c'}"#,
        r#"{"publish":"c","data":}"#,
        r#"{"publish":"c","data":01}"#,
        r#"{"publish":"c","data":nul}"#,
        r#"{"publish":"c","data":"a	b"}"#,
        "\u{feff}{\"subscribe\":\"c\"}",
    ] {
        let error = parsed(text).unwrap_err();
        assert_eq!((error.id, error.code), (None, "bad_json"), "{text:?}");
    }
}

#[test]
fn nesting_is_refused_before_any_parser_walks_it() {
    let nested = |depth: usize| format!(r#"{{"publish":"c","data":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert_eq!(code(&nested(NESTING_MAX)), "fine");
    for text in [
        nested(NESTING_MAX + 1),
        nested(30_000),
        "[".repeat(64 << 10),
        r#"{"a":"#.repeat(13_000),
        format!(r#"{{"publish":"c","data":{}"#, "[".repeat(64 << 10)),
        format!(r#"\"{}"#, "[".repeat(64 << 10)),
    ] {
        assert_eq!(code(&text), "bad_json");
    }
    assert_eq!(code(&format!(r#"{{"publish":"c","data":"{}"}}"#, "[".repeat(60_000))), "fine");
}

#[test]
fn a_huge_number_is_data_but_no_id() {
    let digits = "9".repeat(60_000);
    assert_eq!(code(&format!(r#"{{"publish":"c","data":{digits}}}"#)), "fine");
    assert_ne!(code(&format!(r#"{{"id":{digits},"subscribe":"c"}}"#)), "fine");
}

#[test]
fn a_command_cut_anywhere_is_refused() {
    let text = r#"{"id":"é","publish":"c\u00e9","data":{"a":[true,null,-1.5e3,"\""]}}"#;
    assert_eq!(code(text), "fine");
    for cut in (0..text.len()).filter(|&cut| text.is_char_boundary(cut)) {
        assert_eq!(code(&text[..cut]), "bad_json", "{}", &text[..cut]);
    }
}
