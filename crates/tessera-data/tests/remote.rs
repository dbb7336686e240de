//! Data that lie elsewhere: a web server that misbehaves in every way, and a server of the S3
//! protocol that is not ours. Both on loopback, started by the test.

#![cfg(feature = "remote")]
#![allow(clippy::unwrap_used)] // the lint knows `#[test]` functions, not their helpers

mod web_server;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;
use tessera_data::{
    DataConfig, DataErrorKind, DataKind, Draw, OnCorrupt, PackOptions, RemoteConfig, Source,
    SyntheticConfig, VerifyMode, pack, source,
};
use web_server::{Mood, Server};

/// A packed data set of 40 drawn pictures in four shards, in `root/set`.
fn packed(root: &Path) -> Arc<dyn Source> {
    let synthetic =
        SyntheticConfig { num_train: 40, num_test: 4, height: 16, ..SyntheticConfig::default() };
    let data = DataConfig { kind: DataKind::Synthetic, synthetic, ..DataConfig::default() };
    let options = PackOptions {
        data: data.clone(),
        out: root.join("set"),
        shard_samples: 10,
        zstd_level: None,
        on_corrupt: OnCorrupt::Fail,
    };
    pack(&options, &|_, _| {}).unwrap();
    source::open(&data, "train").unwrap()
}

fn remote(path: PathBuf, cache: &Path) -> DataConfig {
    let remote = RemoteConfig {
        cache: cache.to_owned(),
        page_mib: 1,
        retries: 2,
        timeout_seconds: 1.0,
        ..RemoteConfig::default()
    };
    DataConfig { path, remote, holdout: 0.0, ..DataConfig::default() }
}

fn sample(source: &dyn Source, id: u64) -> Vec<u8> {
    let mut sample = vec![0; source.shape().num_bytes()];
    source.read(id, Draw::NONE, &mut sample).unwrap();
    sample
}

fn equal(found: &dyn Source, expected: &dyn Source) {
    assert_eq!(found.num_samples(), expected.num_samples());
    for id in 0..expected.num_samples() {
        assert_eq!(sample(found, id), sample(expected, id), "{id}");
    }
}

