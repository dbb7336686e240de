//! A report as a page of Markdown.

use std::fmt::Write as _;

use super::{Comparison, Delta, EqualQuality, Match, Report, Winner};
use crate::curve::{Amount, Bytes, Column};

impl Report {
    /// The report as Markdown: what was coded, all points, bytes at equal quality with who wins, and
    /// BD-rates. `pictures` are the names of pictures to show.
    pub fn page(&self, pictures: &[String]) -> String {
        let mut page = self.begin();
        for name in pictures {
            line(&mut page, &format!("![rate and distortion]({name})\n"));
        }
        self.points(&mut page);
        if let Some(order) = self.columns.first() {
            self.equal_quality(&mut page, order);
            self.delta_table(&mut page, order);
        }
        page
    }

    /// Who wins by bytes of files at the quality of each point of the models, a sentence each; by the first column.
    pub fn verdicts(&self) -> Vec<String> {
        let Some(order) = self.columns.first() else { return Vec::new() };
        let sentence = |one: &Comparison| one.sentence(Bytes::File, &order.name);
        self.at_equal_quality(0).iter().map(sentence).collect()
    }

    fn begin(&self) -> String {
        let amount = match self.amount {
            Amount::Pixels(pixels) => format!("{} pixels", grouped(pixels as f64)),
            Amount::Seconds(seconds) => format!("{seconds:.1} seconds"),
        };
        let (number, hash) = (self.hashes.len(), self.items_sha256());
        let mut page = String::from("# Rate and distortion\n\n");
        let what = &self.data_set;
        line(
            &mut page,
            &format!(
                "{what}: {number} items, {amount}. SHA-256 of the list of their hashes: `{hash}`."
            ),
        );
        line(
            &mut page,
            "All codecs got the same items. *File* is all bytes of all files; *payload* is without containers and heads:",
        );
        line(
            &mut page,
            "a JPEG's is its coded data without the tables that it needs, an AVIF's its `mdat`, an Opus file's its packets.",
        );
        line(&mut page, "Weights of the model are in neither.\n");
        for curve in &self.curves {
            line(&mut page, &format!("- **{}**: {}.", cell(&curve.name), curve.about));
        }
        for left_out in &self.left_out {
            line(&mut page, &format!("- **{}** is left out: {}.", left_out.name, left_out.reason));
        }
        page.push('\n');
        page
    }

    fn points(&self, page: &mut String) {
        let rate = self.amount.rate_name().replace('_', " ");
        line(page, "## Points\n");
        let mut head = format!(
            "| | setting | file, bytes | payload, bytes | file, {rate} | payload, {rate} |"
        );
        for column in &self.columns {
            let way = if column.higher_is_better { "" } else { " (lower is better)" };
            write!(head, " {}{way} |", column.name).expect("memory");
        }
        line(page, &head);
        line(page, &rule(6 + self.columns.len()));
        for curve in &self.curves {
            for point in &curve.points {
                let mut row = format!("| {} | {} |", cell(&curve.name), cell(&point.setting));
                for bytes in [point.file_bytes, point.payload_bytes] {
                    write!(row, " {} |", grouped(bytes as f64)).expect("memory");
                }
                for bytes in [point.file_bytes, point.payload_bytes] {
                    write!(row, " {} |", rate_text(self.amount.rate(bytes))).expect("memory");
                }
                for figure in &point.figures {
                    write!(row, " {} |", figure_text(*figure)).expect("memory");
                }
                line(page, &row);
            }
        }
        page.push('\n');
    }

