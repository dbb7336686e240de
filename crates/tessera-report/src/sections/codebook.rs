//! The codebook: how often codes are taken, where they lie, and what an atlas knows of them.

use maud::{Markup, html};

use super::{atlas, of_each};
use crate::chart::{Line, LineChart, Mark, Scatter, scrolled};
use crate::codebook::{Usage, embed, project};
use crate::numbers::{long, percent, short};
use crate::page::Page;
use crate::read::{Bucket, Counted, Level, Run};

/// Codes on a map at most: more would be one blot.
const MOST_ON_MAP: usize = 2048;

/// What takes time and is the same however much of it is shown.
pub(crate) struct Prepared {
    levels: Vec<Vec<PreparedLevel>>,
}

struct PreparedLevel {
    num_codes: usize,
    dim: usize,
    counted: Counted,
    usage: Option<Usage>,
    /// Codes that are on the maps, with their places on each, and the shares of the variance of the first.
    shown: Vec<usize>,
    principal: Vec<[f64; 2]>,
    variance: [f64; 2],
    neighbors: Option<Vec<[f64; 2]>>,
}

impl Prepared {
    /// The maps of all levels of all runs.
    pub(crate) fn of(runs: &[Run]) -> Self {
        let levels = runs.iter().map(|run| levels(run).iter().map(PreparedLevel::of).collect());
        Self { levels: levels.collect() }
    }
}

/// The levels of a run: of its atlas, or else of its model folder.
fn levels(run: &Run) -> Vec<Level> {
    match (&run.atlas, &run.model) {
        (Some(atlas), _) => {
            let levels = atlas.about.levels.iter().zip(&atlas.codes_kd);
            let level = levels.map(|(about, codes_kd)| Level {
                num_codes: about.num_codes,
                dim: about.dim,
                codes_kd: codes_kd.clone(),
                counts_k: about.counts.iter().map(|count| *count as f64).collect(),
                counted: Counted::Atlas,
            });
            level.collect()
        }
        (None, Some(model)) => model.levels.clone(),
        (None, None) => Vec::new(),
    }
}

impl PreparedLevel {
    fn of(level: &Level) -> Self {
        let usage = Usage::of(&level.counts_k, level.counted == Counted::Averages);
        let mut shown: Vec<usize> = match &usage {
            Some(usage) => usage.sorted.iter().map(|(code, _)| *code).collect(),
            None => (0..level.num_codes).collect(),
        };
        shown.truncate(MOST_ON_MAP);
        // Codes that no training has moved may be anything.
        let is_place = level.dim > 0 && level.codes_kd.iter().all(|value| value.is_finite());
        if !is_place {
            shown.clear();
        }
        let vectors: Vec<f32> = shown
            .iter()
            .flat_map(|code| &level.codes_kd[code * level.dim..(code + 1) * level.dim])
            .copied()
            .collect();
        let (principal, variance) = project(&vectors, level.dim);
        let neighbors = if level.dim > 2 { embed(&vectors, level.dim) } else { None };
        Self {
            num_codes: level.num_codes,
            dim: level.dim,
            counted: level.counted,
            usage,
            shown,
            principal,
            variance,
            neighbors,
        }
    }
}

/// The section; none where no run has a codebook.
pub(super) fn section(page: &Page, runs: &[Run], prepared: &Prepared) -> Option<Markup> {
    of_each(runs, |at, run| {
        let levels = &prepared.levels[at];
        (!levels.is_empty()).then(|| of_run(page, run, levels))
    })
}

fn of_run(page: &Page, run: &Run, levels: &[PreparedLevel]) -> Markup {
    html! {
        (scrolled("Levels of the quantizer", table(levels)))
        div class="charts" {
            (usage(page, levels))
            @for (number, level) in levels.iter().enumerate() {
                (maps(page, level, number, levels.len()))
            }
        }
        @match &run.atlas {
            Some(atlas) => (atlas::of_run(page, atlas, &levels.iter().map(|level| level.usage.as_ref()).collect::<Vec<_>>())),
            None => p class="quiet" {
                "What each code looks or sounds like, which parts of real samples take it, and index maps come from an atlas: "
                code { "tessera atlas" } " makes one with the model, in the run's folder " code { "atlas" } "."
            },
        }
    }
}

fn table(levels: &[PreparedLevel]) -> Markup {
    let counted = levels.iter().find(|level| level.usage.is_some()).map(|level| level.counted);
    html! {
        table {
            @if let Some(counted) = counted { caption { "Use of codes: " (counted.words()) "." } }
            thead { tr {
                th scope="col" { "Level" } th scope="col" { "Codes" } th scope="col" { "Channels" } th scope="col" { "Dead" }
                th scope="col" { "Perplexity" } th scope="col" { "Bits per token" } th scope="col" { "Codes with half of all tokens" }
                th scope="col" { "Most taken" }
            } }
            tbody { @for (number, level) in levels.iter().enumerate() { tr {
                th scope="row" { (number + 1) }
                td { (short(level.num_codes as f64)) }
                td { @if level.dim > 0 { (level.dim) } @else { "none" } }
                @match &level.usage {
                    Some(usage) => {
                        td { (short(usage.num_dead as f64)) }
                        td { (short(usage.perplexity)) " (" (percent(usage.perplexity / level.num_codes as f64)) ")" }
                        td { (short(usage.perplexity.log2())) }
                        td { (short(usage.num_half as f64)) }
                        td { "code " (usage.sorted[0].0) ", " (percent(usage.sorted[0].1)) }
                    }
                    None => td colspan="5" { "not counted" },
                }
            } } }
        }
    }
}