#[test]
fn shards_of_a_web_server_are_fetched_once_and_kept() {
    let folder = TempDir::new().unwrap();
    let expected = packed(folder.path());
    let server = Server::start(folder.path());
    let config = remote(server.url("set"), &folder.path().join("cache"));
    equal(&*source::open(&config, "train").unwrap(), &*expected);
    // The manifest, and one page of each of four shards.
    assert_eq!(server.answers(), 5);
    let again = source::open(&config, "train").unwrap();
    equal(&*again, &*expected);
    assert_eq!(server.answers(), 6, "the manifest");
    let always = DataConfig { verify: VerifyMode::Always, ..config.clone() };
    source::open(&always, "train").unwrap();

    // A page that the local disk has changed is fetched again.
    for entry in fs::read_dir(folder.path().join("cache")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let before = server.answers();
    equal(&*again, &*expected);
    assert_eq!(server.answers() - before, 4);
}

#[test]
fn a_server_that_fails_for_a_while_is_asked_again() {
    let folder = TempDir::new().unwrap();
    let expected = packed(folder.path());
    let server = Server::start(folder.path());
    for (mood, times) in [
        (Mood::Broken, 2),
        (Mood::ClosesEarly, 2),
        (Mood::Stalls, 1),
        (Mood::NoRanges, 1),
        (Mood::NoRanges, 100),
        (Mood::Lies, 1),
    ] {
        let cache = folder.path().join(format!("cache-{mood:?}-{times}"));
        let config = remote(server.url("set"), &cache);
        let source = source::open(&config, "train").unwrap();
        // The headers came with the first pages: away with them.
        fs::remove_dir_all(&cache).unwrap();
        fs::create_dir(&cache).unwrap();
        server.be(mood, times);
        equal(&*source, &*expected);
        server.be(Mood::Kind, 0);
    }
}

#[test]
fn a_server_that_goes_on_failing_is_an_error_that_names_shard_and_sample() {
    let folder = TempDir::new().unwrap();
    packed(folder.path());
    let server = Server::start(folder.path());
    for (mood, expected) in [
        (Mood::Broken, "500"),
        (Mood::ClosesEarly, "cannot read sample 0 of http"),
        (Mood::Stalls, "cannot read sample 0 of http"),
        (Mood::Lies, "sample 0 of shard http"),
    ] {
        let cache = folder.path().join(format!("cache-{mood:?}"));
        let config = remote(server.url("set"), &cache);
        let source = source::open(&config, "train").unwrap();
        fs::remove_dir_all(&cache).unwrap();
        fs::create_dir(&cache).unwrap();
        server.be(mood, u32::MAX);
        let mut out = vec![0; source.shape().num_bytes()];
        // A lie is in the middle of the page, which is where the samples are.
        let error = (0..10).find_map(|id| source.read(id, Draw::NONE, &mut out).err()).unwrap();
        let message = error.to_string();
        let named = message.contains(expected) || message.contains("train-00000.safetensors");
        assert!(named && !message.contains('\n'), "{mood:?}: {message}");
        assert!(matches!(error.kind(), DataErrorKind::Io | DataErrorKind::Corrupt), "{message}");
        server.be(Mood::Kind, 0);
    }
    let nowhere = remote(server.url("nothing"), &folder.path().join("cache"));
    let message = source::open(&nowhere, "train").err().unwrap().to_string();
    assert!(message.starts_with("no data set at http://127.0.0.1"), "{message}");
    let wrong = remote(PathBuf::from("http:///x"), &folder.path().join("cache"));
    assert!(source::open(&wrong, "train").err().unwrap().to_string().contains("names no host"));
    let closed = remote(PathBuf::from("http://127.0.0.1:1/set"), &folder.path().join("cache"));
    let error = source::open(&closed, "train").err().unwrap();
    assert_eq!(error.kind(), DataErrorKind::BadInput, "{error}");
    let folder_kind = DataConfig { kind: DataKind::Folder, ..nowhere };
    let message = source::open(&folder_kind, "train").err().unwrap().to_string();
    assert!(message.starts_with("data.path is remote, which kinds packed"), "{message}");
}

#[test]
fn a_full_disk_and_a_small_limit_cost_no_samples() {
    let folder = TempDir::new().unwrap();
    let expected = packed(folder.path());
    let server = Server::start(folder.path());
    let mut config = remote(server.url("set"), &folder.path().join("cache"));
    // Less than one page: each is fetched whenever it is needed.
    config.remote.cache_gib = 1e-7;
    equal(&*source::open(&config, "train").unwrap(), &*expected);
    let held = fs::read_dir(folder.path().join("cache")).unwrap().count();
    assert_eq!(held, 0);
    // A folder that takes no files, as a full disk does.
    let config = remote(server.url("set"), Path::new("/proc/sys/kernel"));
    equal(&*source::open(&config, "train").unwrap(), &*expected);
}

/// Three archives of four gray pictures each, `set-0.tar` to `set-2.tar`.
fn archives(root: &Path) {
    fs::create_dir_all(root).unwrap();
    for archive in 0..3u8 {
        let file = fs::File::create(root.join(format!("set-{archive}.tar"))).unwrap();
        let mut builder = tar::Builder::new(file);
        for id in 0..4u8 {
            let picture = image::GrayImage::from_pixel(2, 2, image::Luma([10 * archive + id]));
            let mut png = std::io::Cursor::new(Vec::new());
            picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
            let mut header = tar::Header::new_gnu();
            header.set_size(png.get_ref().len() as u64);
            let name = format!("{archive}-{id}.png");
            builder.append_data(&mut header, name, png.get_ref().as_slice()).unwrap();
        }
        builder.finish().unwrap();
    }
}

/// Reads all of [`archives`].
fn are_archives(config: &DataConfig) {
    let mut config = DataConfig { kind: DataKind::Webdataset, ..config.clone() };
    config.image.channels = 1;
    let source = source::open(&config, "train").unwrap();
    assert_eq!(source.num_samples(), 12);
    for id in 0..12 {
        assert_eq!(sample(&*source, id), [(10 * (id / 4) + id % 4) as u8; 4]);
    }
}

/// By a pattern: a web server cannot be listed.
#[test]
fn archives_of_a_web_server_are_named_by_a_pattern() {
    let folder = TempDir::new().unwrap();
    archives(folder.path());
    let server = Server::start(folder.path());
    let config = remote(server.url("set-{0..2}.tar"), &folder.path().join("cache"));
    are_archives(&config);
    // Three archives, none of which has an index beside it.
    assert_eq!(server.answers(), 3);
    let listed = DataConfig { path: server.url(""), kind: DataKind::Webdataset, ..config };
    let message = source::open(&listed, "train").err().unwrap().to_string();
    assert!(message.contains("name the archives, as in"), "{message}");
}

#[test]
fn a_url_is_sent_as_it_is_and_its_signature_is_nowhere_else() {
    let folder = TempDir::new().unwrap();
    archives(&folder.path().join("a b/signed"));
    let server = Server::start(folder.path());
    let cache = folder.path().join("cache");
    let signed = |signature: &str, date: u32| {
        let query = format!("X-Amz-Date={date}&X-Amz-Signature={signature}");
        remote(server.url(&format!("a%20b/signed/set-{{0..2}}.tar?{query}")), &cache)
    };
    are_archives(&signed("geheim", 1));
    // The length of each, and its one page; nothing is asked that the signature is not for.
    assert_eq!(server.answers(), 6);
    // Signed anew they are the same: what was fetched and indexed counts.
    are_archives(&signed("geheim", 2));
    assert_eq!(server.answers(), 9);
    let open = |config: DataConfig| {
        source::open(&DataConfig { kind: DataKind::Webdataset, ..config }, "train")
    };
    let both = [1, 2].map(|date| open(signed("geheim", date)).unwrap().fingerprint());
    assert_eq!(both[0], both[1]);
    let message = open(signed("falsch", 1)).err().unwrap().to_string();
    assert!(message.contains("a%20b/signed/set-0.tar?...") && message.contains("403"), "{message}");
    assert!(!message.contains("falsch"), "{message}");

    // Several folders, and a list of what is here and what is elsewhere.
    archives(&folder.path().join("c"));
    let webdataset = |path: String| open(remote(path.into(), &cache)).unwrap().num_samples();
    let here = folder.path().join("c/set-0.tar").display().to_string();
    let there = server.url("").display().to_string();
    let (c, signed) = (format!("{there}c"), format!("{there}a%20b/signed"));
    let query = "?X-Amz-Signature=geheim";
    assert_eq!(webdataset(format!("{c}/set-{{0,2}}.tar::{signed}/set-1.tar{query}")), 12);
    assert_eq!(webdataset(format!("{here}::{c}/set-1.tar::{c}/set-1.tar")), 8);
}

/// A process that ends with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The server of the `moto` package, which speaks the protocol of S3.
#[test]
fn a_bucket_is_read_like_a_folder() {
    let made = || {
        let home = std::env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".cache/tessera/python/bin/python"))
    };
    let python = std::env::var_os("TESSERA_PYTHON").map(PathBuf::from).or_else(made).unwrap();
    let has_moto = Command::new(&python).args(["-c", "import moto.server, boto3"]).output();
    if !has_moto.is_ok_and(|output| output.status.success()) {
        println!("skipped: no Python with moto[s3,server]; launch/python.sh makes one");
        return;
    }
    let folder = TempDir::new().unwrap();
    packed(folder.path());
    archives(&folder.path().join("archives"));
    // The server says which port it took.
    let script = r#"
