//! Editions and features in a `FileDescriptorSet`, as far as they change bytes on the wire. Numbers are those of
//! `google/protobuf/descriptor.proto`; messages mirror its own, with the fields that are read here.

/// How a field is encoded, after all that its file, messages and itself say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) presence: Presence,
    pub(super) packed: bool,
    pub(super) delimited: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Explicit,
    Implicit,
    Required,
}

/// The defaults of editions 2023 and 2024.
const DEFAULTS: Features = Features {
    presence: Presence::Explicit,
    packed: true,
    delimited: false,
};
const EDITION_2023: i32 = 1000;
const EDITION_2024: i32 = 1001;

impl Features {
    fn with(self, set: Option<&FeatureSet>) -> Self {
        let Some(set) = set else {
            return self;
        };
        Self {
            presence: match set.field_presence {
                Some(1) => Presence::Explicit,
                Some(2) => Presence::Implicit,
                Some(3) => Presence::Required,
                _ => self.presence,
            },
            packed: match set.repeated_field_encoding {
                Some(1) => true,
                Some(2) => false,
                _ => self.packed,
            },
            delimited: match set.message_encoding {
                Some(1) => false,
                Some(2) => true,
                _ => self.delimited,
            },
        }
    }
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(super) struct EditionSet {
    #[prost(message, repeated, tag = "1")]
    pub(super) file: Vec<EditionFile>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(super) struct EditionFile {
    #[prost(message, repeated, tag = "4")]
    pub(super) message: Vec<EditionMessage>,
    #[prost(message, repeated, tag = "7")]
    pub(super) extension: Vec<EditionField>,
    #[prost(message, optional, tag = "8")]
    options: Option<FileOptions>,
    #[prost(int32, optional, tag = "14")]
    edition: Option<i32>,
}

impl EditionFile {
    /// What holds in the file unless something in it says otherwise; `None` for an edition whose defaults
    /// are not known.
    pub(super) fn features(&self) -> Option<Features> {
        let is_known = (EDITION_2023..=EDITION_2024).contains(&self.edition());
        let set = self
            .options
            .as_ref()
            .and_then(|options| options.features.as_ref());
        is_known.then(|| DEFAULTS.with(set))
    }
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(super) struct EditionMessage {
    #[prost(message, repeated, tag = "2")]
    pub(super) field: Vec<EditionField>,
    #[prost(message, repeated, tag = "3")]
    pub(super) nested: Vec<EditionMessage>,
    #[prost(message, repeated, tag = "6")]
    pub(super) extension: Vec<EditionField>,
    #[prost(message, optional, tag = "7")]
    options: Option<MessageOptions>,
}

impl EditionMessage {
    pub(super) fn features(&self, outer: Features) -> Features {
        outer.with(
            self.options
                .as_ref()
                .and_then(|options| options.features.as_ref()),
        )
    }

    pub(super) fn is_map_entry(&self) -> bool {
        self.options
            .as_ref()
            .is_some_and(|options| options.map_entry())
    }
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(super) struct EditionField {
    #[prost(message, optional, tag = "8")]
    options: Option<FieldOptions>,
}

impl EditionField {
    pub(super) fn features(&self, outer: Features) -> Features {
        outer.with(
            self.options
                .as_ref()
                .and_then(|options| options.features.as_ref()),
        )
    }
}

#[derive(Clone, PartialEq, ::prost::Message)]
struct FileOptions {
    #[prost(message, optional, tag = "50")]
    features: Option<FeatureSet>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
struct MessageOptions {
    #[prost(bool, optional, tag = "7")]
    map_entry: Option<bool>,
    #[prost(message, optional, tag = "12")]
    features: Option<FeatureSet>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
struct FieldOptions {
    #[prost(message, optional, tag = "21")]
    features: Option<FeatureSet>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
struct FeatureSet {
    #[prost(int32, optional, tag = "1")]
    field_presence: Option<i32>,
    #[prost(int32, optional, tag = "3")]
    repeated_field_encoding: Option<i32>,
    #[prost(int32, optional, tag = "5")]
    message_encoding: Option<i32>,
}
