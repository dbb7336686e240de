//! `tessera data inspect` of a token set.

use std::io::{self, Write};

use indicatif::HumanBytes;
use tessera_data::tokens::{TokenLevel, TokenSetSummary, TokenSplitSummary};

/// Most levels of a split that are told one by one.
const MAX_LEVELS_LISTED: usize = 16;

pub(super) fn write_summary(out: &mut dyn Write, summary: &TokenSetSummary) -> io::Result<()> {
    let TokenSetSummary { path, version, num_tokens, levels, variants, .. } = summary;
    writeln!(out, "{}, tokens, format version {version}", path.display())?;
    let what = if levels.len() == 1 { "level" } else { "levels" };
    writeln!(out, "  tokens       {num_tokens} a sample, on {} {what}", levels.len())?;
    for (number, TokenLevel { num_codes, axes }) in levels.iter().enumerate() {
        let axes: Vec<String> = axes.iter().map(u32::to_string).collect();
        writeln!(out, "  level {number:<6} {} of {num_codes} codes", axes.join(" x "))?;
    }
    writeln!(out, "  variants     {}: {}", variants.len(), variants.join(", "))?;
    writeln!(out, "  encoded      {}", summary.shape)?;
    for (name, split) in &summary.splits {
        let labels = match (split.num_labels, summary.num_classes) {
            (0, _) | (_, None) => "without labels".to_owned(),
            (num, Some(classes)) if num == split.num_samples => {
                format!("with labels of {classes} classes")
            }
            (num, Some(classes)) => format!("{num} with labels of {classes} classes"),
        };
        let skipped = match split.num_skipped {
            0 => String::new(),
            num => format!(", {num} could not be read"),
        };
        writeln!(
            out,
            "  {name:<12} {} samples in {} shards, {}, {labels}{skipped}",
            split.num_samples,
            split.num_shards,
            HumanBytes(split.num_bytes)
        )?;
        write_use(out, split, levels)?;
    }
    if let Some(baselines) = summary.baselines {
        let figure = |name: &str, nats: Option<f64>| {
            nats.map(|nats| format!("{name} {nats:.4}")).into_iter().collect::<Vec<_>>()
        };
        let figures = [
            figure("uniform", Some(baselines.uniform)),
            figure("unigram", Some(baselines.unigram)),
            figure("by position", baselines.position),
            figure("by position and class", baselines.position_and_class),
        ];
        writeln!(out, "  baselines    {} (nats a token of test)", figures.concat().join(", "))?;
    }
    if !summary.classes.is_empty() {
        let (first, more) = summary.classes.split_at(summary.classes.len().min(20));
        let more = if more.is_empty() { "" } else { ", ..." };
        writeln!(out, "  classes      {}: {}{more}", summary.classes.len(), first.join(", "))?;
    }
    writeln!(out, "  source       {}: {}", summary.source.format, summary.source.files.join(", "))?;
    for note in &summary.source.notes {
        writeln!(out, "  {:<12} {note}", "")?;
    }
    writeln!(out, "  tokeniser    {}", summary.tokenizer)?;
    writeln!(out, "  fingerprint  {}", summary.fingerprint)
}

/// How the codes of each level are used.
fn write_use(
    out: &mut dyn Write,
    split: &TokenSplitSummary,
    levels: &[TokenLevel],
) -> io::Result<()> {
    let Some(used) = &split.levels else {
        return writeln!(out, "  {:<12} histograms cannot be read: run tessera data verify", "");
    };
    for (number, (level, found)) in levels.iter().zip(used).take(MAX_LEVELS_LISTED).enumerate() {
        let (num_used, num_codes) = (found.num_used, level.num_codes);
        let perplexity = found.perplexity;
        writeln!(
            out,
            "  {:<12} level {number}: {num_used} of {num_codes} codes used, perplexity {perplexity:.1}",
            ""
        )?;
    }
    Ok(())
}
