//! What can be called: services, methods and messages, so that tools can build requests.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_reflect::prost_types::FileDescriptorSet;
use prost_reflect::{Cardinality, Kind, MessageDescriptor};
use serde_json::{Value, json};

use super::pages::{Page, json_page};
use crate::server::serving::Serving;

/// The `.proto` files of all services, each once: an encoded `google.protobuf.FileDescriptorSet`.
pub(super) fn files(serving: &Serving) -> Vec<u8> {
    let mut all = FileDescriptorSet::default();
    let mut names = BTreeSet::new();
    for service in serving.descriptors() {
        // What cannot be read was reported at the start.
        let files = FileDescriptorSet::decode(service.files).unwrap_or_default();
        for file in files.file {
            if names.insert(file.name().to_owned()) {
                all.file.push(file);
            }
        }
    }
    all.encode_to_vec()
}

pub(super) fn page(serving: &Serving) -> Page {
    let mut messages = BTreeMap::new();
    for method in serving.methods() {
        if let Some(mapping) = &method.json {
            describe(mapping.request(), &mut messages);
            describe(mapping.response(), &mut messages);
        }
    }
    let services: Vec<Value> = serving
        .descriptors()
        .map(|service| {
            let methods: Vec<Value> = service
                .methods
                .iter()
                .map(|method| {
                    json!({
                        "name": method.name,
                        "path": format!("/{}/{}", method.service, method.name),
                        "request": method.request_type,
                        "response": method.response_type,
                        "execution": format!("{:?}", method.execution).to_lowercase(),
                        "idempotent": method.idempotent,
                    })
                })
                .collect();
            json!({ "name": service.name, "methods": methods })
        })
        .collect();
    json_page(200, &json!({ "services": services, "messages": messages }))
}

/// Adds a message and those that its fields hold.
fn describe(message: &MessageDescriptor, into: &mut BTreeMap<String, Value>) {
    let mut waiting = vec![message.clone()];
    while let Some(message) = waiting.pop() {
        if into.contains_key(message.full_name()) {
            continue;
        }
        let fields: Vec<Value> = message
            .fields()
            .map(|field| {
                if let Kind::Message(inner) = field.kind() {
                    waiting.push(inner);
                }
                json!({
                    "name": field.name(),
                    "json_name": field.json_name(),
                    "number": field.number(),
                    "type": format!("{:?}", field.kind()),
                    "repeated": field.cardinality() == Cardinality::Repeated,
                })
            })
            .collect();
        into.insert(message.full_name().to_owned(), Value::from(fields));
    }
}
