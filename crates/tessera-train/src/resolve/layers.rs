//! Values of several sources, laid over one another.
//!
//! A layer is checked as it is laid down, with the kinds that are chosen then: it cannot name a key
//! that its own kinds lack. What a lower layer said of a kind that a higher one has changed is left
//! out at the end, key by key, unless the new kind has the key too.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};
use toml::Value;

use super::schema::{self, Kinds, Wanted, joined};
use super::value::Written;
use crate::error::TrainError;

/// One value from one place.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) written: Written,
    pub(super) origin: String,
}

/// What all layers so far say.
#[derive(Debug, Default)]
pub(super) struct Layers {
    kinds: Kinds,
    /// Value and origin by key.
    values: BTreeMap<String, (Json, String)>,
    /// Tables that were named, with where; also those without a key.
    tables: BTreeMap<String, String>,
    /// Numbers of the parts of each list of tables.
    parts: BTreeMap<String, BTreeSet<usize>>,
}

impl Layers {
    /// Lays the entries of one source over what is there; of two for one key the later counts.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] with the place of a mistake.
    pub(super) fn add(&mut self, entries: Vec<Entry>) -> Result<(), TrainError> {
        let mut waiting = Waiting::default();
        for (order, entry) in entries.into_iter().enumerate() {
            waiting.push(order, entry);
        }
        while let Some((order, entry)) = waiting.pop() {
            let Ok(place) = schema::find(&entry.key, &self.kinds) else {
                return Err(self.unknown(&entry));
            };
            let Entry { key, written, origin } = &entry;
            let below = |field: &str, value| {
                let (key, written) = (joined(key, field), Written::Toml(value));
                Entry { key, written, origin: origin.clone() }
            };
            self.note_parts(key);
            match &place.wanted {
                Wanted::Table => {
                    let fields = written.table().ok_or_else(|| wrong(&entry, &place.wanted))?;
                    self.tables.insert(key.clone(), origin.clone());
                    for (field, value) in fields {
                        waiting.push(order, below(&field, value));
                    }
                }
                Wanted::Tables => {
                    let parts = written.tables().ok_or_else(|| wrong(&entry, &place.wanted))?;
                    // A list replaces the one before it.
                    let inner = format!("{key}.");
                    self.forget(&inner);
                    waiting.forget(&inner, order);
                    self.tables.insert(key.clone(), origin.clone());
                    for (number, part) in parts.into_iter().enumerate() {
                        waiting.push(order, below(&number.to_string(), Value::Table(part)));
                    }
                }
                wanted => {
                    let value = written.read(wanted).ok_or_else(|| wrong(&entry, wanted))?;
                    if let (Some(table), Json::String(kind)) = (key.strip_suffix(".kind"), &value)
                        && place.is_kind
                    {
                        self.kinds.insert(table.to_owned(), kind.clone());
                    }
                    self.values.insert(key.clone(), (value, origin.clone()));
                }
            }
        }
        self.check_parts()
    }

    /// The configuration as plain data, without what is not said, and where each value comes from.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] if a part of a list lacks what it needs.
    pub(super) fn finish(self) -> Result<(Json, BTreeMap<String, String>), TrainError> {
        let (mut tree, mut origins) = (Json::Object(Map::new()), BTreeMap::new());
        for key in self.tables.keys() {
            let Ok(place) = schema::find(key, &self.kinds) else { continue };
            match place.wanted {
                Wanted::Table => drop(object(at(&mut tree, key))),
                Wanted::Tables if at(&mut tree, key).is_null() => {
                    *at(&mut tree, key) = Json::Array(Vec::new());
                }
                _ => {}
            }
            self.note_kinds(&mut tree, &place.kinds);
        }
        for (key, (value, origin)) in &self.values {
            let Ok(place) = schema::find(key, &self.kinds) else { continue };
            let fits = Value::try_from(value).ok();
            if fits.and_then(|value| Written::Toml(value).read(&place.wanted)).is_none() {
                continue; // the kind before had another key of this name
            }
            self.note_kinds(&mut tree, &place.kinds);
            *at(&mut tree, key) = value.clone();
            origins.insert(key.clone(), origin.clone());
        }
        for (list, parts) in &self.parts {
            for part in parts {
                let part = format!("{list}.{part}");
                let found = tree.pointer(&format!("/{}", part.replace('.', "/")));
                let Some(found) = found else { continue }; // of a kind that is no longer chosen
                let lacks = |name: &&&str| found.get(**name).is_none();
                if let Some(lacking) = schema::required(list, &self.kinds).iter().find(lacks) {
                    let inner = format!("{part}.");
                    let said = self.values.iter().find(|(key, _)| key.starts_with(&inner));
                    let origin = said.map(|(_, (_, origin))| origin).or(self.tables.get(&part));
                    let origin = origin.map_or("--set", String::as_str);
                    return Err(TrainError::BadInput(format!(
                        "{origin}: {part} lacks {lacking}: each part of {list} needs one"
                    )));
                }
            }
        }
        Ok((tree, origins))
    }

    /// Writes down the kinds of tables, which what is below them goes by.
    fn note_kinds(&self, tree: &mut Json, kinds: &[(String, String)]) {
        for (table, kind) in kinds {
            let table = object(at(tree, table));
            table.entry("kind").or_insert_with(|| kind.as_str().into());
        }
    }

