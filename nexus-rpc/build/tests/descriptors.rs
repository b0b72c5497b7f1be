//! Descriptor sets as protoc writes them. They stand here as JSON, in protobuf's mapping of
//! `google.protobuf.FileDescriptorSet`, as libprotoc 35.1 has written them for the `.proto` above each.

use std::fs;
use std::path::{Path, PathBuf};

use nexus_rpc_build::{BuildError, Builder, read_descriptor_set};
use prost_reflect::prost::Message;
use prost_reflect::{Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind};

/// ```proto
/// edition = "2023";
/// package test.editions;
/// message Order {
///   int32 id = 1 [features.field_presence = LEGACY_REQUIRED];
///   string note = 2;
///   uint32 count = 3 [features.field_presence = IMPLICIT];
///   repeated int32 packed = 4;
///   repeated int32 expanded = 5 [features.repeated_field_encoding = EXPANDED];
///   Item delimited = 6 [features.message_encoding = DELIMITED];
///   map<string, Item> items = 7;
///   oneof one { string left = 8; int32 right = 9; }
///   message Item { string name = 1; }
/// }
/// service Orders { rpc Place(Order) returns (Order); }
/// ```
const EDITION: &str = r#"{"file": [{"name": "orders.proto", "package": "test.editions", "messageType": [{"name": "Order",
  "field": [
    {"name": "id", "number": 1, "label": "LABEL_OPTIONAL", "type": "TYPE_INT32",
     "options": {"features": {"fieldPresence": "LEGACY_REQUIRED"}}, "jsonName": "id"},
    {"name": "note", "number": 2, "label": "LABEL_OPTIONAL", "type": "TYPE_STRING", "jsonName": "note"},
    {"name": "count", "number": 3, "label": "LABEL_OPTIONAL", "type": "TYPE_UINT32",
     "options": {"features": {"fieldPresence": "IMPLICIT"}}, "jsonName": "count"},
    {"name": "packed", "number": 4, "label": "LABEL_REPEATED", "type": "TYPE_INT32", "jsonName": "packed"},
    {"name": "expanded", "number": 5, "label": "LABEL_REPEATED", "type": "TYPE_INT32",
     "options": {"features": {"repeatedFieldEncoding": "EXPANDED"}}, "jsonName": "expanded"},
    {"name": "delimited", "number": 6, "label": "LABEL_OPTIONAL", "type": "TYPE_MESSAGE",
     "typeName": ".test.editions.Order.Item", "options": {"features": {"messageEncoding": "DELIMITED"}},
     "jsonName": "delimited"},
    {"name": "items", "number": 7, "label": "LABEL_REPEATED", "type": "TYPE_MESSAGE",
     "typeName": ".test.editions.Order.ItemsEntry", "jsonName": "items"},
    {"name": "left", "number": 8, "label": "LABEL_OPTIONAL", "type": "TYPE_STRING", "oneofIndex": 0, "jsonName": "left"},
    {"name": "right", "number": 9, "label": "LABEL_OPTIONAL", "type": "TYPE_INT32", "oneofIndex": 0, "jsonName": "right"}],
  "nestedType": [
    {"name": "ItemsEntry", "options": {"mapEntry": true}, "field": [
      {"name": "key", "number": 1, "label": "LABEL_OPTIONAL", "type": "TYPE_STRING", "jsonName": "key"},
      {"name": "value", "number": 2, "label": "LABEL_OPTIONAL", "type": "TYPE_MESSAGE",
       "typeName": ".test.editions.Order.Item", "jsonName": "value"}]},
    {"name": "Item", "field": [
      {"name": "name", "number": 1, "label": "LABEL_OPTIONAL", "type": "TYPE_STRING", "jsonName": "name"}]}],
  "oneofDecl": [{"name": "one"}]}],
  "service": [{"name": "Orders", "method": [
    {"name": "Place", "inputType": ".test.editions.Order", "outputType": ".test.editions.Order"}]}],
  "syntax": "editions", "edition": "EDITION_2023"}]}"#;

/// ```proto
/// syntax = "proto2";
/// package test.cased;
/// message Cased { optional int32 foo_bar = 1; optional int32 fooBar = 2; }
/// ```
const CASED: &str = r#"{"file": [{"name": "case.proto", "package": "test.cased", "messageType": [{"name": "Cased", "field": [
  {"name": "foo_bar", "number": 1, "label": "LABEL_OPTIONAL", "type": "TYPE_INT32", "jsonName": "fooBar"},
  {"name": "fooBar", "number": 2, "label": "LABEL_OPTIONAL", "type": "TYPE_INT32", "jsonName": "fooBar"}]}]}]}"#;

