//! Whether `tpe` finds more than `random` with as many trials, on functions that take no time.
//!
//!     cargo run --release --locked -p tessera-sweep --example tpe -- [SEEDS]
//!
//! Prints Markdown: for each space and number of trials, how far the best trial so far is from the best
//! that there is, the median over seeds, and in how many seeds TPE's is the better one. As trainings
//! have, each function has noise. `launch/bench/tpe.py` writes the page in docs/results/ with it.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};
use tessera_sweep::{
    Domain, Parameter, Point, Points, Sampler, Search, Space, Standing, Strategy, Tried,
};

/// Trials after which the best so far is looked at.
const AFTER: [usize; 4] = [10, 20, 40, 80];

/// A space, and what a point of it costs: 0 is the best that there is.
struct Bench {
    name: &'static str,
    space: Space,
    cost: fn(&Point) -> f64,
    /// How many trials run side by side.
    parallel: usize,
}

fn main() -> std::io::Result<()> {
    let seeds: u64 = std::env::args().nth(1).and_then(|seeds| seeds.parse().ok()).unwrap_or(100);
    let mut out = std::io::stdout().lock();
    writeln!(out, "| space | trials | TPE's best | random's best | TPE better in | equal in |")?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for bench in benches() {
        let curves = |strategy| -> Vec<Vec<f64>> {
            (0..seeds).map(|seed| best_so_far(&bench, strategy, seed)).collect()
        };
        let (tpe, random) = (curves(Strategy::Tpe), curves(Strategy::Random));
        for after in AFTER {
            let at = |curves: &[Vec<f64>]| -> Vec<f64> {
                // A finite space may have fewer points.
                curves.iter().map(|curve| curve[after.min(curve.len()) - 1]).collect()
            };
            let (ours, theirs) = (at(&tpe), at(&random));
            let pairs = || ours.iter().zip(&theirs);
            let better = pairs().filter(|(ours, theirs)| ours < theirs).count();
            let equal = pairs().filter(|(ours, theirs)| ours == theirs).count();
            let (ours, theirs) = (median(&ours), median(&theirs));
            let name = bench.name;
            writeln!(
                out,
                "| {name} | {after} | {ours:.4} | {theirs:.4} | {better} of {seeds} | {equal} |"
            )?;
        }
    }
    Ok(())
}

fn benches() -> Vec<Bench> {
    let named =
        |key: &str, domain| Parameter { key: key.to_owned(), domain, when: BTreeMap::new() };
    let list = |values: &[Value]| Domain::Values(values.to_vec());
    let five = || list(&[json!("a"), json!("b"), json!("c"), json!("d"), json!("e")]);
    let range = |low, high, log, integer| Domain::Range { low, high, log, integer, points: 5 };
    let space = |parameters| Space { parameters, forbidden: vec![] };
    let where_kind = |kind: &str, key: &str, domain| {
        let when = BTreeMap::from([("kind".to_owned(), vec![json!(kind)])]);
        Parameter { key: key.to_owned(), domain, when }
    };
    let lists = || {
        space(vec![
            named("one", five()),
            named("two", five()),
            named("codes", list(&[16, 32, 64, 128, 256, 512].map(Value::from))),
            named("three", five()),
        ])
    };
    let logs = || {
        space(vec![
            named("rate", range(1e-5, 1e-1, true, false)),
            named("codes", range(4.0, 4096.0, true, true)),
            named("decay", range(0.9, 0.999, false, false)),
        ])
    };
    let kinds = || {
        space(vec![
            named("kind", list(&[json!("vector"), json!("fsq"), json!("lfq")])),
            named("rate", range(1e-5, 1e-1, true, false)),
            where_kind("vector", "codes", range(4.0, 4096.0, true, true)),
            where_kind("vector", "decay", range(0.9, 0.999, false, false)),
            where_kind(
                "fsq",
                "levels",
                list(&[json!([8, 5, 5]), json!([8, 8]), json!([4, 4, 4]), json!([16, 16])]),
            ),
            where_kind("lfq", "bits", range(2.0, 14.0, false, true)),
        ])
    };
    let bench = |name, space, cost, parallel| Bench { name, space, cost, parallel };
    vec![
        bench("lists: 750 points", lists(), of_lists, 1),
        bench("log ranges", logs(), of_logs, 1),
        bench("kinds with parameters of their own", kinds(), |point| of_kinds(point, 0.25, 0.3), 1),
        bench("kinds, the best one looks bad", kinds(), |point| of_kinds(point, 1.0, 0.15), 1),
        bench("log ranges, 8 at a time", logs(), of_logs, 8),
    ]
}

