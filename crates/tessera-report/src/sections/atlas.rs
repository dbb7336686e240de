//! An atlas on the page: codes decoded, the real patches that take them, index maps, and which codes are neighbors.

use maud::{Markup, html};

use super::cells::{film, image, picture, player, sound};
use crate::atlas::{About, AboutLevel, Atlas, Cells, Modality};
use crate::chart::{behind, scrolled};
use crate::codebook::Usage;
use crate::numbers::{percent, short};
use crate::page::Page;
use crate::picture::{Cell, Picture};
use crate::sound::Sound;

/// Codes in the table with their patches, and in the picture of all.
const IN_TABLE: usize = 24;
const IN_PICTURE: usize = 2048;
/// Patches of a code that are shown, and sounds.
const PATCHES: usize = 8;
const HEARD: usize = 12;
/// Inputs whose index maps are shown.
const MAPS: usize = 8;
/// Pairs of neighbors in the table.
const PAIRS: usize = 20;

/// All that the atlas of a run shows.
pub(super) fn of_run(page: &Page, atlas: &Atlas, usages: &[Option<&Usage>]) -> Markup {
    let About { split, num_samples, model, .. } = &atlas.about;
    html! {
        (page.heading(0, &html! { "Atlas" }))
        p class="quiet" {
            "Of " (short(*num_samples as f64)) " samples of " (split) ", with the model " code { (model.chars().take(12).collect::<String>()) } "."
        }
        @for (number, level) in atlas.about.levels.iter().enumerate() {
            @if atlas.about.levels.len() > 1 { (page.heading(1, &html! { "Level " (number + 1) })) }
            (codes(page, atlas, number, level, usages[number]))
            (neighbors(page, atlas, number, level))
        }
        (maps(page, atlas))
    }
}

/// A sheet of an atlas, of the size that `atlas.json` says. Another one is told and left out.
fn sheet(
    page: &Page,
    atlas: &Atlas,
    name: &str,
    number: usize,
    cells: Option<Cells>,
    rows: usize,
) -> Option<Picture> {
    let cells = cells?;
    let path = atlas.sheet(name, number, "png");
    let sheet = picture(page, &path)?;
    let wanted = (cells.columns * cells.width, rows * cells.height);
    if (sheet.width, sheet.height) != wanted {
        page.note(format!(
            "{} is left out: expected {} x {} pixels, found {} x {}.",
            path.display(),
            wanted.0,
            wanted.1,
            sheet.width,
            sheet.height
        ));
        return None;
    }
    Some(sheet)
}

fn cut(sheet: &Picture, cells: Cells, at: usize) -> Picture {
    sheet.cut(Cell {
        left: at % cells.columns * cells.width,
        top: at / cells.columns * cells.height,
        width: cells.width,
        height: cells.height,
    })
}

fn codes(
    page: &Page,
    atlas: &Atlas,
    number: usize,
    level: &AboutLevel,
    usage: Option<&Usage>,
) -> Markup {
    let order: Vec<(usize, f64)> = match usage {
        Some(usage) => usage.sorted.clone(),
        None => (0..level.num_codes).map(|code| (code, 0.0)).collect(),
    };
    let rows =
        |cells: Option<Cells>| cells.map_or(0, |cells| level.num_codes.div_ceil(cells.columns));
    let alone = sheet(page, atlas, "alone", number, level.alone, rows(level.alone));
    let context = sheet(page, atlas, "context", number, level.context, rows(level.context));
    let patches = sheet(page, atlas, "patches", number, level.patches, level.num_codes);
    let heard = match atlas.about.modality {
        Modality::Audio => sound(page, &atlas.sheet("alone", number, "wav")),
        _ => None,
    };
    let heard = heard.as_ref().and_then(|sound| Some((sound, snippet(sound, level.num_codes)?)));
    let shown = |sheet: &Option<Picture>, cells: Option<Cells>, code: usize, what: &str| {
        let (sheet, cells) = sheet.as_ref().zip(cells)?;
        Some(image(page, &cut(sheet, cells, code), &format!("Code {code} {what}")))
    };
    let table = html! {
        table class="atlas" {
            caption { "The codes that are taken most." }
            thead { tr {
                th scope="col" { "Code" } th scope="col" { "Share" }
                @if alone.is_some() { th scope="col" class="text" { "Alone" } }
                @if heard.is_some() { th scope="col" class="text" { "Heard" } }
                @if context.is_some() { th scope="col" class="text" { "In a mean context" } }
                @if patches.is_some() { th scope="col" class="text" { "Real patches that take it" } }
            } }
            tbody { @for (row, (code, share)) in order.iter().take(IN_TABLE).enumerate() { tr {
                th scope="row" { (code) } td { (percent(*share)) }
                @if let Some(shown) = shown(&alone, level.alone, *code, "alone") { td class="text" { (shown) } }
                @if let Some((sound, length)) = heard { td class="text" { @if row < HEARD {
                    (player(page, &sound.part(code * length, length), &format!("Code {code} alone")))
                } } }
                @if let Some(shown) = shown(&context, level.context, *code, "in a mean context") { td class="text" { (shown) } }
                @if let (Some(sheet), Some(cells)) = (&patches, level.patches) {
                    td class="text" {
                        (image(page, &patches_of(sheet, cells, *code), &format!("Patches that take code {code}")))
                    }
                }
            } } }
        }
    };
    html! {
        @if alone.is_some() || context.is_some() || patches.is_some() { (scrolled("Codes that are taken most", table)) }
        @for (sheet, cells, name, what) in [(&alone, level.alone, "alone", "decoded alone: all positions have this code"),
                                      (&context, level.context, "context", "decoded in a mean context")] {
            @if let (Some(sheet), Some(cells)) = (sheet, cells) {
                (behind(&format!("All codes {what}"), html! {
                    (image(page, &sorted(sheet, cells, &order), &format!("{} codes, the most taken first, {what}", order.len().min(IN_PICTURE))))
                }))
                @if atlas.about.modality == Modality::Video {
                    @let path = atlas.sheet(name, number, "apng");
                    @if path.is_file() { (film(page, &path, &format!("all codes {what}"))) }
                }
            }
        }
    }
}

