//! `tessera trace`: the traces of all ranks as one, with who came late to each sum.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use tessera_control::ExitCode;

use crate::failure::Failure;

/// Name of the sum over ranks in a trace.
const SUM: &str = "all-reduce, peers";

/// Which run, and where to.
#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// A run folder, of a run with `train --trace`.
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// File to write, for ui.perfetto.dev or chrome://tracing [default: RUN/trace/all.json]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// How late a rank was.
#[derive(Debug, Default, PartialEq)]
struct Late {
    /// Sums to which it came last.
    times: u64,
    /// How long the first to come had waited by then, over these, in milliseconds.
    ms: f64,
}

/// Writes the merged trace, and says who the others waited for.
pub(crate) fn run(args: &TraceArgs) -> Result<ExitCode, Failure> {
    let ranks = read(&args.run.join("trace"))?;
    let (mut events, late) = merge(&ranks);
    let num = ranks.len();
    let first =
        events.iter().filter_map(|event| event["ts"].as_f64()).fold(f64::INFINITY, f64::min);
    for event in &mut events {
        if let Some(ts) = event["ts"].as_f64() {
            event["ts"] = json!(ts - first);
        }
    }
    let path = args.out.clone().unwrap_or_else(|| args.run.join("trace/all.json"));
    let text = json!({"traceEvents": events, "displayTimeUnit": "ms"}).to_string();
    fs::write(&path, text)
        .map_err(|error| Failure::bad_input(format!("cannot write {}: {error}", path.display())))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{num} ranks merged into {}", path.display())?;
    let sums: u64 = late.values().map(|late| late.times).sum();
    for (rank, Late { times, ms }) in late {
        let mean = ms / times.max(1) as f64;
        writeln!(
            out,
            "rank {rank} came last to {times} of {sums} sums, {mean:.2} ms after the first"
        )?;
    }
    Ok(ExitCode::Done)
}

/// The events of each rank.
fn read(folder: &Path) -> Result<BTreeMap<u64, Vec<Value>>, Failure> {
    let mut ranks = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let rank = name.strip_prefix("rank-").and_then(|name| name.strip_suffix(".jsonl"));
        let Some(rank) = rank.and_then(|rank| rank.parse().ok()) else { continue };
        let text = fs::read_to_string(entry.path())
            .map_err(|error| Failure::new(ExitCode::Failed, format!("{name}: {error}")))?;
        // The last line of a rank that was killed may be half a line.
        ranks.insert(
            rank,
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
        );
    }
    if ranks.is_empty() {
        let folder = folder.display();
        let message = format!("{folder} holds no trace: make one with `tessera train --trace`");
        return Err(Failure::bad_input(message));
    }
    Ok(ranks)
}

/// All events, with a mark wherever a rank came last, and how late each rank was in all.
fn merge(ranks: &BTreeMap<u64, Vec<Value>>) -> (Vec<Value>, BTreeMap<u64, Late>) {
    let mut events = Vec::new();
    // When each rank came to the sum of each step.
    let mut arrivals: BTreeMap<u64, Vec<(f64, u64)>> = BTreeMap::new();
    for (&rank, spans) in ranks {
        let name = json!({"name": format!("rank {rank}")});
        events.push(json!({"name": "process_name", "ph": "M", "pid": rank, "args": name}));
        for span in spans {
            if span["name"] == SUM
                && let (Some(step), Some(ts)) = (span["args"]["step"].as_u64(), span["ts"].as_f64())
            {
                arrivals.entry(step).or_default().push((ts, rank));
            }
            events.push(span.clone());
        }
    }
    let mut late: BTreeMap<u64, Late> = ranks.keys().map(|&rank| (rank, Late::default())).collect();
    for (step, mut came) in arrivals {
        // A step that was done again after a restart, or not by all, says nothing.
        if came.len() != ranks.len() || came.len() < 2 {
            continue;
        }
        came.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (first, (ts, rank)) = (came[0].0, came[came.len() - 1]);
        let ms = (ts - first) / 1e3;
        if let Some(late) = late.get_mut(&rank) {
            late.times += 1;
            late.ms += ms;
        }
        let name = format!("last, {ms:.2} ms late");
        let args = json!({"step": step});
        events.push(json!({
            "name": name, "ph": "i", "s": "p", "ts": ts, "pid": rank, "tid": 0, "args": args
        }));
    }
    (events, late)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: to the sum of step 4 rank 1 comes 3 ms after rank 0, to that of step 5 rank 0 comes
    /// 1 ms after rank 1; step 6 has rank 0 alone.
    #[test]
    fn whoever_comes_last_is_marked() {
        let sum = |step: u64, ts: f64, pid: u64| {
            json!({"name": SUM, "ph": "X", "ts": ts, "dur": 1.0, "pid": pid, "tid": 0,
                   "args": {"step": step}})
        };
        let ranks = BTreeMap::from([
            (0, vec![sum(4, 10_000.0, 0), sum(5, 21_000.0, 0), sum(6, 30_000.0, 0)]),
            (1, vec![sum(4, 13_000.0, 1), sum(5, 20_000.0, 1)]),
        ]);
        let (events, late) = merge(&ranks);
        assert_eq!(late[&0], Late { times: 1, ms: 1.0 });
        assert_eq!(late[&1], Late { times: 1, ms: 3.0 });
        let marks: Vec<&Value> = events.iter().filter(|event| event["ph"] == "i").collect();
        assert_eq!((marks.len(), &marks[0]["name"]), (2, &json!("last, 3.00 ms late")));
        assert_eq!((&marks[0]["pid"], &marks[1]["pid"]), (&json!(1), &json!(0)));
        assert_eq!(events.len(), 2 + 5 + 2);
    }
}