    fn equal_quality(&self, page: &mut String, order: &Column) {
        let comparisons = self.at_equal_quality(0);
        let Some(first) = comparisons.first().filter(|first| !first.matches.is_empty()) else {
            return;
        };
        let name = &order.name;
        line(page, &format!("## At equal {name}\n"));
        line(
            page,
            "Bytes that each codec takes for the quality of each point of the model: between two of its points, on",
        );
        line(
            page,
            "the line of the logarithm of bytes. Beyond the range of its points nothing is guessed. Bold where the",
        );
        line(page, "baseline takes no more bytes than the model, for as much or more.\n");
        for (which, words) in [(Bytes::File, "Whole files"), (Bytes::Payload, "Payloads")] {
            let mut head = format!("| {words} | {name} | model, bytes |");
            for one in &first.matches {
                write!(head, " {} |", cell(&one.baseline)).expect("memory");
            }
            line(page, &head);
            line(page, &rule(3 + first.matches.len()));
            for comparison in &comparisons {
                line(page, &comparison.row(which));
            }
            page.push('\n');
            for comparison in &comparisons {
                line(page, &format!("- {}", comparison.sentence(which, name)));
            }
            page.push('\n');
        }
    }

    fn delta_table(&self, page: &mut String, order: &Column) {
        let deltas = self.deltas(0);
        if deltas.is_empty() {
            return;
        }
        line(page, &format!("## BD-rate by {}\n", order.name));
        line(
            page,
            "How many more bytes the model takes at equal quality (fewer, where negative), the mean over the qualities",
        );
        line(
            page,
            "that both curves have: Bjontegaard's delta with piecewise cubics (PCHIP). It needs four points of each and half",
        );
        line(page, "of the shorter range.\n");
        line(page, &format!("| model | against | files | payloads | over {} |", order.name));
        line(page, &rule(5));
        for (model, baseline, file, payload) in deltas {
            let text = |delta: Option<Delta>| match delta {
                Some(Delta { percent, .. }) => format!("{percent:+.1} %"),
                None => "ranges too far apart".to_owned(),
            };
            let range = file.or(payload).map_or(String::new(), |delta| {
                let (a, b) = (order.quality(delta.range.0), order.quality(delta.range.1));
                format!("{} to {}", figure_text(a.min(b)), figure_text(a.max(b)))
            });
            let (model, baseline) = (cell(model), cell(baseline));
            let (file, payload) = (text(file), text(payload));
            line(page, &format!("| {model} | {baseline} | {file} | {payload} | {range} |"));
        }
    }
}

impl Comparison {
    fn bytes(&self, which: Bytes) -> f64 {
        match which {
            Bytes::File => self.file_bytes as f64,
            Bytes::Payload => self.payload_bytes as f64,
        }
    }

    fn row(&self, which: Bytes) -> String {
        let bytes = grouped(self.bytes(which));
        let (model, setting) = (cell(&self.model), cell(&self.setting));
        let mut row = format!("| {model}, {setting} | {} | {bytes} |", figure_text(self.figure));
        for one in &self.matches {
            let text = match one.of(which).0 {
                EqualQuality::At(bytes) => grouped(bytes),
                EqualQuality::BelowRange { bytes, figure } if figure.is_infinite() => {
                    format!("exact: {}", grouped(bytes))
                }
                EqualQuality::BelowRange { bytes, figure } => {
                    format!("below its range: {} at {}", grouped(bytes), figure_text(figure))
                }
                EqualQuality::AboveRange { bytes, figure } => {
                    format!("above its range: {} at {}", grouped(bytes), figure_text(figure))
                }
            };
            let won = one.of(which).1 == Winner::Baseline;
            let mark = if won { "**" } else { "" };
            write!(row, " {mark}{text}{mark} |").expect("memory");
        }
        row
    }

