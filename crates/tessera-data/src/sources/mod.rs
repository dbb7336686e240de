//! Where samples come from: one file a source, and what several of them are made of. `open.rs` chooses
//! one from a configuration.

pub(crate) mod archives;
pub(crate) mod arrays;
pub(crate) mod compressed;
pub(crate) mod files;
pub mod idx;
pub(crate) mod labels;
pub(crate) mod media;
pub(crate) mod mixture;
pub(crate) mod names;
pub(crate) mod packed;
pub(crate) mod pattern;
pub(crate) mod recipe;
pub(crate) mod records;
pub(crate) mod splits;
pub(crate) mod subset;
pub(crate) mod synthetic;
pub(crate) mod tar_index;
pub(crate) mod tar_member;
pub(crate) mod tar_members;
pub(crate) mod tar_sparse;
pub(crate) mod webdataset;
