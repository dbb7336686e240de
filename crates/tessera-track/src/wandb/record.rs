//! Messages of W&B's `wandb_internal.proto`, as far as a run folder needs them.
//!
//! Its authors keep to protobuf's rules for changes, and newer versions read older files. Fields that are not
//! written are left out here.

use prost::Message;
use serde_json::Value;

/// One record of the log; one of its fields is set besides the number.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Record {
    #[prost(int64, tag = "1")]
    pub(super) num: i64,
    #[prost(message, optional, tag = "2")]
    pub(super) history: Option<History>,
    #[prost(message, optional, tag = "3")]
    pub(super) summary: Option<Items>,
    #[prost(message, optional, tag = "5")]
    pub(super) config: Option<Items>,
    #[prost(message, optional, tag = "6")]
    pub(super) files: Option<Files>,
    #[prost(message, optional, tag = "17")]
    pub(super) run: Option<RunRecord>,
    #[prost(message, optional, tag = "18")]
    pub(super) exit: Option<Exit>,
}

/// A row.
#[derive(Clone, PartialEq, Message)]
pub(super) struct History {
    #[prost(message, repeated, tag = "1")]
    pub(super) items: Vec<Item>,
    #[prost(message, optional, tag = "2")]
    pub(super) step: Option<Step>,
}

/// A key and its value as JSON.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Item {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "16")]
    pub(super) value_json: String,
}

impl Item {
    pub(super) fn new(key: &str, value: &Value) -> Self {
        Self { key: key.to_owned(), value_json: value.to_string() }
    }
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Step {
    #[prost(int64, tag = "1")]
    pub(super) num: i64,
}

/// `SummaryRecord` and `ConfigRecord`: what is set anew.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Items {
    #[prost(message, repeated, tag = "1")]
    pub(super) update: Vec<Item>,
}

/// Files of the run's folder that go to the server.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Files {
    #[prost(message, repeated, tag = "1")]
    pub(super) files: Vec<FileItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FileItem {
    #[prost(string, tag = "1")]
    pub(super) path: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RunRecord {
    #[prost(string, tag = "1")]
    pub(super) run_id: String,
    #[prost(string, tag = "2")]
    pub(super) entity: String,
    #[prost(string, tag = "3")]
    pub(super) project: String,
    #[prost(message, optional, tag = "4")]
    pub(super) config: Option<Items>,
    #[prost(string, tag = "8")]
    pub(super) display_name: String,
    #[prost(message, optional, tag = "17")]
    pub(super) start_time: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Exit {
    #[prost(int32, tag = "1")]
    pub(super) exit_code: i32,
    #[prost(int32, tag = "2")]
    pub(super) runtime: i32,
}