/// The set in a file, as bytes.
fn written(folder: &Path, json: &str) -> PathBuf {
    let set = DescriptorPool::global().get_message_by_name("google.protobuf.FileDescriptorSet");
    let mut json = serde_json::Deserializer::from_str(json);
    let set = DynamicMessage::deserialize(set.expect("it is known"), &mut json).expect("a set");
    let file = folder.join("set.binpb");
    fs::write(&file, set.encode_to_vec()).expect("written");
    file
}

fn pool(json: &str) -> DescriptorPool {
    let folder = tempfile::tempdir().expect("a folder");
    let set = read_descriptor_set(written(folder.path(), json)).expect("it is understood");
    DescriptorPool::from_file_descriptor_set(set).expect("it is in order")
}

#[test]
fn the_fields_of_an_edition_are_encoded_as_its_features_say() {
    let pool = pool(EDITION);
    let order = pool
        .get_message_by_name("test.editions.Order")
        .expect("it is there");
    let field = |name: &str| -> FieldDescriptor { order.get_field_by_name(name).expect(name) };
    assert_eq!(field("id").cardinality(), Cardinality::Required);
    let presence =
        ["note", "count", "left", "delimited"].map(|name| field(name).supports_presence());
    assert_eq!(presence, [true, false, true, true]);
    assert_eq!(
        (field("packed").is_packed(), field("expanded").is_packed()),
        (true, false)
    );
    assert!(field("delimited").is_group());
    assert!(field("items").is_map() && !field("items").is_group());
    let mut one = order.oneofs().filter(|oneof| !oneof.is_synthetic());
    let one = one.next().expect("a oneof");
    assert_eq!(
        one.fields().map(|field| field.number()).collect::<Vec<_>>(),
        [8, 9]
    );
    assert!(matches!(field("items").kind(), Kind::Message(_)));
}

#[test]
fn features_of_a_file_hold_in_it_and_a_file_without_implicit_presence_is_proto2() {
    let json = EDITION
        .replace(r#""options": {"features": {"fieldPresence": "IMPLICIT"}}, "#, "")
        .replace(
            r#""syntax": "editions""#,
            r#""options": {"features": {"repeatedFieldEncoding": "EXPANDED", "messageEncoding": "DELIMITED"}},
               "syntax": "editions""#,
        );
    let pool = pool(&json);
    let file = pool.get_file_by_name("orders.proto").expect("the file");
    assert_eq!(file.syntax(), prost_reflect::Syntax::Proto2);
    let order = pool
        .get_message_by_name("test.editions.Order")
        .expect("it is there");
    let field = |name: &str| order.get_field_by_name(name).expect("a field");
    assert!(field("count").supports_presence());
    assert!(!field("packed").is_packed());
    assert!(field("items").is_map(), "an entry of a map is no group");
}

#[test]
fn a_service_of_an_edition_becomes_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let set = written(folder.path(), EDITION);
    let builder = Builder::new().out_dir(folder.path());
    builder.compile_descriptors(&set).expect("generated");
    let code = fs::read_to_string(folder.path().join("test.editions.rs")).expect("it was written");
    for expected in [
        "pub id: i32",
        "pub note: ::core::option::Option<::prost::alloc::string::String>",
        "pub count: u32",
        "#[prost(group, optional, tag = \"6\")]",
        "pub trait Orders",
    ] {
        assert!(code.contains(expected), "{expected}: {code}");
    }
}

#[test]
fn names_that_differ_only_in_case_are_told_apart() {
    let pool = pool(CASED);
    let cased = pool
        .get_message_by_name("test.cased.Cased")
        .expect("it is there");
    let names: Vec<_> = cased
        .fields()
        .map(|field| field.json_name().to_owned())
        .collect();
    assert_eq!(names, ["foo_bar", "fooBar"]);
}

#[test]
fn a_set_that_cannot_be_used_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |file: &Path| match read_descriptor_set(file) {
        Err(BuildError::Descriptors(why)) => why,
        other => panic!("{other:?}"),
    };
    let importing = CASED.replace(
        r#""messageType""#,
        r#""dependency": ["other.proto"], "messageType""#,
    );
    let newer = EDITION.replace("\"EDITION_2023\"", "1002");
    for (json, wanted) in [
        (importing.as_str(), "--include_imports"),
        (newer.as_str(), "an edition that is not known"),
        (r#"{"file": []}"#, "no file is in it"),
    ] {
        let why = refused(&written(folder.path(), json));
        assert!(why.contains(wanted), "{why}");
    }
    let text = folder.path().join("orders.proto");
    fs::write(&text, "edition = \"2023\";").expect("written");
    assert!(refused(&text).contains("no FileDescriptorSet"));
    assert!(refused(&folder.path().join("none")).contains("none"));
}
