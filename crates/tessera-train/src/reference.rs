//! The reference of all keys, made from the types of the configuration and their comments.

use std::fmt::Write;

use schemars::schema_for;
use serde_json::{Map, Value};

use crate::config::TrainConfig;

const HEAD: &str = "\
# Keys

Made from the code by `tessera reference`. Where values come from, and which may change on resume:
[configuration](../configuration.md).
";

/// All keys with their defaults, kinds and meanings, as a page of Markdown.
pub fn keys() -> String {
    page().text
}

/// A key as it is set on a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// With its tables, such as `optimizer.learning_rate`.
    pub key: String,
    /// Its values, where they have names.
    pub values: Vec<String>,
    /// What it is.
    pub meaning: String,
}

/// All keys that can be set one by one, in the order of the page: not those of lists of tables.
pub fn told() -> Vec<Told> {
    page().told
}

fn page() -> Page {
    let schema = schema_for!(TrainConfig);
    let root = schema.as_object().expect("a struct");
    let definitions = root["$defs"].clone();
    let mut page = Page {
        definitions,
        text: HEAD.to_owned(),
        told: Vec::new(),
        within: Vec::new(),
        is_list: false,
    };
    page.table("", root, "");
    page
}

struct Page {
    definitions: Value,
    text: String,
    told: Vec<Told>,
    /// Whether the table is one of a list.
    is_list: bool,
    /// What the table is of, and those that it is in: a quantiser may be in a quantiser.
    within: Vec<String>,
}

/// What a schema says it is of, by name.
fn name_of(schema: &Map<String, Value>) -> Option<&str> {
    // A list of tables is told as one of them.
    let schema = schema.get("items").and_then(Value::as_object).unwrap_or(schema);
    schema.get("$ref")?.as_str()?.rsplit('/').next()
}

impl Page {
    /// What a reference leads to; the schema itself where it is none.
    fn resolved<'a>(&'a self, schema: &'a Map<String, Value>) -> &'a Map<String, Value> {
        match name_of(schema) {
            Some(name) => self.definitions[name].as_object().expect("a schema"),
            None => schema,
        }
    }

    /// The keys of one table, and then the tables in it.
    fn table(&mut self, path: &str, schema: &Map<String, Value>, meaning: &str) {
        let name = match path {
            "" => "Top".to_owned(),
            _ if schema.contains_key("items") => format!("`[[{path}]]`"),
            _ => format!("`[{path}]`"),
        };
        self.within.extend(name_of(schema).map(str::to_owned));
        self.is_list = schema.contains_key("items");
        write!(self.text, "\n## {name}\n").expect("memory");
        if !meaning.is_empty() {
            write!(self.text, "\n{}\n", one_line(meaning)).expect("memory");
        }
        let schema = self.resolved(schema).clone();
        let Some(kinds) = schema.get("oneOf").and_then(Value::as_array) else {
            let tables = self.keys(path, &schema);
            self.tables(tables);
            self.within.pop();
            return;
        };
        // A table that several kinds have is told once, behind all of them.
        let mut tables: Vec<(String, Map<String, Value>)> = Vec::new();
        for kind in kinds {
            let kind = kind.as_object().expect("a schema");
            self.tell_kind(path, kind);
            write!(self.text, "\n### {}\n", sentence(kind)).expect("memory");
            let inner = self.resolved(kind).clone();
            let more = self.keys(path, &inner).into_iter();
            let is_new = |(place, _): &(String, _)| tables.iter().all(|(known, _)| known != place);
            let more: Vec<_> = more.filter(is_new).collect();
            tables.extend(more);
        }
        self.tables(tables);
        self.within.pop();
    }

    /// Lists the key that says of which kind a table is, and one of its values.
    fn tell_kind(&mut self, path: &str, kind: &Map<String, Value>) {
        let kind = self.resolved(kind)["properties"]["kind"]["const"].as_str().map(str::to_owned);
        let key = format!("{path}.kind");
        let Some(kind) = kind.filter(|_| !self.is_list) else { return };
        match self.told.iter_mut().find(|told| told.key == key) {
            Some(told) => told.values.push(kind),
            None => self.told.push(Told {
                key,
                values: vec![kind],
                meaning: "Which kind it is.".to_owned(),
            }),
        }
    }

    /// Lists a key, once.
    fn tell(&mut self, key: String, values: Vec<String>, meaning: String) {
        if self.told.iter().all(|told| told.key != key) {
            self.told.push(Told { key, values, meaning });
        }
    }

    /// Tells tables, each with its place.
    fn tables(&mut self, tables: Vec<(String, Map<String, Value>)>) {
        for (place, property) in tables {
            let meaning = sentence(&property);
            self.table(&place, &property, &meaning);
        }
    }

