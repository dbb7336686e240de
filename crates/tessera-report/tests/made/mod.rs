//! Run folders from arithmetic, as `docs/formats.md` describes them.

use std::fs;
use std::path::{Path, PathBuf};

/// A folder that goes away with its test.
pub(crate) struct Made {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

const CONFIG: &str = "\
# Fully resolved; behind each value where it comes from.
seed = 0 # configs/demo.toml:3
task = \"autoencoder\" # default

[data]
kind = \"synthetic\" # default

[model.quantizer]
kind = \"vector\" # configs/demo.toml:7
num_codes = 4 # configs/demo.toml:8

[optimizer]
learning_rate = 0.002 # TESSERA__OPTIMIZER__LEARNING_RATE

[train]
global_batch = 64 # --set
steps = 120 # default
";

impl Made {
    /// An empty folder of this name.
    pub(crate) fn empty(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        Self { _folder: folder, path }
    }

    /// A run of 120 steps: losses are 1 / step but 2.5 at step 30.
    pub(crate) fn run(name: &str) -> Self {
        let run = Self::empty(name);
        file(&run, "config.toml", CONFIG);
        file(&run, "status.json", &status("done", "done after 120 steps"));
        let row = |at: u32| {
            let loss = if at == 3 { 2.5 } else { 0.1 / f64::from(at) };
            format!(
                "{{\"step\":{},\"epoch\":0,\"loss\":{loss},\"perplexity\":{at}.5,\"codes_used\":{at},\"level_perplexity\":[{at}.5,2.0],\
                 \"learning_rate\":0.001,\"grad_norm\":null,\"samples_per_second\":100.0,\"step_ms\":20.0,\"comm_ms\":1.0,\
                 \"data_wait_ms\":0.5,\"world_size\":2}}\n",
                10 * at
            )
        };
        file(&run, "metrics.jsonl", &(1..=12).map(row).collect::<String>());
        let row = |at: u32| {
            format!(
                "{{\"step\":{},\"split\":\"test\",\"samples\":8,\"mse\":0.{at},\"psnr\":2{at}.0}}\n",
                60 * at
            )
        };
        file(&run, "eval.jsonl", &(1..=2).map(row).collect::<String>());
        for step in [60, 120] {
            fs::create_dir_all(run.path().join("reconstructions")).unwrap();
            let path = run.path().join(format!("reconstructions/step-{step}.png"));
            fs::write(path, sheet(1, 3, 98)).unwrap();
        }
        let started = |at: u32| {
            format!(
                "{{\"device\":\"cpu\",\"level\":\"INFO\",\"message\":\"worker started\",\"rank\":0,\"started_by\":\"tessera launch\",\
                 \"threads\":1,\"unix_seconds\":{at}.0,\"world_size\":2}}\n{{\"message\":\"step done\",\"step\":{at},\"unix_seconds\":{}.0}}\n",
                at + 5
            )
        };
        file(&run, "logs/rank-0.jsonl", &(started(10) + &started(60)));
        let worker = |rank: u32| {
            format!(
                "{{\"rank\":{rank},\"attempt\":\"a-0\",\"host\":\"node{rank}\",\"pid\":7,\"phase\":\"reduce\",\"step\":50,\"call\":{{\"op\":\
                 \"all_reduce\",\"sequence\":3,\"count\":9,\"kind\":\"f32\",\"waiting\":true,\"waited_ms\":1500}},\"silent_seconds\":0.5,\
                 \"still_seconds\":0.5,\"waiting_share\":0.25,\"connected\":true,\"exit_code\":null,\"message\":\"\"}}"
            )
        };
        let workers = format!("[{},{}]", worker(0), worker(1));
        file(&run, "workers.json", &workers);
        let failure = format!(
            "{{\"unix_seconds\":55.5,\"attempt\":\"a-0\",\"restarts\":0,\"world_size\":2,\"exit_code\":3,\"message\":\"worker lost: rank 1\",\"workers\":{workers}}}"
        );
        file(&run, "failures/55.500.json", &failure);
        run
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A file in a folder.
pub(crate) fn file(folder: &Made, name: &str, text: &str) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// `status.json`.
pub(crate) fn status(state: &str, message: &str) -> String {
    let code = match state {
        "running" => "null",
        "failed" => "1",
        _ => "0",
    };
    format!(
        "{{\"state\":{state:?},\"exit_code\":{code},\"step\":120,\"world_size\":2,\"message\":{message:?}}}"
    )
}

/// A sheet of inputs, outputs and differences: cells of `side` pixels between lines of gray.
pub(crate) fn sheet(columns: usize, rows: usize, side: usize) -> Vec<u8> {
    let (width, height) = (columns * (side + 2) + 2, rows * (side + 2) + 2);
    let mut pixels = vec![128u8; width * height];
    for y in 0..rows * side {
        for x in 0..columns * side {
            let place = (2 + y / side * (side + 2) + y % side) * width
                + 2
                + x / side * (side + 2)
                + x % side;
            pixels[place] = ((x * 7 + y * 13) ^ (x * y)) as u8;
        }
    }
    png(&pixels, width, height)
}

/// A gray PNG.
pub(crate) fn png(pixels: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(pixels).unwrap();
    writer.finish().unwrap();
    bytes
}