fn letter(point: &Point, key: &str) -> f64 {
    let text = point[key].as_str().expect("a letter");
    f64::from(text.as_bytes()[0] - b'a')
}

fn number(point: &Point, key: &str) -> f64 {
    point[key].as_f64().expect("a number")
}

/// How far a number is from another, in decades, squared.
fn decades(from: f64, to: f64) -> f64 {
    (from / to).log10().powi(2)
}

/// Each list has a best value in the middle; two of them act together.
fn of_lists(point: &Point) -> f64 {
    let cost = |key: &str, costs: [f64; 5]| costs[letter(point, key) as usize];
    let one = cost("one", [0.5, 0.3, 0.0, 0.4, 0.6]);
    let two = cost("two", [0.2, 0.0, 0.3, 0.25, 0.5]);
    let three = cost("three", [0.1, 0.15, 0.3, 0.0, 0.2]);
    let together = if point["one"] == "c" && point["two"] != "b" { 0.1 } else { 0.0 };
    one + two + three + together + 0.3 * decades(number(point, "codes"), 128.0)
}

/// A valley: fewer codes want a larger rate.
fn of_logs(point: &Point) -> f64 {
    let codes = number(point, "codes");
    let rate = 3e-3 * (codes / 512.0).powf(-0.3);
    let decay = (number(point, "decay") - 0.98) / 0.02;
    0.5 * decades(number(point, "rate"), rate) + 0.3 * decades(codes, 512.0) + 0.05 * decay * decay
}

/// The best kind costs `weight` times 2.2 in the mean of what is drawn evenly, the next one 0.7 and `more`, which
/// is also what that one costs at its best.
fn of_kinds(point: &Point, weight: f64, more: f64) -> f64 {
    let rate = number(point, "rate");
    match point["kind"].as_str().expect("a word") {
        "vector" => {
            let decay = (number(point, "decay") - 0.98) / 0.02;
            let codes = decades(number(point, "codes"), 512.0);
            weight * (decades(rate, 3e-3) + 0.4 * codes + 0.05 * decay * decay)
        }
        "fsq" => {
            let sizes = [json!([8, 5, 5]), json!([8, 8]), json!([4, 4, 4]), json!([16, 16])];
            let at = sizes.iter().position(|size| *size == point["levels"]).expect("one of four");
            more + 0.5 * decades(rate, 1e-3) + [0.0, 0.1, 0.15, 0.05][at]
        }
        _ => more + 0.1 + 0.5 * decades(rate, 1e-3) + 0.01 * (number(point, "bits") - 9.0).powi(2),
    }
}

/// The cost without noise of the best trial so far, by its cost with noise, after each trial.
fn best_so_far(bench: &Bench, strategy: Strategy, seed: u64) -> Vec<f64> {
    let trials = *AFTER.last().expect("some");
    let search = Search { strategy, sampler: Sampler::Random, trials, seed, ..Search::default() };
    let points = Points::new(&bench.space, &search).expect("the space is sound");
    let mut tried: Vec<Tried> = Vec::new();
    let mut best = (f64::INFINITY, f64::INFINITY);
    let mut curve = Vec::new();
    while curve.len() < trials {
        // So many are on their way before the first of them comes.
        while tried.len() < curve.len() + bench.parallel && tried.len() < trials {
            let Some(point) = points.next(&tried) else { break };
            tried.push(Tried { point, standing: Standing { costs: vec![], decided: 1 } });
        }
        let Some(arriving) = tried.get_mut(curve.len()) else { break };
        let exact = (bench.cost)(&arriving.point);
        let noisy = exact + 0.01 * noise(seed, curve.len());
        arriving.standing.costs.push(noisy);
        if noisy < best.0 {
            best = (noisy, exact);
        }
        curve.push(best.1);
    }
    curve
}

/// From -1 to 1, by splitmix64.
fn noise(seed: u64, trial: usize) -> f64 {
    let mut bits = (seed << 32 | trial as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}
