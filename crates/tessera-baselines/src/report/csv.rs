//! A report as a table of numbers that any program reads, and back.
//!
//! A row is a point; what is the same for all rows stands in each, so that a row is complete in itself. A baseline
//! that was left out is a row of kind `left_out` without numbers, whose `about` is the reason. Rates are there for
//! readers: they follow from bytes and amount.

use super::{LeftOut, Report};
use crate::curve::{Amount, Column, Curve, Kind, Point};
use crate::error::BaselineError;

/// Columns before the figures.
const HEAD: usize = 12;
/// What the name of a figure ends in of which less is better.
const LOWER: &str = " (lower is better)";
const LEFT_OUT: &str = "left_out";

impl Report {
    /// The report as CSV (RFC 4180, lines end in a line feed) with a head. [`Report::from_csv`] reads it.
    pub fn csv(&self) -> String {
        let rate = self.amount.rate_name();
        let mut head: Vec<String> =
            ["data_set", "num_items", "items_sha256"].map(str::to_owned).to_vec();
        head.push(self.amount.name().to_owned());
        let names = ["kind", "curve", "about", "setting", "file_bytes", "payload_bytes"];
        head.extend(names.map(str::to_owned));
        head.extend([format!("file_{rate}"), format!("payload_{rate}")]);
        head.extend(self.columns.iter().map(column_name));
        let mut rows = vec![head];
        for curve in &self.curves {
            for point in &curve.points {
                let setting = point.setting.clone();
                let bytes = [point.file_bytes, point.payload_bytes];
                let mut row = self.begun(kind_name(curve.kind), &curve.name, &curve.about);
                row.push(setting);
                row.extend(bytes.map(|bytes| bytes.to_string()));
                row.extend(bytes.map(|bytes| self.amount.rate(bytes).to_string()));
                row.extend(point.figures.iter().map(f64::to_string));
                rows.push(row);
            }
        }
        for left_out in &self.left_out {
            let mut row = self.begun(LEFT_OUT, &left_out.name, &left_out.reason);
            row.resize(HEAD + self.columns.len(), String::new());
            rows.push(row);
        }
        rows.iter().map(|row| line(row)).collect()
    }

    /// What each row begins with.
    fn begun(&self, kind: &str, curve: &str, about: &str) -> Vec<String> {
        let amount = match self.amount {
            Amount::Pixels(pixels) => pixels.to_string(),
            Amount::Seconds(seconds) => seconds.to_string(),
        };
        let number = self.hashes.len().to_string();
        let texts = [kind, curve, about].map(str::to_owned);
        let mut row = vec![self.data_set.clone(), number, self.items_sha256(), amount];
        row.extend(texts);
        row
    }

    /// The report that [`Report::csv`] wrote, with the hashes that [`Report::items`] has.
    ///
    /// # Errors
    ///
    /// [`BaselineError::Report`] if the text is none of a report, or the hashes are others.
    pub fn from_csv(text: &str, items: &str) -> Result<Self, BaselineError> {
        let rows = rows(text)?;
        let Some((head, rows)) = rows.split_first() else {
            return Err(wrong(1, "a head was expected"));
        };
        let first = rows.first().ok_or_else(|| wrong(2, "a point was expected"))?;
        let mut report = Self {
            data_set: field(first, 0, 2)?.to_owned(),
            hashes: items.lines().map(str::to_owned).collect(),
            amount: amount(head, first)?,
            columns: head.iter().skip(HEAD).map(|name| column(name)).collect(),
            curves: Vec::new(),
            left_out: Vec::new(),
        };
        if field(first, 2, 2)? != report.items_sha256() {
            return Err(wrong(2, "its items are not those of the list of hashes"));
        }
        for (row, at) in rows.iter().zip(2..) {
            report.take(row, at)?;
        }
        Ok(report)
    }

