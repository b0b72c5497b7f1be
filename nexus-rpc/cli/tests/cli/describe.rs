//! `nexus-rpc describe`.

use std::fs;
use std::path::Path;

use prost::Message;

use crate::support::{Provider, run, shop_proto};

const SHOP: &str = "\
service shop.Shop {
  rpc Price(shop.PriceRequest) returns (shop.PriceResponse) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc Refuse(shop.RefuseRequest) returns (shop.RefuseResponse);
  rpc Dawdle(shop.DawdleRequest) returns (shop.DawdleResponse);
}
";

/// What the method Price needs.
const PRICE: &str = "
message shop.PriceRequest {
  string article = 1;
  uint32 count = 2;
  repeated shop.PriceRequest.Option options = 3;
  map<string, int64> discounts = 4;
  optional string voucher = 5;
  oneof ship_to {
    string address = 6;
    shop.Shelf shelf = 7;
  }
  bytes photo = 8 [deprecated = true];
}

message shop.PriceResponse {
  uint64 cents = 1;
  string article = 2;
  repeated string options = 3;
}

message shop.PriceRequest.Option {
  string name = 1;
  shop.Kind kind = 2;
}

message shop.Shelf {
  int32 number = 1;
  shop.Shelf above = 2;
}

enum shop.Kind {
  KIND_UNKNOWN = 0;
  GIFT_WRAPPED = 1;
}
";

#[test]
fn a_method_is_described_with_the_messages_it_needs() {
    let proto = shop_proto();
    let text = run(&["describe", "shop.Shop.Price", "--proto", &proto]).printed();
    let head = "// of shop.Shop\nrpc Price(shop.PriceRequest) returns (shop.PriceResponse) \
                { option idempotency_level = NO_SIDE_EFFECTS; }\n";
    assert_eq!(text, format!("{head}{PRICE}"));
}

#[test]
fn a_service_a_message_and_everything_are_described() {
    let proto = shop_proto();
    let described =
        |name: &[&str]| run(&[&["describe", "--proto", &proto], name].concat()).printed();
    let everything = described(&[]);
    assert!(everything.starts_with(SHOP), "{everything}");
    assert!(
        everything.contains("message shop.DawdleRequest {\n  uint32 time_ms = 1;\n}"),
        "{everything}"
    );
    assert_eq!(described(&["shop.Shop"]), everything);
    let shelf = "message shop.Shelf {\n  int32 number = 1;\n  shop.Shelf above = 2;\n}\n";
    assert_eq!(described(&["shop.Shelf"]), shelf);
    assert!(described(&["shop.Kind"]).starts_with("enum shop.Kind {"));
}

#[test]
fn proto2_imports_and_known_types_are_described() {
    let folder = tempfile::tempdir().expect("a folder");
    let inner = folder.path().join("lib");
    fs::create_dir(&inner).expect("a folder");
    let write = |path: &std::path::Path, text: &str| fs::write(path, text).expect("written");
    write(
        &inner.join("unit.proto"),
        "syntax = \"proto3\"; package lib; message Unit {}",
    );
    let outer = folder.path().join("outer.proto");
    write(
        &outer,
        "syntax = \"proto2\"; package outer; import \"lib/unit.proto\"; \
         import \"google/protobuf/duration.proto\"; \
         message All { required lib.Unit unit = 1; optional string name = 2 [default = \"x\"]; \
         optional int32 count = 3 [default = -1]; repeated google.protobuf.Duration times = 4; }",
    );
    let outer = outer.to_str().expect("UTF-8");
    let text = run(&["describe", "outer.All", "--proto", outer]).printed();
    let expected = "\
message outer.All {
  required lib.Unit unit = 1;
  optional string name = 2 [default = \"x\"];
  optional int32 count = 3 [default = -1];
  repeated google.protobuf.Duration times = 4;
}

message lib.Unit {
}
";
    assert_eq!(text, expected);
    // With the imports looked for elsewhere, the file is not found.
    let inner = inner.to_str().expect("UTF-8");
    let args = ["describe", "outer.All", "--proto", outer, "--import", inner];
    let complaint = run(&args).complained();
    assert!(complaint.contains("--import DIR"), "{complaint}");
}

#[test]
fn what_is_not_there_is_said() {
    let proto = shop_proto();
    let complaint = run(&["describe", "shop.Nothing", "--proto", &proto]).complained();
    assert!(complaint.contains("there is no"), "{complaint}");
    let complaint = run(&["describe", "--proto", "no/such/file.proto"]).complained();
    assert!(complaint.contains("file.proto"), "{complaint}");
}

#[test]
fn descriptors_of_a_compiler_describe_and_call_as_the_file_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("shop.binpb");
    let proto = shop_proto();
    let beside = Path::new(&proto).parent().expect("a folder");
    let set = protox::compile(["shop.proto"], [beside]).expect("it compiles");
    fs::write(&file, set.encode_to_vec()).expect("written");
    let descriptors = ["--descriptors", file.to_str().expect("UTF-8")];
    for name in [&[][..], &["shop.Shop"], &["shop.Kind"]] {
        let of_proto = run(&[&["describe", "--proto", &proto], name].concat()).printed();
        let told = run(&[&["describe"], &descriptors[..], name].concat()).printed();
        assert_eq!(told, of_proto);
    }
    let shop = Provider::start();
    let url = shop.url();
    let call = [
        "--registry",
        &url,
        "call",
        "shop.Shop/Price",
        r#"{"count": 2}"#,
    ];
    let out = run(&[&call[..], &descriptors].concat()).printed();
    assert!(out.contains(r#""cents": "200""#), "{out}");
}

#[test]
fn a_file_that_only_protoc_takes_is_answered_with_the_way_by_descriptors() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [
        (
            "edition.proto",
            "edition = \"2023\"; message M { int32 a = 1; }",
        ),
        (
            "case.proto",
            "syntax = \"proto2\"; message M { optional int32 a_b = 1; optional int32 aB = 2; }",
        ),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, text).expect("written");
        let complaint = run(&["describe", "--proto", file.to_str().expect("UTF-8")]).complained();
        assert!(
            complaint.contains("--descriptors FILE"),
            "{name}: {complaint}"
        );
        // Text is no set of descriptors.
        let complaint =
            run(&["describe", "--descriptors", file.to_str().expect("UTF-8")]).complained();
        assert!(
            complaint.contains("--descriptor_set_out"),
            "{name}: {complaint}"
        );
    }
}
