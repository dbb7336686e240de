//! Patterns in paths: several files or folders by one `data.path`.
//!
//! Braces stand for what they do in WebDataset and in a shell: `{000..123}`, `{a..e}`,
//! `{0..10..2}`, `{train,val}`, nested and several; `::` separates one path or URL from the next.
//! They are expanded here and nothing else is asked for it. `*`, `?`, `[abc]` and `**` stand for
//! what is there, as in a shell. A path that exists as it is written is never a pattern.

use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::store::split_list;

/// Most names that one pattern may stand for.
const MAX_NAMES: usize = 1 << 20;

/// `*` stands neither for `/` nor for a leading dot, as in a shell.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Files or folders that a path stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expanded {
    /// The folder that all of them are in: the part of the pattern that is the same for all.
    pub(crate) root: PathBuf,
    /// Sorted by pattern, each once; those that a pattern without `*`, `?` and `[` names need not
    /// exist.
    pub(crate) paths: Vec<PathBuf>,
}

/// What a path on this machine stands for; `root` is the path itself if it is a folder.
///
/// # Errors
///
/// What is wrong with the pattern; the words complete a sentence about it.
pub(crate) fn expand_local(path: &Path) -> Result<Expanded, String> {
    if path.exists() || path.to_str().is_none() {
        return Ok(Expanded { root: folder_of(path), paths: vec![path.to_owned()] });
    }
    let text = path.to_str().expect("it was just looked at");
    let (mut roots, mut paths) = (Vec::new(), Vec::new());
    for item in expand(text)? {
        let item = item.trim_start_matches("./").to_owned();
        let item_path = Path::new(&item);
        if is_glob(&item) && !item_path.exists() {
            let found = glob::glob_with(&item, OPTIONS);
            let found = found.map_err(|error| format!("is no pattern ({error})"))?;
            roots.push(PathBuf::from(literal_folder(&item)));
            for path in found {
                paths.push(path.map_err(|error| format!("cannot be searched ({error})"))?);
            }
        } else {
            roots.push(folder_of(item_path));
            paths.push(item_path.to_owned());
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    let root = roots.into_iter().reduce(|a, b| common(&a, &b)).expect("a pattern stands for one");
    Ok(Expanded { root, paths })
}

/// Names that a list of brace patterns stands for.
pub(crate) fn expand(text: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for item in split_list(text) {
        names.extend(expand_braces(item)?);
        if names.len() > MAX_NAMES {
            return Err(format!("stands for more than {MAX_NAMES} names"));
        }
    }
    Ok(names)
}

/// Whether a name of a list has something that stands for what is there.
pub(crate) fn is_glob(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// Whether a pattern stands for a name.
pub(crate) fn matches(pattern: &str, name: &str) -> Result<bool, String> {
    let pattern = Pattern::new(pattern).map_err(|error| format!("is no pattern ({error})"))?;
    Ok(pattern.matches_with(name, OPTIONS))
}

/// The folders before the first part of a pattern that stands for several names.
pub(crate) fn literal_folder(pattern: &str) -> &str {
    let end = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    match pattern[..end].rfind('/') {
        Some(0) => "/",
        Some(slash) => &pattern[..slash],
        None => ".",
    }
}

/// What a pattern with braces stands for, in the order that a shell gives.
fn expand_braces(pattern: &str) -> Result<Vec<String>, String> {
    let mut names = vec![String::new()];
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        let close = closing(&rest[open..]).ok_or("has a { without its }")? + open;
        let choices = choices(&rest[open + 1..close])?;
        if names.len().saturating_mul(choices.len()) > MAX_NAMES {
            return Err(format!("stands for more than {MAX_NAMES} names"));
        }
        let before = &rest[..open];
        let with = |name: &String, choice: &String| format!("{name}{before}{choice}");
        names = names
            .iter()
            .flat_map(|name| choices.iter().map(move |choice| with(name, choice)))
            .collect();
        rest = &rest[close + 1..];
    }
    if rest.contains('}') {
        return Err("has a } without its {".to_owned());
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok(names)
}

/// Where the brace ends with which `text` begins.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// What the inside of a pair of braces stands for: a range, a list, or itself with its braces.
fn choices(inside: &str) -> Result<Vec<String>, String> {
    if let Some(range) = range(inside)? {
        return Ok(range);
    }
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0u32);
    for (at, letter) in inside.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&inside[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if parts.is_empty() {
        let itself = expand_braces(inside)?.into_iter().map(|name| format!("{{{name}}}"));
        return Ok(itself.collect());
    }
    parts.push(&inside[start..]);
    let mut choices = Vec::new();
    for part in parts {
        choices.extend(expand_braces(part)?);
    }
    Ok(choices)
}

/// Names that `3..7`, `007..3`, `a..e` or `0..10..5` stands for.
fn range(inside: &str) -> Result<Option<Vec<String>>, String> {
    let parts: Vec<&str> = inside.split("..").collect();
    let (first, last, step) = match *parts {
        [first, last] => (first, last, "1"),
        [first, last, step] => (first, last, step),
        _ => return Ok(None),
    };
    let Ok(step) = step.parse::<i64>() else { return Ok(None) };
    let step = i128::from(step.unsigned_abs().max(1));
    let is_lower = |text: &str| text.chars().all(|letter| letter.is_ascii_lowercase());
    let letter = |text: &str| match text.as_bytes() {
        [letter] if letter.is_ascii_alphabetic() => Some(i64::from(*letter)),
        _ => None,
    };
    let (from, to, is_letters) = match (first.parse::<i64>(), last.parse::<i64>()) {
        (Ok(from), Ok(to)) => (from, to, false),
        _ => match (letter(first), letter(last)) {
            (Some(from), Some(to)) if is_lower(first) == is_lower(last) => (from, to, true),
            _ => return Ok(None),
        },
    };
    let distance = (i128::from(to) - i128::from(from)).abs() / step;
    if distance >= MAX_NAMES as i128 {
        return Err(format!("stands for more than {MAX_NAMES} names"));
    }
    let is_padded = |text: &str| {
        let digits = text.trim_start_matches('-');
        digits.len() > 1 && digits.starts_with('0')
    };
    let width = match is_padded(first) || is_padded(last) {
        true => first.len().max(last.len()),
        false => 0,
    };
    let sign = if to < from { -1 } else { 1 };
    let name = |index: i128| {
        let value = i128::from(from) + sign * step * index;
        match is_letters {
            true => char::from(value as u8).to_string(),
            false => format!("{value:0width$}"),
        }
    };
    Ok(Some((0..=distance).map(name).collect()))
}

/// The folder of a file, or the folder itself.
fn folder_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_owned();
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The folder that two folders are in.
fn common(a: &Path, b: &Path) -> PathBuf {
    let plain = |path: &Path| -> Vec<_> {
        let is_named = |part: &Component<'_>| !matches!(part, Component::CurDir);
        path.components().filter(is_named).map(|part| part.as_os_str().to_owned()).collect()
    };
    let (a, b) = (plain(a), plain(b));
    let shared: PathBuf = a.iter().zip(&b).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    if shared.as_os_str().is_empty() { PathBuf::from(".") } else { shared }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `braceexpand` of PyPI gives them, which WebDataset uses.
    #[test]
    fn braces_stand_for_what_they_do_in_webdataset() {
        for (pattern, expected) in [
            ("a.tar", "a.tar"),
            ("s-{008..010}.tar", "s-008.tar s-009.tar s-010.tar"),
            ("s-{9..10}.tar", "s-9.tar s-10.tar"),
            ("s-{07..10}", "s-07 s-08 s-09 s-10"),
            ("s-{8..010}", "s-008 s-009 s-010"),
            ("{4..1}", "4 3 2 1"),
            ("{2..-1}", "2 1 0 -1"),
            ("{-01..1}", "-01 000 001"),
            ("{a..g..2}", "a c e g"),
            ("{0..10..5}", "0 5 10"),
            (
                "{0..10..0}{x,y}",
                "0x 0y 1x 1y 2x 2y 3x 3y 4x 4y 5x 5y 6x 6y 7x 7y 8x 8y 9x 9y 10x 10y",
            ),
            ("{train,val}/{0..1}.tar", "train/0.tar train/1.tar val/0.tar val/1.tar"),
            ("p{2.{5..7},3.{2,3}}", "p2.5 p2.6 p2.7 p3.2 p3.3"),
            ("i{,.bak}", "i i.bak"),
            ("a-{x}.tar", "a-{x}.tar"),
            ("a-{x..yy}.tar", "a-{x..yy}.tar"),
            ("a{b{1,2}}", "a{b1} a{b2}"),
            ("a.tar::b-{1..2}.tar", "a.tar b-1.tar b-2.tar"),
            ("http://[::1]:80/a.tar::c.tar", "http://[::1]:80/a.tar c.tar"),
        ] {
            assert_eq!(expand(pattern).unwrap().join(" "), expected, "{pattern}");
        }
        for pattern in ["{1{2,3}", "a}", "{0..9999999999}", "{0..9999}{0..9999}"] {
            assert!(expand(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn globs_stand_for_what_is_there_and_names_that_exist_for_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a/x1.tar", "a/x2.tar", "b/x1.tar", "b/.x3.tar", "b/{1..2}.tar", "b/c/x9.tar"]
        {
            std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            std::fs::write(at(name), "").unwrap();
        }
        let found = |pattern: &str| {
            let Expanded { root, paths } = expand_local(&at(pattern)).unwrap();
            let below = |path: &Path| {
                path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned()
            };
            (below(&root), paths.iter().map(|path| below(path)).collect::<Vec<_>>().join(" "))
        };
        let pair = |root: &str, paths: &str| (root.to_owned(), paths.to_owned());
        assert_eq!(found("a"), pair("a", "a"));
        assert_eq!(found("a/x1.tar"), pair("a", "a/x1.tar"));
        assert_eq!(found("*/x*.tar"), pair("", "a/x1.tar a/x2.tar b/x1.tar"));
        assert_eq!(found("b/**/x?.tar"), pair("b", "b/c/x9.tar b/x1.tar"));
        assert_eq!(found("{a,b}"), pair("", "a b"));
        assert_eq!(found("{a,b}/x[1]*"), pair("", "a/x1.tar b/x1.tar"));
        assert_eq!(found("b/{1..2}.tar"), pair("b", "b/{1..2}.tar"));
        assert_eq!(found("a/x{1,2,5}.tar"), pair("a", "a/x1.tar a/x2.tar a/x5.tar"));
        assert_eq!(found("*/none"), pair("", ""));
        assert_eq!(common(Path::new("./x/a"), Path::new("x/b")), Path::new("x"));
        assert_eq!(common(Path::new("a"), Path::new("b")), Path::new("."));
        assert_eq!(literal_folder("/a*"), "/");
        assert_eq!(literal_folder("x*"), ".");
    }
}