/// Instants of each of `num` sounds of equal length.
fn snippet(sound: &Sound, num: usize) -> Option<usize> {
    let length = sound.len() / num;
    (length > 0 && sound.len().is_multiple_of(num)).then_some(length)
}

/// The first patches of a code side by side.
fn patches_of(sheet: &Picture, cells: Cells, code: usize) -> Picture {
    let num = cells.columns.min(PATCHES);
    let mut row = Picture::plain(num * (cells.width + 1) - 1, cells.height, sheet.channels, 128);
    for at in 0..num {
        row.put(&cut(sheet, cells, code * cells.columns + at), at * (cells.width + 1), 0);
    }
    row
}

/// The cells of a sheet with the most taken code first.
fn sorted(sheet: &Picture, cells: Cells, order: &[(usize, f64)]) -> Picture {
    let num = order.len().min(IN_PICTURE);
    let columns = ((num as f64).sqrt() * 1.6).ceil() as usize;
    let columns = columns.clamp(1, num);
    let (across, down) = (cells.width + 1, cells.height + 1);
    let mut all =
        Picture::plain(columns * across - 1, num.div_ceil(columns) * down - 1, sheet.channels, 128);
    for (at, (code, _)) in order.iter().take(num).enumerate() {
        all.put(&cut(sheet, cells, *code), at % columns * across, at / columns * down);
    }
    all
}