    fn note_parts(&mut self, key: &str) {
        for (dot, _) in key.match_indices('.') {
            let rest = &key[dot + 1..];
            let part = rest.split('.').next().expect("a split has a first part");
            if let Some(number) = schema::number(part) {
                self.parts.entry(key[..dot].to_owned()).or_default().insert(number);
            }
        }
    }

    fn check_parts(&self) -> Result<(), TrainError> {
        for (list, parts) in &self.parts {
            if let Some(missing) = (0..parts.len()).find(|number| !parts.contains(number)) {
                let last = parts.last().expect("a part is missing before one that is there");
                let inner = format!("{list}.{last}");
                let mut said = self.values.iter().map(|(key, (_, origin))| (key, origin));
                let origin =
                    said.find(|(key, _)| key.starts_with(&inner)).map(|(_, origin)| origin);
                let origin = origin.or(self.tables.get(&inner)).map_or("--set", String::as_str);
                return Err(TrainError::BadInput(format!(
                    "{origin}: there is {inner} but no {list}.{missing}: parts are numbered from 0, \
                     without gaps"
                )));
            }
        }
        Ok(())
    }

    /// Forgets all keys that begin so.
    fn forget(&mut self, inner: &str) {
        self.values.retain(|key, _| !key.starts_with(inner));
        self.tables.retain(|key, _| !key.starts_with(inner));
        self.kinds.retain(|key, _| !key.starts_with(inner));
        self.parts.retain(|key, _| !format!("{key}.").starts_with(inner));
    }

    fn unknown(&self, Entry { key, origin, .. }: &Entry) -> TrainError {
        let unknown = schema::find(key, &self.kinds).err();
        if let Some(table) = unknown.as_ref().and_then(|unknown| unknown.without_kind.as_ref()) {
            return TrainError::BadInput(format!(
                "{origin}: {table} lacks kind, which its other keys hang on: set {table}.kind"
            ));
        }
        let kind = unknown.and_then(|unknown| unknown.kind);
        let of_kind = kind.map_or(String::new(), |kind| format!(" of kind \"{kind}\""));
        let nearest = nearest_key(key, &self.kinds);
        TrainError::BadInput(format!(
            "{origin}: unknown key '{key}'{of_kind}: did you mean '{nearest}'?"
        ))
    }
}

/// Entries of a source, each with its number in it, that are still to be laid down. Outer tables
/// come first and their kinds before their other keys: which keys a table has hangs on its kind.
#[derive(Default)]
struct Waiting {
    /// By depth, whether it is no kind, number in the source, and number of all.
    entries: BTreeMap<(usize, bool, usize, usize), Entry>,
    pushed: usize,
}

impl Waiting {
    fn push(&mut self, order: usize, entry: Entry) {
        let depth = entry.key.matches('.').count();
        self.entries.insert((depth, !entry.key.ends_with(".kind"), order, self.pushed), entry);
        self.pushed += 1;
    }

    fn pop(&mut self) -> Option<(usize, Entry)> {
        self.entries.pop_first().map(|((_, _, order, _), entry)| (order, entry))
    }

    /// Forgets all keys that begin so and came before `order`.
    fn forget(&mut self, inner: &str, order: usize) {
        self.entries.retain(|(_, _, at, _), entry| *at > order || !entry.key.starts_with(inner));
    }
}

fn wrong(Entry { key, written, origin }: &Entry, wanted: &Wanted) -> TrainError {
    let words = match wanted {
        Wanted::Whole { most, .. } if written.is_above(*most) => {
            format!("a whole number, at most {most}")
        }
        wanted => wanted.words(),
    };
    let found = written.words();
    TrainError::BadInput(format!("{origin}: {key} should be {words}, found {found}"))
}

/// The place of a key in a tree; made where it is not there.
fn at<'a>(tree: &'a mut Json, key: &str) -> &'a mut Json {
    let mut place = tree;
    for part in key.split('.').filter(|part| !part.is_empty()) {
        place = match schema::number(part) {
            Some(number) => {
                if !place.is_array() {
                    *place = Json::Array(Vec::new());
                }
                let parts = place.as_array_mut().expect("it was just made one");
                if parts.len() <= number {
                    parts.resize(number + 1, Json::Null);
                }
                &mut parts[number]
            }
            None => object(place).entry(part).or_insert(Json::Null),
        };
    }
    place
}

fn object(place: &mut Json) -> &mut Map<String, Json> {
    if !place.is_object() {
        *place = Json::Object(Map::new());
    }
    place.as_object_mut().expect("it was just made one")
}

/// The existing key that looks most like `key`: the likeness of whole keys counts, and that of
/// their last parts, so that a right name in the wrong table is found.
fn nearest_key(key: &str, kinds: &Kinds) -> String {
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let likeness = |known: &str| {
        strsim::normalized_damerau_levenshtein(key, known)
            + strsim::normalized_damerau_levenshtein(&last(key), &last(known))
    };
    let keys = schema::keys(key, kinds).into_iter();
    keys.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).expect("a configuration has keys")
}