    /// The keys of one table or kind; the tables in it, which are still to be told.
    fn keys(
        &mut self,
        path: &str,
        schema: &Map<String, Value>,
    ) -> Vec<(String, Map<String, Value>)> {
        let properties = schema["properties"].as_object().expect("a struct");
        let mut rows = String::new();
        let mut tables = Vec::new();
        for (key, property) in properties {
            let property = property.as_object().expect("a schema");
            // The kind that the heading tells.
            if property.contains_key("const") {
                continue;
            }
            let inner = self.resolved(property);
            let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let is_table = inner.contains_key("properties")
                || inner.get("oneOf").is_some_and(|kinds| kinds[0]["properties"].is_object());
            // What a table is in has been told.
            let is_told =
                name_of(property).is_some_and(|name| self.within.iter().any(|w| w == name));
            // Tables with kinds are told where there is one of them.
            let is_list_of_kinds =
                property.contains_key("items") && inner.contains_key("oneOf") && is_table;
            if is_table && !is_told && !is_list_of_kinds {
                tables.push((place, property.clone()));
                continue;
            }
            let default = match property.get("default") {
                Some(value) if !is_table => format!("`{value}`"),
                _ => String::new(),
            };
            let (kind, values) = match is_table {
                true if is_list_of_kinds => (format!("tables `[[{place}]]`"), String::new()),
                true => (format!("table `[{place}]`"), String::new()),
                false => kind_of(inner),
            };
            let meaning = sentence(property) + &values;
            writeln!(rows, "| `{key}` | {default} | {kind} | {meaning} |").expect("memory");
            if !is_table && !self.is_list {
                let values = values_of(self.resolved(property));
                self.tell(place, values, sentence(property));
            }
        }
        if !rows.is_empty() {
            let head = "\n| key | default | | |\n|---|---|---|---|\n";
            self.text.push_str(head);
            self.text.push_str(&rows);
        }
        tables
    }
}

/// The names of a key's values, where these have any.
fn values_of(schema: &Map<String, Value>) -> Vec<String> {
    let named = |value: &Value| value.as_str().map(str::to_owned);
    let names = |list: &Value| list.as_array().into_iter().flatten().filter_map(named).collect();
    if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
        let of_choice = |choice: &Value| match choice.get("const") {
            Some(value) => named(value).into_iter().collect(),
            None => names(&choice["enum"]),
        };
        return choices.iter().flat_map(of_choice).collect();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("boolean") => vec!["true".to_owned(), "false".to_owned()],
        _ => schema.get("enum").map(names).unwrap_or_default(),
    }
}

/// What a value is, and what each of its values means where they are named.
fn kind_of(schema: &Map<String, Value>) -> (String, String) {
    if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
        let choices = choices.iter().map(|choice| choice.as_object().expect("a schema"));
        let values: Vec<String> = choices
            .map(|choice| match choice.get("const") {
                Some(value) => format!("`{value}`: {}", sentence(choice)),
                // Those that need no word of their own.
                None => kind_of(choice).0,
            })
            .collect();
        return ("one of".to_owned(), format!("<br>{}", values.join("<br>")));
    }
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        return (format!("one of {}", names.join(", ")), String::new());
    }
    let kind = match schema.get("type").and_then(Value::as_str) {
        Some("integer") => "whole number",
        Some("number") => "number",
        Some("boolean") => "true or false",
        Some("string") => "text",
        Some("array") if is_of_texts(schema) => "list of texts",
        Some("array") => "list",
        _ => "",
    };
    (kind.to_owned(), String::new())
}

/// Whether a list is one of texts.
fn is_of_texts(schema: &Map<String, Value>) -> bool {
    schema.get("items").and_then(|items| items.get("type")).is_some_and(|of| of == "string")
}

/// The comment, fit for a cell.
fn sentence(schema: &Map<String, Value>) -> String {
    one_line(schema.get("description").and_then(Value::as_str).unwrap_or_default())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value of a configuration by its key, without those of parts that have none.
    fn leaves(prefix: &str, value: &Value, all: &mut Vec<String>) {
        match value {
            Value::Object(table) => {
                for (key, value) in table {
                    let place =
                        if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    leaves(&place, value, all);
                }
            }
            _ => all.push(prefix.to_owned()),
        }
    }

    #[test]
    fn keys_of_a_command_line_are_listed_once_with_their_values() {
        let told = told();
        let values = |key: &str| {
            let found: Vec<_> = told.iter().filter(|told| told.key == key).collect();
            assert_eq!(found.len(), 1, "{key}");
            found[0].values.join(" ")
        };
        assert_eq!(values("optimizer.learning_rate"), "");
        assert_eq!(values("loss.balanced"), "true false");
        assert_eq!(values("eval.weights"), "average trained");
        assert!(values("model.quantizer.kind").starts_with("vector "), "{told:?}");
        assert_eq!(values("metrics.every"), "");
        assert!(told.iter().all(|told| !told.key.starts_with("data.mixture.")), "a list");
        assert!(told.len() > 130, "{}", told.len());
    }

    #[test]
    fn every_key_stands_in_its_table_with_a_meaning() {
        let page = keys();
        let mut all = Vec::new();
        leaves("", &serde_json::to_value(TrainConfig::default()).unwrap(), &mut all);
        assert!(all.len() > 100, "{}", all.len());
        for place in all.iter().filter(|place| !place.ends_with(".kind")) {
            let (table, key) = place.rsplit_once('.').unwrap_or(("", place));
            let heading =
                if table.is_empty() { "## Top\n".into() } else { format!("## `[{table}]`\n") };
            let section = page.split(&heading).nth(1).unwrap_or_else(|| panic!("no {heading}"));
            let section = section.split("\n## ").next().unwrap();
            assert!(section.contains(&format!("| `{key}` | ")), "{place}");
        }
        for row in page.lines().filter(|line| line.starts_with("| `")) {
            let meaning = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            assert!(meaning.len() > 5, "without a meaning: {row}");
        }
    }
}
