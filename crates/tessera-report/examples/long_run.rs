//! How long the page of a long run takes: writes as many rows as a training of that length, and times the report.
//!
//! `cargo run --release -p tessera-report --example long_run -- 1000000`

use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Instant;

use tessera_report::{ReportOptions, write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let num: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let folder = std::env::temp_dir().join(format!("long-run-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("logs"))?;
    let mut rows = BufWriter::new(File::create(folder.join("metrics.jsonl"))?);
    let mut log = BufWriter::new(File::create(folder.join("logs/rank-0.jsonl"))?);
    for row in 1..=num {
        let loss = 0.1 / (row as f64).sqrt() * (1.0 + 0.1 * (row as f64 * 0.7).sin());
        writeln!(
            rows,
            "{{\"step\":{},\"epoch\":{},\"samples_seen\":{},\"loss\":{loss},\"recon_mse\":{},\"quantizer_loss\":{},\"perplexity\":{},\
             \"codes_used\":{},\"bits_per_token\":{},\"level_perplexity\":[{}],\"level_codes_used\":[512],\"codes_replaced\":0,\
             \"samples_skipped\":0,\"learning_rate\":{},\"grad_norm\":{},\"samples_per_second\":{},\"step_ms\":{},\"comm_ms\":{},\
             \"data_wait_ms\":{},\"world_size\":8}}",
            row * 10,
            row / 100,
            row * 2560,
            loss * 0.97,
            loss * 0.03,
            300.0 + loss,
            500,
            8.0 + loss,
            300.0 + loss,
            0.001 * (1.0 - loss),
            loss * 7.0,
            700.0 + 100.0 * loss,
            360.0 - loss,
            0.8 + loss,
            0.06 + loss,
        )?;
        writeln!(
            log,
            "{{\"figures\":\"loss {loss:.5}\",\"level\":\"INFO\",\"message\":\"step done\",\"rank\":0,\"step\":{},\"unix_seconds\":{}.5}}",
            row * 10,
            row
        )?;
    }
    rows.flush()?;
    log.flush()?;
    let bytes = std::fs::metadata(folder.join("metrics.jsonl"))?.len();
    let began = Instant::now();
    let out = folder.join("page.html");
    let options = ReportOptions {
        runs: vec![folder.clone()],
        out,
        force: true,
        title: None,
        most_bytes: 10_000_000,
    };
    let reported = write(&options)?;
    let (seconds, size) = (began.elapsed().as_secs_f64(), reported.bytes as f64 / 1e6);
    let mut told = std::io::stderr();
    writeln!(
        told,
        "{num} rows of {:.0} MB: a page of {size:.2} MB in {seconds:.1} s",
        bytes as f64 / 1e6
    )?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