/// Which codes are left of, or above, which.
fn neighbors(page: &Page, atlas: &Atlas, number: usize, level: &AboutLevel) -> Markup {
    let (Some(codes), Some(counts)) = (&level.neighbours, &atlas.neighbours[number]) else {
        return html! {};
    };
    let num = codes.len();
    let total: f64 = counts.iter().map(|count| f64::from(*count)).sum();
    if total == 0.0 {
        return html! {};
    }
    let row =
        |at: usize| counts[at * num..][..num].iter().map(|count| f64::from(*count)).sum::<f64>();
    let column = |at: usize| (0..num).map(|row| f64::from(counts[row * num + at])).sum::<f64>();
    let (rows, columns): (Vec<f64>, Vec<f64>) =
        ((0..num).map(row).collect(), (0..num).map(column).collect());
    let mut pairs: Vec<(usize, usize, u32, f64)> = Vec::new();
    for first in 0..num {
        for second in 0..num {
            let count = counts[first * num + second];
            let by_chance = rows[first] * columns[second] / total;
            pairs.push((
                first,
                second,
                count,
                if by_chance > 0.0 { f64::from(count) / by_chance } else { 0.0 },
            ));
        }
    }
    pairs.sort_by(|a, b| b.2.cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
    let largest = f64::from(pairs[0].2).ln_1p();
    let colors =
        counts.iter().flat_map(|count| viridis(f64::from(*count).ln_1p() / largest)).collect();
    let map = Picture { width: num, height: num, channels: 3, pixels: colors };
    let table = html! {
        table {
            thead { tr { th scope="col" { "Code" } th scope="col" { "and then" } th scope="col" { "times" } th scope="col" { "as often as by chance" } } }
            tbody { @for (first, second, count, lift) in pairs.iter().take(PAIRS) { tr {
                th scope="row" { (codes[*first]) } td { (codes[*second]) } td { (short(f64::from(*count))) } td { (short(*lift)) " times" }
            } } }
        }
    };
    html! {
        div class="maps" { figure {
            figcaption { strong { "Neighbors" } " " span class="quiet" {
                "how often a code (row) is left of or above another (column), of the " (num) " most taken: dark never, yellow most, log scale"
            } }
            @if page.has_pictures() { (image(page, &map, "Counts of neighbors as a picture; the largest are in the table")) }
            (behind("Table: the most frequent neighbors", table))
        } }
    }
}

/// Inputs and their codes.
fn maps(page: &Page, atlas: &Atlas) -> Markup {
    if atlas.maps.is_empty() || !page.has_pictures() {
        return html! {};
    }
    html! {
        (page.heading(1, &html! { "Index maps" }))
        p class="quiet" { "Each square is one token; equal colors of one level are equal codes." }
        div class="maps" {
            @for (at, map) in atlas.maps.iter().enumerate().take(MAPS) {
                figure {
                    div class="row" {
                        @if let Some(input) = picture(page, &atlas.input(at)) { (image(page, &input, &format!("Input {}", map.id))) }
                        @for (number, (codes, level)) in map.codes.iter().zip(&atlas.about.levels).enumerate() {
                            (image(page, &index_map(codes, &level.axes), &format!("Codes of input {}, level {}", map.id, number + 1)))
                        }
                    }
                    figcaption class="quiet" { "Sample " (map.id) }
                    (behind(&format!("Table: codes of sample {}", map.id), html! {
                        @for (number, (codes, level)) in map.codes.iter().zip(&atlas.about.levels).enumerate() {
                            table {
                                caption { "Level " (number + 1) }
                                tbody { @for row in codes.chunks(*level.axes.last().expect("checked")).take(page.most_rows()) {
                                    tr { @for code in row { td { (code) } } }
                                } }
                            }
                        }
                    }))
                }
            }
        }
    }
}

/// Codes as colors: those of a film's frames side by side, those of a sound in rows of a square.
fn index_map(codes: &[usize], axes: &[usize]) -> Picture {
    let (rows, columns, frames) = match axes {
        [time] => {
            let columns = ((*time as f64).sqrt() * 2.0).ceil() as usize;
            (time.div_ceil(columns), columns, 1)
        }
        [rows, columns] => (*rows, *columns, 1),
        [frames @ .., rows, columns] => (*rows, *columns, frames.iter().product()),
        [] => (1, codes.len(), 1),
    };
    let mut map = Picture::plain(columns * frames, rows, 3, 128);
    for (at, code) in codes.iter().enumerate() {
        let (frame, rest) = (at / (rows * columns), at % (rows * columns));
        let pixel = Picture { width: 1, height: 1, channels: 3, pixels: color(*code).to_vec() };
        map.put(&pixel, frame * columns + rest % columns, rest / columns);
    }
    map
}

/// Neighboring codes are unrelated, so their hues are spread by the golden angle.
fn color(code: usize) -> [u8; 3] {
    let hue = code as f64 * 137.508 % 360.0;
    let light = 0.30 + 0.45 * (code as f64 * 0.754_877_7 % 1.0);
    let chroma = (1.0 - (2.0 * light - 1.0f64).abs()) * 0.65;
    let part = |shift: f64| {
        let at = (shift + hue / 30.0) % 12.0;
        let value = light - chroma / 2.0 * (at - 3.0).min(9.0 - at).clamp(-1.0, 1.0);
        (255.0 * value).round() as u8
    };
    [part(0.0), part(8.0), part(4.0)]
}

/// Matplotlib's viridis, between nine of its colors.
fn viridis(share: f64) -> [u8; 3] {
    const COLORS: [[f64; 3]; 9] = [
        [68.0, 1.0, 84.0],
        [71.0, 44.0, 122.0],
        [59.0, 81.0, 139.0],
        [44.0, 113.0, 142.0],
        [33.0, 144.0, 141.0],
        [39.0, 173.0, 129.0],
        [92.0, 200.0, 99.0],
        [170.0, 220.0, 50.0],
        [253.0, 231.0, 37.0],
    ];
    let place = share.clamp(0.0, 1.0) * 8.0;
    let at = (place as usize).min(7);
    let part = place - at as f64;
    [0, 1, 2].map(|channel| {
        (COLORS[at][channel] * (1.0 - part) + COLORS[at + 1][channel] * part).round() as u8
    })
}
