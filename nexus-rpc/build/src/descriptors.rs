//! A compiled `FileDescriptorSet`, as protoc and buf write it, made into one that prost takes.
//!
//! prost and prost-reflect know proto2 and proto3, and refuse what protoc only warns of. So:
//!
//! | in the set | becomes |
//! |---|---|
//! | a file of edition 2023 or 2024 | a file of proto2, or of proto3 if a field has implicit presence |
//! | `field_presence`, `repeated_field_encoding`, `message_encoding` of a field | `required`, `optional`, `packed`, a group |
//! | two fields of one JSON name (`foo_bar`, `fooBar`) | fields with their own names as JSON names |
//!
//! The bytes of messages on the wire stay the same. Features that change no bytes are left out.
//!
//! prost-types does not know editions; [`features`] reads them from the same bytes.

mod features;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    OneofDescriptorProto,
};

use self::features::{EditionField, EditionFile, EditionMessage, EditionSet, Features, Presence};
use crate::BuildError;

/// Reads a file that `protoc --include_imports --descriptor_set_out=FILE` or `buf build -o FILE` has written, for [`Builder`](crate::Builder)
/// or for prost-reflect.
///
/// # Errors
/// [`BuildError::Descriptors`]: the file cannot be read, is no descriptor set, lacks an import, or is of a
/// newer edition than 2024.
pub fn read_descriptor_set(path: impl AsRef<Path>) -> Result<FileDescriptorSet, BuildError> {
    let path = path.as_ref();
    let wrong = |why: String| BuildError::Descriptors(format!("{}: {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let no_set = |error| {
        wrong(format!(
            "no FileDescriptorSet, as protoc and buf write it: {error}"
        ))
    };
    let mut set = FileDescriptorSet::decode(bytes.as_slice()).map_err(no_set)?;
    let editions = EditionSet::decode(bytes.as_slice()).map_err(no_set)?;
    if set.file.is_empty() {
        return Err(wrong("no file is in it".to_owned()));
    }
    let present: BTreeSet<String> = set.file.iter().map(|file| file.name().to_owned()).collect();
    for file in &set.file {
        if let Some(import) = file
            .dependency
            .iter()
            .find(|import| !present.contains(*import))
        {
            return Err(wrong(format!(
                "{import}, an import of {}, is not in it: write it with --include_imports",
                file.name()
            )));
        }
    }
    for (file, edition) in set.file.iter_mut().zip(&editions.file) {
        if file.syntax() == "editions" {
            lower_file(file, edition).map_err(&wrong)?;
        }
        for message in &mut file.message_type {
            tell_json_names_apart(message);
        }
    }
    Ok(set)
}

fn lower_file(file: &mut FileDescriptorProto, edition: &EditionFile) -> Result<(), String> {
    let Some(features) = edition.features() else {
        let (name, number) = (file.name(), edition.edition());
        return Err(format!(
            "{name} is of an edition that is not known here ({number})"
        ));
    };
    let is_implicit = edition
        .message
        .iter()
        .any(|message| has_implicit(message, features));
    let syntax = match is_implicit {
        true => Syntax::Proto3,
        false => Syntax::Proto2,
    };
    file.syntax = Some(syntax.name().to_owned());
    for (message, edition) in file.message_type.iter_mut().zip(&edition.message) {
        lower_message(message, edition, features, syntax);
    }
    for (field, edition) in file.extension.iter_mut().zip(&edition.extension) {
        lower_field(field, edition.features(features), &BTreeSet::new());
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Syntax {
    Proto2,
    Proto3,
}

impl Syntax {
    fn name(self) -> &'static str {
        match self {
            Self::Proto2 => "proto2",
            Self::Proto3 => "proto3",
        }
    }
}

fn has_implicit(message: &EditionMessage, outer: Features) -> bool {
    let features = message.features(outer);
    let implicit = |field: &EditionField| field.features(features).presence == Presence::Implicit;
    !message.is_map_entry()
        && (message.field.iter().any(implicit)
            || message
                .nested
                .iter()
                .any(|nested| has_implicit(nested, features)))
}

fn lower_message(
    message: &mut DescriptorProto,
    edition: &EditionMessage,
    outer: Features,
    syntax: Syntax,
) {
    if edition.is_map_entry() {
        return;
    }
    let features = edition.features(outer);
    let is_entry = |nested: &&DescriptorProto| {
        nested
            .options
            .as_ref()
            .is_some_and(|options| options.map_entry())
    };
    let entries = message.nested_type.iter().filter(is_entry);
    let entries: BTreeSet<String> = entries.map(|entry| entry.name().to_owned()).collect();
    for (nested, edition) in message.nested_type.iter_mut().zip(&edition.nested) {
        lower_message(nested, edition, features, syntax);
    }
    for (field, edition) in message.extension.iter_mut().zip(&edition.extension) {
        lower_field(field, edition.features(features), &entries);
    }
    for (field, edition) in message.field.iter_mut().zip(&edition.field) {
        let features = edition.features(features);
        lower_field(field, features, &entries);
        let has_presence = field.label() == Label::Optional
            && field.oneof_index.is_none()
            // prost knows by itself that a message may be absent; of a group in proto3 it does not.
            && field.r#type() != Type::Message
            && features.presence == Presence::Explicit;
        if syntax == Syntax::Proto3 && has_presence {
            // As protoc writes `optional` of proto3: in a oneof of its own, behind all others.
            field.proto3_optional = Some(true);
            field.oneof_index = i32::try_from(message.oneof_decl.len()).ok();
            message.oneof_decl.push(OneofDescriptorProto {
                name: Some(format!("_{}", field.name())),
                options: None,
            });
        }
    }
}

/// `entries` are the names of the message's map entries, which are no groups whatever their file says.
fn lower_field(field: &mut FieldDescriptorProto, features: Features, entries: &BTreeSet<String>) {
    let of_entry = field.type_name().rsplit('.').next();
    let is_map =
        field.label() == Label::Repeated && of_entry.is_some_and(|name| entries.contains(name));
    if field.r#type() == Type::Message && features.delimited && !is_map {
        field.set_type(Type::Group);
    }
    if field.label() == Label::Optional && features.presence == Presence::Required {
        field.set_label(Label::Required);
    }
    let is_packable = !matches!(
        field.r#type(),
        Type::String | Type::Bytes | Type::Message | Type::Group
    );
    if field.label() == Label::Repeated && is_packable {
        field.options.get_or_insert_default().packed = Some(features.packed);
    }
}

/// Fields that have one JSON name get their own names for it, which differ.
fn tell_json_names_apart(message: &mut DescriptorProto) {
    let mut times = BTreeMap::<String, usize>::new();
    for field in &message.field {
        *times.entry(field.json_name().to_owned()).or_default() += 1;
    }
    for field in &mut message.field {
        // A compiler that writes none has them made of the names, the same for all.
        let is_shared = times.get(field.json_name()).is_some_and(|&times| times > 1);
        if is_shared && field.json_name.is_some() {
            field.json_name.clone_from(&field.name);
        }
    }
    for nested in &mut message.nested_type {
        tell_json_names_apart(nested);
    }
}
