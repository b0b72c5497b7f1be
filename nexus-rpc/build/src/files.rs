//! The `.proto` files that define a service, to be embedded into its code: whoever holds the service's
//! descriptor can then read and write its messages without their Rust types.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

use crate::service::full_name;

/// The files of one compilation, without their comments and places.
pub(crate) struct Files(Vec<FileDescriptorProto>);

impl Files {
    pub(crate) fn new(files: &FileDescriptorSet) -> Self {
        let mut files = files.file.clone();
        for file in &mut files {
            file.source_code_info = None;
        }
        Self(files)
    }

    /// The file that defines the service (`package.Service`) and all that it imports, imports first, as an
    /// encoded `google.protobuf.FileDescriptorSet`.
    pub(crate) fn of_service(&self, service: &str) -> Vec<u8> {
        let defines = |file: &&FileDescriptorProto| {
            let mut services = file.service.iter();
            services.any(|own| full_name(file.package(), own.name()) == service)
        };
        let mut wanted = BTreeSet::new();
        if let Some(file) = self.0.iter().find(defines) {
            self.want(file, &mut wanted);
        }
        // The compiler gives imports before those who import them.
        let file = self.0.iter().filter(|file| wanted.contains(file.name()));
        let file = file.cloned().collect();
        FileDescriptorSet { file }.encode_to_vec()
    }

    fn want<'a>(&'a self, file: &'a FileDescriptorProto, wanted: &mut BTreeSet<&'a str>) {
        if !wanted.insert(file.name()) {
            return;
        }
        for import in &file.dependency {
            if let Some(file) = self.0.iter().find(|file| file.name() == import) {
                self.want(file, wanted);
            }
        }
    }
}