    /// Who wins at the quality of this point, in a sentence.
    fn sentence(&self, which: Bytes, figure_name: &str) -> String {
        let bytes = self.bytes(which);
        // Of one that loses nothing and is larger all is said by the table.
        let exact = |one: &Match| matches!(one.of(which).0, EqualQuality::BelowRange { figure, .. } if figure.is_infinite());
        let names = |winner: Winner| {
            let ones = self.matches.iter().filter(|one| one.of(which).1 == winner);
            let ones = ones.filter(|one| winner == Winner::Baseline || !exact(one));
            ones.map(|one| one.words(which, bytes)).collect::<Vec<_>>().join(", ")
        };
        let figure = figure_text(self.figure);
        let mut text = format!(
            "{}, {} ({figure_name} {figure}, {} bytes):",
            self.model,
            self.setting,
            grouped(bytes)
        );
        let sides = [
            (" the model loses to ", names(Winner::Baseline)),
            (" the model wins against ", names(Winner::Model)),
            (" nothing can be said of ", names(Winner::Nobody)),
        ];
        let said = sides.iter().filter(|(_, names)| !names.is_empty());
        let said: Vec<String> = said.map(|(begin, names)| format!("{begin}{names}")).collect();
        if said.is_empty() {
            text.push_str(" no baseline can be set beside it");
        }
        text.push_str(&said.join(";"));
        text.push('.');
        text
    }
}

impl Match {
    fn of(&self, which: Bytes) -> (EqualQuality, Winner) {
        match which {
            Bytes::File => (self.file, self.file_winner),
            Bytes::Payload => (self.payload, self.payload_winner),
        }
    }

    fn words(&self, which: Bytes, model: f64) -> String {
        let name = &self.baseline;
        let (quality, winner) = self.of(which);
        let percent = |bytes: f64| format!("{:.0} %", 100.0 * (bytes / model - 1.0).abs());
        match (quality, winner) {
            (EqualQuality::At(bytes), Winner::Baseline) => {
                format!("{name} ({} fewer bytes)", percent(bytes))
            }
            (EqualQuality::At(bytes), Winner::Model) => {
                format!("{name} ({} more bytes)", percent(bytes))
            }
            (EqualQuality::At(_), Winner::Nobody) => format!("{name} (as many bytes)"),
            (EqualQuality::BelowRange { .. }, Winner::Baseline) => {
                format!("{name} (its fewest bytes are no more, and better)")
            }
            (EqualQuality::BelowRange { bytes, .. }, _) => {
                let factor = bytes / model;
                format!("{name} (its fewest bytes are {factor:.2} times as many, and better)")
            }
            (EqualQuality::AboveRange { .. }, Winner::Model) => {
                format!("{name} (its best is worse, and no smaller)")
            }
            (EqualQuality::AboveRange { .. }, _) => {
                format!("{name} (its best is worse, and smaller)")
            }
        }
    }
}

fn line(page: &mut String, text: &str) {
    page.push_str(text);
    page.push('\n');
}

fn rule(columns: usize) -> String {
    format!("|{}", "---|".repeat(columns))
}

/// Text that does not end a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// A rounded number with a comma at each third digit.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn rate_text(rate: f64) -> String {
    if rate >= 100.0 { grouped(rate) } else { format!("{rate:.4}") }
}

/// A figure in as many digits as tell points apart.
pub(super) fn figure_text(figure: f64) -> String {
    if figure.is_nan() {
        "-".to_owned()
    } else if figure.is_infinite() {
        "exact".to_owned()
    } else if figure.abs() < 1.0 {
        format!("{figure:.4}")
    } else {
        format!("{figure:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn the_page_says_who_wins() {
        let page = report().page(&["a.svg".to_owned()]);
        for expected in [
            "![rate and distortion](a.svg)\n",
            "- **AVIF** is left out: avifenc is not installed.\n",
            "| model | s1 | 400 | 360 | 0.7812 | 0.7031 | 25.00 | 0.6250 |\n",
            "| model, s0 | 22.00 | 200 | exact: 6,000 | below its range: 500 at 23.00 |",
            "- model, s1 (psnr_db 25.00, 400 bytes): the model loses to WebP (23 % fewer bytes); the model \
             wins against JPEG (56 % more bytes).\n",
            "| model | WebP | ",
        ] {
            assert!(page.contains(expected), "{expected}\nis not in\n{page}");
        }
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(
            [0.0, 999.0, 1000.0, 1_234_567.4].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        let figures = [f64::NAN, f64::INFINITY, 0.91234, 31.456].map(figure_text);
        assert_eq!(figures, ["-", "exact", "0.9123", "31.46"]);
    }
}
