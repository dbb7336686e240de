//! URLs as they are asked for, as they are shown, and as they are remembered.
//!
//! A URL may hold secrets: a user and a password, or the signature that lets whoever has it read
//! (`?X-Amz-Signature=...`). It is sent as it was given. What people see has neither; what names
//! pages and indices is a hash of what stays when a URL is signed anew.

use std::path::{Path, PathBuf};

/// Beginnings of the parameters that object stores sign with, in lower case.
const SIGNED: [&str; 4] = ["x-amz-", "x-goog-", "x-oss-", "x-xet-"];

/// The parameters of a URL that holds a `Signature`: of S3 (version 2), Google, CloudFront and OSS.
/// Any other parameter may say which file is meant, so it counts.
const SIGNATURE: [&str; 7] = [
    "signature",
    "expires",
    "awsaccesskeyid",
    "googleaccessid",
    "ossaccesskeyid",
    "key-pair-id",
    "policy",
];

/// The parameters of a URL that holds a `sig`: a shared access signature of Azure.
const AZURE: [&str; 16] = [
    "sig", "sv", "sr", "se", "sp", "st", "ss", "srt", "spr", "sip", "skoid", "sktid", "skt", "ske",
    "sks", "skv",
];

/// Schemes of paths that lie elsewhere.
const SCHEMES: [&str; 4] = ["s3://", "gs://", "http://", "https://"];

/// Whether a path lies elsewhere.
pub(crate) fn is_remote(path: &Path) -> bool {
    path.to_str().is_some_and(|path| SCHEMES.iter().any(|scheme| path.starts_with(scheme)))
}

/// A path, URL or list for people: without user, password, and what is behind a question mark.
pub fn shown(path: &Path) -> PathBuf {
    let one = |item: &str| match is_remote(Path::new(item)) {
        true => {
            let (url, query) = split_query(item);
            let url = without_user(url);
            if query.is_empty() { url } else { format!("{url}?...") }
        }
        false => item.to_owned(),
    };
    match path.to_str() {
        Some(text) if text.contains("://") => {
            let items: Vec<String> = split_list(text).into_iter().map(one).collect();
            PathBuf::from(items.join("::"))
        }
        _ => path.to_owned(),
    }
}

/// Parts of a list of paths and URLs, between `::`; a URL's host in brackets may hold that too.
pub(crate) fn split_list(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0u32);
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            b':' if depth == 0 && bytes.get(at + 1) == Some(&b':') => {
                parts.push(&text[start..at]);
                (start, at) = (at + 2, at + 1);
            }
            _ => {}
        }
        at += 1;
    }
    parts.push(&text[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// A URL as it stays when it is signed anew.
pub(crate) fn lasting(url: &str) -> String {
    let (url, query) = split_query(url);
    let url = without_user(url);
    let name_of = |parameter: &str| {
        parameter.split_once('=').map_or(parameter, |(name, _)| name).to_ascii_lowercase()
    };
    let has = |name: &str| query.split('&').any(|parameter| name_of(parameter) == name);
    let (has_signature, is_azure) = (has("signature"), has("sig"));
    let stays = |parameter: &&str| {
        let name = name_of(parameter);
        !(SIGNED.iter().any(|start| name.starts_with(start))
            || has_signature && SIGNATURE.contains(&name.as_str())
            || is_azure && AZURE.contains(&name.as_str()))
    };
    let query: Vec<&str> = query.split('&').filter(stays).collect();
    match query.join("&").as_str() {
        "" => url,
        query => format!("{url}?{query}"),
    }
}

/// A web address and what is behind its question mark; buckets have none.
pub(crate) fn split_query(url: &str) -> (&str, &str) {
    match url.starts_with("http") {
        true => url.split_once('?').unwrap_or((url, "")),
        false => (url, ""),
    }
}

fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host_end = rest.find('/').unwrap_or(rest.len());
    match rest[..host_end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_neither_shown_nor_remembered() {
        for (url, expected_shown, expected_lasting) in [
            ("https://h/a%20b.tar", "https://h/a%20b.tar", "https://h/a%20b.tar"),
            (
                "https://b.s3.amazonaws.com/a.tar?X-Amz-Expires=60&X-Amz-Signature=0f",
                "https://b.s3.amazonaws.com/a.tar?...",
                "https://b.s3.amazonaws.com/a.tar",
            ),
            (
                "https://h/get?file=3&Expires=9&Signature=geheim&v=2",
                "https://h/get?...",
                "https://h/get?file=3&v=2",
            ),
            (
                "https://a.blob.core.windows.net/c/a.tar?sv=2024&se=2027&sig=geheim",
                "https://a.blob.core.windows.net/c/a.tar?...",
                "https://a.blob.core.windows.net/c/a.tar",
            ),
            // Without a signature "sv" is somebody's own.
            ("https://h/a.tar?sv=1", "https://h/a.tar?...", "https://h/a.tar?sv=1"),
            ("http://me:geheim@h:80/a@b.tar", "http://h:80/a@b.tar", "http://h:80/a@b.tar"),
            ("s3://b/what?.tar", "s3://b/what?.tar", "s3://b/what?.tar"),
        ] {
            assert_eq!(shown(Path::new(url)), Path::new(expected_shown));
            assert_eq!(lasting(url), expected_lasting);
        }
        assert_eq!(shown(Path::new("folder/a?b.tar")), Path::new("folder/a?b.tar"));
        let list = "a?.tar::http://[::1]:80/a.tar?x=geheim::https://u:v@h/b.tar";
        assert_eq!(
            shown(Path::new(list)),
            Path::new("a?.tar::http://[::1]:80/a.tar?...::https://h/b.tar")
        );
    }
}