    fn take(&mut self, row: &[String], at: usize) -> Result<(), BaselineError> {
        let [kind, name, about] = [field(row, 4, at)?, field(row, 5, at)?, field(row, 6, at)?];
        if kind == LEFT_OUT {
            self.left_out.push(LeftOut { name: name.to_owned(), reason: about.to_owned() });
            return Ok(());
        }
        let kind = [Kind::Model, Kind::Lossy, Kind::Lossless]
            .into_iter()
            .find(|one| kind_name(*one) == kind)
            .ok_or_else(|| wrong(at, "kind is none of model, lossy, lossless, left_out"))?;
        let mut figures = Vec::new();
        for place in HEAD..HEAD + self.columns.len() {
            figures.push(number(row, place, at)?);
        }
        let point = Point {
            setting: field(row, 7, at)?.to_owned(),
            file_bytes: number(row, 8, at)?,
            payload_bytes: number(row, 9, at)?,
            figures,
        };
        match self.curves.last_mut().filter(|curve| curve.name == name) {
            Some(curve) => curve.points.push(point),
            None => {
                let (name, about) = (name.to_owned(), about.to_owned());
                self.curves.push(Curve { name, about, kind, points: vec![point] });
            }
        }
        Ok(())
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Model => "model",
        Kind::Lossy => "lossy",
        Kind::Lossless => "lossless",
    }
}

fn column_name(column: &Column) -> String {
    format!("{}{}", column.name, if column.higher_is_better { "" } else { LOWER })
}

fn column(name: &str) -> Column {
    match name.strip_suffix(LOWER) {
        Some(name) => Column::lower(name),
        None => Column::higher(name),
    }
}

fn amount(head: &[String], first: &[String]) -> Result<Amount, BaselineError> {
    match field(head, 3, 1)? {
        "pixels" => Ok(Amount::Pixels(number(first, 3, 2)?)),
        "seconds" => Ok(Amount::Seconds(number(first, 3, 2)?)),
        _ => Err(wrong(1, "the fourth column has to be pixels or seconds")),
    }
}

fn field(row: &[String], place: usize, at: usize) -> Result<&str, BaselineError> {
    let found = row.get(place).map(String::as_str);
    found.ok_or_else(|| {
        wrong(at, &format!("it has {} fields, {} is not there", row.len(), place + 1))
    })
}

fn number<T: std::str::FromStr>(
    row: &[String],
    place: usize,
    at: usize,
) -> Result<T, BaselineError> {
    let text = field(row, place, at)?;
    text.parse().map_err(|_| wrong(at, &format!("{text:?} is not the number that was expected")))
}

fn wrong(line: usize, problem: &str) -> BaselineError {
    BaselineError::Report { place: format!("row {line} of the CSV"), problem: problem.to_owned() }
}

/// Fields with what divides them in quotes.
fn line(fields: &[String]) -> String {
    let quoted = |field: &String| {
        if field.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.clone()
        }
    };
    fields.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n"
}

fn rows(text: &str) -> Result<Vec<Vec<String>>, BaselineError> {
    let (mut rows, mut row, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            _ => field.push(letter),
        }
    }
    if quoted || !field.is_empty() || !row.is_empty() {
        return Err(wrong(rows.len() + 1, "it does not end"));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn a_report_comes_back_as_it_was() {
        let mut report = report();
        report.curves[0].about = "two\nlines, \"quoted\"".to_owned();
        report.curves[0].points[1].figures[1] = 0.1 + 0.2;
        report.columns[1].higher_is_better = false;
        let back = Report::from_csv(&report.csv(), &report.items()).expect("ours");
        assert_eq!(back, report);
        report.amount = Amount::Seconds(1.0 / 3.0);
        let back = Report::from_csv(&report.csv(), &report.items()).expect("ours");
        assert_eq!(back, report);
    }

    /// By hand: 200 bytes of 4,096 pixels are 0.390625 bits each; its payload is 180 bytes, 0.3515625.
    #[test]
    fn a_row_is_complete_in_itself() {
        let csv = report().csv();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(
            lines[0],
            "data_set,num_items,items_sha256,pixels,kind,curve,about,setting,file_bytes,payload_bytes,\
             file_bits_per_pixel,payload_bits_per_pixel,psnr_db,ssim"
        );
        assert!(lines[1].starts_with("\"waves, \"\"test\"\"\",1,"), "{}", lines[1]);
        let end = ",4096,model,model,\"model, as it is\",s0,200,180,0.390625,0.3515625,22,0.55";
        assert!(lines[1].ends_with(end), "{}", lines[1]);
        assert!(lines[lines.len() - 1].ends_with(",AVIF,avifenc is not installed,,,,,,,"), "{csv}");
    }

    #[test]
    fn another_text_or_other_items_are_refused() {
        let report = report();
        assert!(Report::from_csv("", "").is_err());
        assert!(Report::from_csv("a,b\n1,2\n", "").is_err());
        assert!(Report::from_csv(&report.csv(), "another\n").is_err());
        let cut = report.csv();
        assert!(Report::from_csv(&cut[..cut.len() - 1], &report.items()).is_err());
    }
}
