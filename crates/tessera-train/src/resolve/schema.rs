//! Which keys a configuration has, and what each may hold: the schema of its types, walked.
//!
//! Which keys a table with kinds has hangs on its `kind`, so every walk is told the kinds that are
//! chosen. Parts of a list of tables are keys too: `data.mixture.0.weight`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value as Json};

use crate::config::TrainConfig;

/// Dotted key of a table with kinds, and the kind chosen for it.
pub(super) type Kinds = BTreeMap<String, String>;

type Object = Map<String, Json>;

/// The schema of a [`TrainConfig`].
static ROOT: LazyLock<Json> = LazyLock::new(|| schemars::schema_for!(TrainConfig).to_value());

/// What a key may hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wanted {
    /// A whole number in this range.
    Whole {
        least: i64,
        most: i64,
    },
    Number,
    Truth,
    Text,
    /// One of these.
    Word(Vec<&'static str>),
    List(Box<Wanted>),
    /// Keys below it.
    Table,
    /// A list of tables.
    Tables,
}

/// A key that there is.
pub(super) struct Place {
    pub(super) wanted: Wanted,
    /// Tables with kinds on the way to it, itself among them, and their kinds.
    pub(super) kinds: Vec<(String, String)>,
    /// Whether it is the kind of its table.
    pub(super) is_kind: bool,
}

/// A key that there is not.
pub(super) struct Unknown {
    /// Kind of the table that lacks it, where it has one.
    pub(super) kind: Option<String>,
    /// The table that lacks it, where its keys hang on a kind that nobody has said.
    pub(super) without_kind: Option<String>,
}

/// What stands at a key.
#[derive(Clone, Copy)]
enum Node {
    Schema(&'static Object),
    /// The key `kind` of a table with these kinds.
    Kind(&'static Vec<Json>),
}

/// Looks a key up among those that there are with these kinds.
pub(super) fn find(key: &str, chosen: &Kinds) -> Result<Place, Unknown> {
    let mut node = Node::Schema(root());
    let (mut path, mut kinds) = (String::new(), Vec::new());
    for part in key.split('.') {
        let Node::Schema(schema) = node else {
            return Err(Unknown { kind: None, without_kind: None });
        };
        let kind = kind_of(&path, schema, chosen);
        kinds.extend(kind.clone().map(|kind| (path.clone(), kind)));
        let found = match item(schema) {
            Some(item) => number(part).map(|_| Node::Schema(item)),
            None => field(part, &path, schema, chosen),
        };
        let without_kind = (kind.is_none() && kinds_of(schema).is_some()).then(|| path.clone());
        node = found.ok_or(Unknown { kind, without_kind })?;
        path = joined(&path, part);
    }
    let wanted = match node {
        Node::Schema(schema) => {
            kinds.extend(kind_of(&path, schema, chosen).map(|kind| (path, kind)));
            wanted(schema)
        }
        Node::Kind(kinds) => Wanted::Word(kinds.iter().filter_map(tag).collect()),
    };
    Ok(Place { wanted, kinds, is_kind: matches!(node, Node::Kind(_)) })
}

/// Every key that holds a value, with these kinds. Of a list of tables one part's keys are told:
/// those of the part that `like` names, or else of the first.
pub(super) fn keys(like: &str, chosen: &Kinds) -> Vec<String> {
    let mut found = Vec::new();
    collect("", root(), like, chosen, &mut found);
    found
}

/// The keys that a part of the list of tables at `key` cannot do without.
pub(super) fn required(key: &str, chosen: &Kinds) -> Vec<&'static str> {
    let mut node = root();
    let mut path = String::new();
    for part in key.split('.') {
        let next = match item(node) {
            Some(item) => Some(Node::Schema(item)),
            None => field(part, &path, node, chosen),
        };
        let Some(Node::Schema(schema)) = next else { return Vec::new() };
        (node, path) = (schema, joined(&path, part));
    }
    let item = item(node).map(resolved);
    let names = item.and_then(|item| item.get("required")).and_then(Json::as_array);
    names.into_iter().flatten().filter_map(Json::as_str).collect()
}

/// A key in a table.
pub(super) fn joined(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

/// The number of a part in a list of tables, as it stands in a key.
pub(super) fn number(part: &str) -> Option<usize> {
    part.parse().ok().filter(|number: &usize| number.to_string() == part)
}

impl Wanted {
    /// What to tell a person.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Whole { least: 0, .. } => "a whole number, 0 or more".to_owned(),
            Self::Whole { .. } => "a whole number".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Truth => "true or false".to_owned(),
            Self::Text => "a text in quotes".to_owned(),
            Self::Word(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                match &words[..] {
                    [one] => one.clone(),
                    words => format!("one of {}", words.join(", ")),
                }
            }
            Self::List(of) => match **of {
                Self::Whole { .. } => "a list of whole numbers, such as [8, 5, 5]".to_owned(),
                Self::Number => "a list of numbers, such as [0.5, 1.0]".to_owned(),
                _ => "a list of texts in quotes, such as [\"a\", \"b\"]".to_owned(),
            },
            Self::Table => "keys below it".to_owned(),
            Self::Tables => "a list of tables, such as [{ ... }, { ... }]".to_owned(),
        }
    }
}

fn root() -> &'static Object {
    ROOT.as_object().expect("the schema of a struct is an object")
}