import os, sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
server.start()
host, port = server.get_host_and_port()
import boto3
s3 = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
s3.create_bucket(Bucket="bucket")
for folder in "set", "archives":
    for name in os.listdir(os.path.join(sys.argv[1], folder)):
        for place in folder, "a~b%20c":
            s3.upload_file(os.path.join(sys.argv[1], folder, name), "bucket", f"some/{place}/{name}")
print("port", port, flush=True)
sys.stdin.read()
"#;
    let keys = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];
    let mut child = Command::new(&python)
        .args(["-c", script])
        .arg(folder.path())
        .envs(keys)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let _server = Ending(child);
    let port = lines.find_map(|line| line.unwrap().strip_prefix("port ")?.parse::<u16>().ok());
    let port = port.expect("the server says its port");

    // The environment of a process of its own: this test, run again.
    let inner = std::env::var_os("TESSERA_TEST_BUCKET_OF").is_some();
    assert!(!inner, "a test starts itself once");
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_bucket_as_the_environment_says", "--nocapture"])
        .envs(keys)
        .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
        .env("AWS_REGION", "us-east-1")
        .env("TESSERA_TEST_BUCKET_OF", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    let words = String::from_utf8_lossy(&status.stderr);
    assert!(status.status.success() && said.contains("samples equal"), "{said}\n{words}");
}

/// What `a_bucket_is_read_like_a_folder` runs with keys and an address in its environment.
#[test]
fn a_bucket_as_the_environment_says() {
    let Some(folder) = std::env::var_os("TESSERA_TEST_BUCKET_OF").map(PathBuf::from) else {
        println!("skipped: it is a part of a_bucket_is_read_like_a_folder, which starts it");
        return;
    };
    let local = DataConfig { path: folder.join("set"), ..DataConfig::default() };
    let expected = source::open(&local, "train").unwrap();
    let config = remote(PathBuf::from("s3://bucket/some/set"), &folder.join("cache"));
    let found = source::open(&config, "train").unwrap();
    assert_eq!(found.fingerprint(), expected.fingerprint());
    equal(&*found, &*expected);
    let nothing = remote(PathBuf::from("s3://bucket/nothing"), &folder.join("cache"));
    let message = source::open(&nothing, "train").err().unwrap().to_string();
    assert!(message.starts_with("no data set at s3://bucket/nothing"), "{message}");
    // A folder, a pattern, and keys that are no letters of a URL.
    for path in ["archives", "archives/set-[0-9]*.tar", "a~b%20c", "a~b%20c/set-{0..2}.tar"] {
        are_archives(&remote(format!("s3://bucket/some/{path}").into(), &folder.join("cache")));
    }
    println!("samples equal");
}