/// Shares of the codes, the most taken first.
fn usage(page: &Page, levels: &[PreparedLevel]) -> Markup {
    let is_one = levels.len() == 1;
    let mut lines = Vec::new();
    for (number, level) in levels.iter().enumerate() {
        let Some(usage) = &level.usage else { continue };
        let taken = usage.sorted.iter().filter(|(_, share)| *share > 0.0).enumerate();
        let buckets: Vec<Bucket> =
            taken.map(|(at, (_, share))| bucket(at as u64 + 1, *share)).collect();
        // A million codes are not a million points.
        let buckets = crate::read::join(&buckets, buckets.len().div_ceil(512).max(1));
        let name =
            if is_one { "share of tokens".to_owned() } else { format!("level {}", number + 1) };
        let end = if is_one { String::new() } else { (number + 1).to_string() };
        lines.push(Line { end, name, style: number, buckets });
    }
    if let ([level], true) = (levels, !lines.is_empty()) {
        let even = 1.0 / level.num_codes as f64;
        let buckets = vec![bucket(1, even), bucket(level.num_codes as u64, even)];
        lines.push(Line {
            end: "even".to_owned(),
            name: "all codes alike".to_owned(),
            style: 6,
            buckets,
        });
    }
    let dead: usize = levels.iter().filter_map(|level| Some(level.usage.as_ref()?.num_dead)).sum();
    let title = format!("Share of tokens that take each code; {} dead", short(dead as f64));
    LineChart { title: &title, x_name: "codes, the most taken first", lines, log_from: Some(20.0) }
        .draw(page)
}

fn bucket(at: u64, value: f64) -> Bucket {
    Bucket { steps: (at, at), num: 1, sum: value, low: (value, at), high: (value, at) }
}

/// The maps of a level.
fn maps(page: &Page, level: &PreparedLevel, number: usize, num_levels: usize) -> Markup {
    if level.shown.len() < 2 {
        return html! {};
    }
    let of = if num_levels > 1 { format!("Level {}: ", number + 1) } else { String::new() };
    let left_out = level.num_codes - level.shown.len();
    let some = if left_out > 0 {
        format!("; the {left_out} least taken are left out")
    } else {
        String::new()
    };
    let explained = percent(level.variance[0] + level.variance[1]);
    let principal = map(
        page,
        level,
        &level.principal,
        &format!("{of}Principal components"),
        &format!("{explained} of the variance; larger: taken more often, rings: dead{some}"),
    );
    html! {
        (principal)
        @if let Some(neighbors) = &level.neighbors {
            (map(page, level, neighbors, &format!("{of}t-SNE"), "near codes stay near, distances between groups say little"))
        }
    }
}

fn map(page: &Page, level: &PreparedLevel, points: &[[f64; 2]], title: &str, says: &str) -> Markup {
    let mut shares = vec![None; level.num_codes];
    for (code, share) in level.usage.iter().flat_map(|usage| &usage.sorted) {
        shares[*code] = Some(*share);
    }
    let even = 1.0 / level.num_codes as f64;
    let base = if level.num_codes > 600 { 1.7 } else { 2.6 };
    let is_dead = |share: f64| match level.counted {
        Counted::Averages => share <= 1e-6,
        _ => share == 0.0,
    };
    let marks = level.shown.iter().zip(points).map(|(code, [x, y])| {
        let share = shares[*code];
        Mark {
            x: *x,
            y: *y,
            radius: share.map_or(base, |share| base * (share / even).sqrt().clamp(0.6, 3.2)),
            is_hollow: share.is_some_and(is_dead),
            name: String::new(),
        }
    });
    let marks: Vec<Mark> = marks.collect();
    let description = format!("A map of {} codes, a point each: {says}.", marks.len());
    let rows = page.most_rows().min(marks.len());
    let table = html! {
        table {
            caption { "The first " (rows) " of " (marks.len()) " codes, the most taken first." }
            thead { tr { th scope="col" { "code" } th scope="col" { "across" } th scope="col" { "up" } th scope="col" { "share" } } }
            tbody { @for (code, [x, y]) in level.shown.iter().zip(points).take(rows) { tr {
                th scope="row" { (code) } td { (long(*x)) } td { (long(*y)) } td { (shares[*code].map_or("not counted".to_owned(), percent)) }
            } } }
        }
    };
    Scatter { title, says, description: &description, marks, axes: None, names: Vec::new(), table }
        .draw(page)
}