/// What a schema leads to: its reference, or what is there where it is not null.
fn resolved(schema: &'static Object) -> &'static Object {
    if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
        let name = reference.rsplit('/').next().expect("a split has a last part");
        return resolved(ROOT["$defs"][name].as_object().expect("what is referred to is there"));
    }
    let any = schema.get("anyOf").and_then(Json::as_array);
    let some = any.into_iter().flatten().find(|one| one.get("type") != Some(&Json::from("null")));
    match some.and_then(Json::as_object) {
        Some(inner) => resolved(inner),
        None => schema,
    }
}

/// The type by its name; of one that may be null, the other.
fn type_of(schema: &'static Object) -> Option<&'static str> {
    match schema.get("type")? {
        Json::Array(types) => types.iter().filter_map(Json::as_str).find(|name| *name != "null"),
        one => one.as_str(),
    }
}

/// What the parts of a list of tables are.
fn item(schema: &'static Object) -> Option<&'static Object> {
    let item = resolved(schema).get("items")?.as_object()?;
    is_table(item).then_some(item)
}

fn is_table(schema: &'static Object) -> bool {
    resolved(schema).contains_key("properties") || kinds_of(schema).is_some()
}

/// The kinds of a table, where it has any.
fn kinds_of(schema: &'static Object) -> Option<&'static Vec<Json>> {
    let kinds = resolved(schema).get("oneOf")?.as_array()?;
    kinds.iter().all(|kind| tag(kind).is_some()).then_some(kinds)
}

/// The value of `kind` that one of a table's kinds has.
fn tag(kind: &'static Json) -> Option<&'static str> {
    kind.get("properties")?.get("kind")?.get("const")?.as_str()
}

/// The kind of the table at `path`: as chosen, or else its default.
fn kind_of(path: &str, schema: &'static Object, chosen: &Kinds) -> Option<String> {
    kinds_of(schema)?;
    let default = || schema.get("default")?.get("kind")?.as_str().map(str::to_owned);
    chosen.get(path).cloned().or_else(default)
}

/// Keys of the table at `path`.
fn fields(path: &str, schema: &'static Object, chosen: &Kinds) -> Vec<(&'static str, Node)> {
    let mut found = Vec::new();
    let mut table = resolved(schema);
    if let Some(kinds) = kinds_of(schema) {
        found.push(("kind", Node::Kind(kinds)));
        let kind = kind_of(path, schema, chosen);
        let Some(inner) = kinds.iter().find(|one| tag(one) == kind.as_deref()) else {
            return found;
        };
        table = resolved(inner.as_object().expect("a kind is a schema"));
    }
    let properties = table.get("properties").and_then(Json::as_object);
    for (name, property) in properties.into_iter().flatten() {
        if let Some(property) = property.as_object().filter(|one| !one.contains_key("const")) {
            found.push((name.as_str(), Node::Schema(property)));
        }
    }
    found
}

fn field(name: &str, path: &str, schema: &'static Object, chosen: &Kinds) -> Option<Node> {
    let fields = fields(path, schema, chosen).into_iter();
    fields.filter(|(found, _)| *found == name).map(|(_, node)| node).next()
}

fn collect(
    path: &str,
    schema: &'static Object,
    like: &str,
    chosen: &Kinds,
    found: &mut Vec<String>,
) {
    if let Some(item) = item(schema) {
        found.push(path.to_owned());
        // Parts may have lists of parts: only what the key leads to is gone through.
        if let Some(rest) = like.strip_prefix(path).and_then(|rest| rest.strip_prefix('.')) {
            let index = rest.split('.').next().and_then(number);
            collect(&joined(path, &index.unwrap_or(0).to_string()), item, like, chosen, found);
        }
    } else if is_table(schema) {
        for (name, node) in fields(path, schema, chosen) {
            let key = joined(path, name);
            match node {
                Node::Schema(inner) => collect(&key, inner, like, chosen, found),
                Node::Kind(_) => found.push(key),
            }
        }
    } else {
        found.push(path.to_owned());
    }
}

fn wanted(schema: &'static Object) -> Wanted {
    if is_table(schema) {
        return Wanted::Table;
    }
    if item(schema).is_some() {
        return Wanted::Tables;
    }
    let schema = resolved(schema);
    let words = words_of(schema);
    if !words.is_empty() {
        return Wanted::Word(words);
    }
    match type_of(schema) {
        Some("integer") => {
            let format = schema.get("format").and_then(Json::as_str).unwrap_or("int64");
            let is_unsigned = format.starts_with("uint");
            // TOML has no whole numbers beyond 64 bits with a sign.
            let most = match (is_unsigned, &format[format.len() - 2..]) {
                (true, "32") => i64::from(u32::MAX),
                (false, "32") => i64::from(i32::MAX),
                _ => schema.get("maximum").and_then(Json::as_i64).unwrap_or(i64::MAX),
            };
            let least = if is_unsigned { 0 } else { -most - 1 };
            Wanted::Whole { least, most }
        }
        Some("number") => Wanted::Number,
        Some("boolean") => Wanted::Truth,
        Some("array") => {
            let of = schema.get("items").and_then(Json::as_object).map_or(Wanted::Text, wanted);
            Wanted::List(Box::new(of))
        }
        _ => Wanted::Text,
    }
}

/// The words that a key of a few words may hold; none for other keys.
fn words_of(schema: &'static Object) -> Vec<&'static str> {
    let mut words = Vec::new();
    words.extend(schema.get("const").and_then(Json::as_str));
    let named = schema.get("enum").and_then(Json::as_array).into_iter().flatten();
    words.extend(named.filter_map(Json::as_str));
    for one in schema.get("oneOf").and_then(Json::as_array).into_iter().flatten() {
        words.extend(one.as_object().map(words_of).unwrap_or_default());
    }
    words
}
