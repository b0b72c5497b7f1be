//! JSON read as messages: nothing is lost or changed without an error.

use std::path::Path;

use nexus_rpc::json::read;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};

fn numbers() -> MessageDescriptor {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proto");
    let files = protox::compile(["json.proto"], [folder]).expect("a file in order");
    let pool = DescriptorPool::from_file_descriptor_set(files).expect("a pool");
    pool.get_message_by_name("test.json.Numbers")
        .expect("it is there")
}

fn accepted(json: &str) -> DynamicMessage {
    read(&numbers(), json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"))
}

#[track_caller]
fn refused(json: &str) -> String {
    match read(&numbers(), json.as_bytes()) {
        Ok(message) => panic!("{json} was read as {message:?}"),
        Err(error) => error.to_string(),
    }
}

fn field(json: &str, name: &str) -> Value {
    accepted(json)
        .get_field_by_name(name)
        .expect("a field")
        .into_owned()
}

#[test]
fn a_key_that_stands_twice_is_refused_by_name_wherever_it_stands() {
    for (json, name) in [
        (r#"{"wide": 1, "wide": 2}"#, "wide"),
        (r#"{"wide": 1, "wide": 1}"#, "wide"),
        (
            r#"{"inner": {"inner": {"narrow": 1, "narrow": 2}}}"#,
            "narrow",
        ),
        (r#"{"byName": {"a": {}, "a": {}}}"#, "\"a\""),
        (r#"{"byName": {"a": {"wide": 1, "wide": 1}}}"#, "wide"),
        (r#"{"byNumber": {"1": 1, "1": 2}}"#, "\"1\""),
        (r#"{"free": {"list": [{"x": 1, "x": 2}]}}"#, "\"x\""),
        (r#"{"free": {"a": 1}, "free": {"b": 1}}"#, "free"),
        (
            r#"{"any": {"@type": "t/test.json.Numbers", "wide": 1, "wide": 1}}"#,
            "wide",
        ),
        (r#"{"w\u0069de": 1, "wide": 2}"#, "wide"),
        // Null says "not set", and says it twice all the same.
        (r#"{"wide": null, "wide": 2}"#, "wide"),
    ] {
        let error = refused(json);
        assert!(error.contains(name), "{json}: {error}");
        assert!(error.contains("twice"), "{json}: {error}");
        assert!(error.contains("column"), "{json}: {error}");
    }
}

#[test]
fn a_field_under_both_its_names_and_a_map_key_in_two_spellings_are_refused() {
    for json in [
        r#"{"signedLong": 1, "signed_long": 2}"#,
        r#"{"inner": {"signed_long": 1, "signedLong": 1}}"#,
        r#"{"any": {"@type": "t/test.json.Numbers", "signedLong": 1, "signed_long": 2}}"#,
    ] {
        assert!(refused(json).contains("signed_long stands twice"), "{json}");
    }
    assert!(refused(r#"{"byNumber": {"1": 1, "01": 2}}"#).contains("by_number stands twice"));
    // As strings these differ.
    accepted(r#"{"byName": {"1": {}, "01": {}}}"#);
}

#[test]
fn a_double_keeps_every_bit() {
    // The last are wrong by one bit where a reader rounds twice.
    for text in [
        "1.7976931348623157e308",
        "-1.7976931348623157e308",
        "5e-324",
        "2.2250738585072014e-308",
        "0.1",
        "-0.0",
        "9007199254740993",
        "122.416294033786585",
        "1.2345678901234567e-290",
    ] {
        let wanted: f64 = text.parse().expect("a number");
        let Value::F64(read) = field(&format!(r#"{{"wide": {text}}}"#), "wide") else {
            panic!("no double");
        };
        assert_eq!(read.to_bits(), wanted.to_bits(), "{text}");
        let written = serde_json::to_string(&accepted(&format!(r#"{{"wide": {text}}}"#)));
        let again = field(&written.expect("JSON"), "wide");
        assert_eq!(again, Value::F64(wanted), "{text}");
    }
}

#[test]
fn every_float_that_is_written_is_read_back() {
    for wanted in [
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        1e-45,
        0.1,
        16_777_217.0,
    ] {
        for json in [
            format!(r#"{{"narrow": {wanted:?}}}"#),
            format!(r#"{{"narrow": "{wanted:?}"}}"#),
        ] {
            let written = serde_json::to_string(&accepted(&json)).expect("JSON");
            assert_eq!(field(&written, "narrow"), Value::F32(wanted), "{json}");
        }
        let list = field(&format!(r#"{{"narrows": [{wanted:?}]}}"#), "narrows");
        assert_eq!(list, Value::List(vec![Value::F32(wanted)]));
        accepted(&format!(r#"{{"byNumber": {{"7": {wanted:?}}}}}"#));
        accepted(&format!(r#"{{"wrapped": {wanted:?}}}"#));
        accepted(&format!(
            r#"{{"any": {{"@type": "t/google.protobuf.FloatValue", "value": {wanted:?}}}}}"#
        ));
    }
    for json in [
        r#"{"narrow": 3.5e38}"#,
        r#"{"narrow": "3.5e38"}"#,
        r#"{"narrows": [-1e39]}"#,
        r#"{"wrapped": 1e39}"#,
        r#"{"wide": 1e309}"#,
        r#"{"wide": "1e309"}"#,
    ] {
        let error = refused(json);
        assert!(error.contains("range"), "{json}: {error}");
    }
}

#[test]
fn what_is_no_number_has_three_names() {
    for (text, wanted) in [
        ("Infinity", f64::INFINITY),
        ("-Infinity", f64::NEG_INFINITY),
        ("1.5", 1.5),
    ] {
        assert_eq!(
            field(&format!(r#"{{"wide": "{text}"}}"#), "wide"),
            Value::F64(wanted)
        );
        let narrow = Value::F32(wanted as f32);
        assert_eq!(
            field(&format!(r#"{{"narrow": "{text}"}}"#), "narrow"),
            narrow
        );
    }
    for name in ["wide", "narrow"] {
        let written = serde_json::to_string(&accepted(&format!(r#"{{"{name}": "NaN"}}"#)));
        assert_eq!(written.expect("JSON"), format!(r#"{{"{name}":"NaN"}}"#));
        for text in ["nan", "inf", "infinity", "+Infinity", "-inf", "one", ""] {
            refused(&format!(r#"{{"{name}": "{text}"}}"#));
        }
    }
}

#[test]
fn a_long_integer_is_read_from_a_number_and_a_string_and_kept_in_range() {
    for text in [
        "9223372036854775807",
        "-9223372036854775808",
        "9007199254740993",
        "1000",
    ] {
        let wanted = Value::I64(text.parse().expect("a number"));
        assert_eq!(
            field(&format!(r#"{{"signedLong": {text}}}"#), "signed_long"),
            wanted
        );
        assert_eq!(
            field(&format!(r#"{{"signed_long": "{text}"}}"#), "signed_long"),
            wanted
        );
    }
    let most = Value::U64(u64::MAX);
    assert_eq!(
        field(r#"{"unsignedLong": 18446744073709551615}"#, "unsigned_long"),
        most
    );
    assert_eq!(
        field(
            r#"{"unsignedLong": "18446744073709551615"}"#,
            "unsigned_long"
        ),
        most
    );
    assert_eq!(
        field(r#"{"signedLong": 1e18}"#, "signed_long"),
        Value::I64(10i64.pow(18))
    );
    for json in [
        r#"{"signedLong": 9223372036854775808}"#,
        r#"{"signedLong": 9.223372036854775807e18}"#,
        r#"{"signedLong": "9223372036854775808"}"#,
        r#"{"signedLong": -9223372036854777000}"#,
        r#"{"signedLong": 1.5}"#,
        r#"{"unsignedLong": 18446744073709551616}"#,
        r#"{"unsignedLong": "18446744073709551616"}"#,
        r#"{"unsignedLong": -1}"#,
    ] {
        refused(json);
    }
}

#[test]
fn deep_nesting_is_refused() {
    let deep = |levels| format!("{}{}", r#"{"inner":"#.repeat(levels), "{}") + &"}".repeat(levels);
    accepted(&deep(90));
    assert!(refused(&deep(200)).contains("recursion"));
}
