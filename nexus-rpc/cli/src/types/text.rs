//! Descriptors as `.proto` text. Names are full ones, so that each can be described in its turn; what
//! protobuf itself defines (`google.protobuf`) is named and not spelled out.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;

use prost_reflect::{
    Cardinality, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    OneofDescriptor, ServiceDescriptor, Syntax,
};

/// A service, then every message it needs.
pub(super) fn service(service: &ServiceDescriptor) -> String {
    let mut text = Text::default();
    text.line(format_args!("service {} {{", service.full_name()));
    for method in service.methods() {
        text.rpc("  ", &method);
    }
    text.line(format_args!("}}"));
    text.with_what_is_needed()
}

/// A method, then every message it needs.
pub(super) fn method(method: &MethodDescriptor) -> String {
    let mut text = Text::default();
    let service = method.parent_service().full_name();
    text.line(format_args!("// of {service}"));
    text.rpc("", method);
    text.with_what_is_needed()
}

/// A message, then every other that it needs.
pub(super) fn message(message: &MessageDescriptor) -> String {
    let mut text = Text::default();
    text.spelled_out.insert(message.full_name().to_owned());
    text.message(message);
    text.with_what_is_needed()
}

/// An enum.
pub(super) fn enumeration(defined: &EnumDescriptor) -> String {
    let mut text = Text::default();
    text.enumeration(defined);
    text.out
}

#[derive(Default)]
struct Text {
    out: String,
    /// Full names, so that a message that holds itself comes once.
    spelled_out: BTreeSet<String>,
    needed: VecDeque<Kind>,
}

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.out, "{line}");
    }

    fn with_what_is_needed(mut self) -> String {
        while let Some(kind) = self.needed.pop_front() {
            self.out.push('\n');
            match kind {
                Kind::Enum(defined) => self.enumeration(&defined),
                Kind::Message(defined) => self.message(&defined),
                _ => {}
            }
        }
        self.out
    }

    fn rpc(&mut self, indent: &str, method: &MethodDescriptor) {
        let (input, output) = (method.input(), method.output());
        let stream = |streams| if streams { "stream " } else { "" };
        let head = format!(
            "{indent}rpc {}({}{}) returns ({}{})",
            method.name(),
            stream(method.is_client_streaming()),
            input.full_name(),
            stream(method.is_server_streaming()),
            output.full_name(),
        );
        let declared = method.method_descriptor_proto().options.as_ref();
        let mut options = Vec::new();
        if let Some(declared) = declared {
            if declared.idempotency_level.is_some() {
                let level = declared.idempotency_level().as_str_name();
                options.push(format!("option idempotency_level = {level};"));
            }
            if declared.deprecated() {
                options.push("option deprecated = true;".to_owned());
            }
        }
        match options.is_empty() {
            true => self.line(format_args!("{head};")),
            false => self.line(format_args!("{head} {{ {} }}", options.join(" "))),
        }
        self.need(Kind::Message(input));
        self.need(Kind::Message(output));
    }

    fn message(&mut self, message: &MessageDescriptor) {
        self.line(format_args!("message {} {{", message.full_name()));
        let mut oneofs_done = BTreeSet::new();
        for field in message.fields() {
            match field
                .containing_oneof()
                .filter(|oneof| !oneof.is_synthetic())
            {
                // All its fields come where its first one stands.
                Some(oneof) => {
                    if oneofs_done.insert(oneof.full_name().to_owned()) {
                        self.oneof(&oneof);
                    }
                }
                None => self.field("  ", &field),
            }
        }
        self.line(format_args!("}}"));
    }

    fn oneof(&mut self, oneof: &OneofDescriptor) {
        self.line(format_args!("  oneof {} {{", oneof.name()));
        for field in oneof.fields() {
            self.field("    ", &field);
        }
        self.line(format_args!("  }}"));
    }

    fn field(&mut self, indent: &str, field: &FieldDescriptor) {
        let kind = self.kind(field);
        let label = label(field);
        let declared = field.field_descriptor_proto();
        let mut options = Vec::new();
        if declared.default_value.is_some() {
            let value = declared.default_value();
            options.push(match field.kind() {
                Kind::String | Kind::Bytes => format!("default = {value:?}"),
                _ => format!("default = {value}"),
            });
        }
        if declared
            .options
            .as_ref()
            .is_some_and(|options| options.deprecated())
        {
            options.push("deprecated = true".to_owned());
        }
        let options = match options.is_empty() {
            true => String::new(),
            false => format!(" [{}]", options.join(", ")),
        };
        let (name, number) = (field.name(), field.number());
        self.line(format_args!(
            "{indent}{label}{kind} {name} = {number}{options};"
        ));
    }

    fn enumeration(&mut self, defined: &EnumDescriptor) {
        self.line(format_args!("enum {} {{", defined.full_name()));
        for value in defined.values() {
            self.line(format_args!("  {} = {};", value.name(), value.number()));
        }
        self.line(format_args!("}}"));
    }

    /// The field's type as it is written; what it names is spelled out later.
    fn kind(&mut self, field: &FieldDescriptor) -> String {
        if let Kind::Message(entry) = field.kind()
            && field.is_map()
        {
            let key = self.kind(&entry.map_entry_key_field());
            let value = self.kind(&entry.map_entry_value_field());
            return format!("map<{key}, {value}>");
        }
        self.need(field.kind());
        match field.kind() {
            Kind::Message(message) => message.full_name().to_owned(),
            Kind::Enum(defined) => defined.full_name().to_owned(),
            Kind::Double => "double".to_owned(),
            Kind::Float => "float".to_owned(),
            Kind::Int32 => "int32".to_owned(),
            Kind::Int64 => "int64".to_owned(),
            Kind::Uint32 => "uint32".to_owned(),
            Kind::Uint64 => "uint64".to_owned(),
            Kind::Sint32 => "sint32".to_owned(),
            Kind::Sint64 => "sint64".to_owned(),
            Kind::Fixed32 => "fixed32".to_owned(),
            Kind::Fixed64 => "fixed64".to_owned(),
            Kind::Sfixed32 => "sfixed32".to_owned(),
            Kind::Sfixed64 => "sfixed64".to_owned(),
            Kind::Bool => "bool".to_owned(),
            Kind::String => "string".to_owned(),
            Kind::Bytes => "bytes".to_owned(),
        }
    }

    fn need(&mut self, kind: Kind) {
        let name = match &kind {
            Kind::Message(message) => message.full_name(),
            Kind::Enum(defined) => defined.full_name(),
            _ => return,
        };
        if !name.starts_with("google.protobuf.") && self.spelled_out.insert(name.to_owned()) {
            self.needed.push_back(kind);
        }
    }
}

fn label(field: &FieldDescriptor) -> &'static str {
    let in_oneof = field
        .containing_oneof()
        .is_some_and(|oneof| !oneof.is_synthetic());
    match field.cardinality() {
        _ if field.is_map() || in_oneof => "",
        Cardinality::Repeated => "repeated ",
        Cardinality::Required => "required ",
        // Written in each field of proto2, and in proto3 where it makes a difference.
        Cardinality::Optional => match field.parent_file().syntax() {
            Syntax::Proto2 => "optional ",
            _ if field.field_descriptor_proto().proto3_optional() => "optional ",
            _ => "",
        },
    }
}
