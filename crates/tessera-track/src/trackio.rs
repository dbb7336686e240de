//! Trackio by its own functions: a table of all rows, and a short program in Python that logs it.
//!
//! Trackio's database has a form that changes between versions, and `trackio.import_csv` keeps ten letters of each
//! name. So the table is written whole, at the end of a run or whenever the command is given, and whoever wants it in
//! Trackio runs the program once.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use serde_json::json;

use crate::TrackError;
use crate::cursor::Cursor;
use crate::figures::{Figure, figures};
use crate::run::{Ending, Run};
use crate::source::{Entry, Limits, Position, Source};
use crate::tracker::{Tracker, shell};

/// The program, which has its names from the lines before it.
const PROGRAM: &str = r#"
import csv, json, pathlib
import trackio

here = pathlib.Path(__file__)
config = json.loads(here.with_suffix(".json").read_text())
trackio.init(project=PROJECT, name=NAME, config=config)
with here.with_suffix(".csv").open(newline="") as table:
    for row in csv.DictReader(table):
        step = int(row.pop("step"))
        trackio.log({name: float(value) for name, value in row.items() if value and name != "timestamp"}, step=step)
trackio.finish()
"#;

/// Writes tables into a folder.
#[derive(Debug)]
pub(crate) struct Trackio {
    /// The folder that has `trackio/`.
    pub(crate) out: PathBuf,
    pub(crate) project: String,
    pub(crate) is_eager: bool,
    /// The program, once it was written.
    pub(crate) written: Option<PathBuf>,
}

impl Tracker for Trackio {
    fn name(&self) -> &'static str {
        "trackio"
    }

    fn begin(&mut self, _run: &Run, _cursor: &mut Cursor) -> Result<(), TrackError> {
        Ok(())
    }

    fn send(&mut self, _cursor: &mut Cursor, _entries: &[Entry]) -> Result<(), TrackError> {
        Ok(())
    }

    fn close(
        &mut self,
        run: &Run,
        cursor: &mut Cursor,
        _ending: Option<Ending>,
    ) -> Result<(), TrackError> {
        let limits = Limits { exhibits: None, ..run.limits(self.is_eager)? };
        let mut columns = BTreeSet::new();
        each(run, cursor, limits, |entry| {
            columns.extend(numbers(entry).map(|(name, _)| name));
            Ok(())
        })?;
        let folder = self.out.join("trackio");
        fs::create_dir_all(&folder).map_err(TrackError::file("make", &folder))?;
        let path = folder.join("run.csv");
        let partial = path.with_extension("csv.tmp");
        let refused = TrackError::file("write", &partial);
        let mut out = BufWriter::new(File::create(&partial).map_err(refused)?);
        let names: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
        let mut put =
            |line: String| writeln!(out, "{line}").map_err(TrackError::file("write", &partial));
        put(format!("step,timestamp,{}", names.join(",")))?;
        each(run, cursor, limits, |entry| {
            let mut values: Vec<String> = vec![String::new(); columns.len()];
            for (name, value) in numbers(entry) {
                if let Some(place) = columns.iter().position(|column| *column == name) {
                    values[place] = value;
                }
            }
            put(format!("{},{},{}", entry.step, entry.seconds, values.join(",")))
        })?;
        let finish = || -> io::Result<()> {
            out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&partial, &path)
        };
        finish().map_err(TrackError::file("write", &path))?;
        let program = format!(
            "PROJECT = {}\nNAME = {}\n{PROGRAM}",
            json!(self.project),
            json!(cursor.run_name(&run.name))
        );
        for (extension, text) in [("json", run.config()?.0.to_string()), ("py", program)] {
            let path = path.with_extension(extension);
            fs::write(&path, text).map_err(TrackError::file("write", &path))?;
        }
        self.written = Some(path.with_extension("py"));
        Ok(())
    }

    fn where_to(&self, _cursor: &Cursor) -> String {
        match &self.written {
            Some(program) => format!("`python {}` takes it there, once", shell(program)),
            None => "nothing is written yet".to_owned(),
        }
    }
}

/// Calls `see` with each entry of a run, from its start.
fn each(
    run: &Run,
    cursor: &Cursor,
    limits: Limits,
    mut see: impl FnMut(&Entry) -> Result<(), TrackError>,
) -> Result<(), TrackError> {
    let source = Source::open(&run.dir, &Position::default(), cursor.started)?;
    let mut source = source.expect("a place before all rows is there");
    while let Some(entry) = source.next(limits)? {
        see(&entry)?;
    }
    Ok(())
}

fn numbers(entry: &Entry) -> impl Iterator<Item = (String, String)> {
    figures(entry).into_iter().filter_map(|(name, figure)| match figure {
        Figure::Number(number) => Some((name, number.to_string())),
        Figure::NotANumber => Some((name, "nan".to_owned())),
        Figure::Text(_) => None,
    })
}

fn quoted(name: &str) -> String {
    if name.contains([',', '"', '\n']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::CursorFile;
    use crate::run::tests::say;

    #[test]
    fn the_table_has_every_row_and_a_column_for_every_figure() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let rows =
            "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":null}\n{\"step\":3,\"loss\":0.25}\n";
        fs::write(dir.join("metrics.jsonl"), rows).unwrap();
        fs::write(dir.join("eval.jsonl"), "{\"step\":2,\"split\":\"test\",\"psnr\":20.5}\n")
            .unwrap();
        say(dir, tessera_control::RunState::Done, 3);
        let run = Run { dir: dir.to_owned(), name: "demo".to_owned() };
        let target = CursorFile::open(&dir.join("track"), "trackio", "a", Some(100.0)).unwrap();
        let out = dir.join("track");
        let (project, is_eager, written) = ("tessera".to_owned(), false, None);
        let mut trackio = Trackio { out, project, is_eager, written };
        let mut cursor = target.cursor.clone();
        trackio.close(&run, &mut cursor, None).unwrap();
        let table = fs::read_to_string(dir.join("track/trackio/run.csv")).unwrap();
        let expected =
            "step,timestamp,eval/psnr,train/loss\n1,100,,0.5\n2,100,20.5,nan\n3,100,,0.25\n";
        assert_eq!(table, expected);
        let told = trackio.where_to(&cursor);
        assert!(told.starts_with("`python /") && told.contains("track/trackio/run.py"), "{told}");
        let program = fs::read_to_string(dir.join("track/trackio/run.py")).unwrap();
        assert!(program.starts_with("PROJECT = \"tessera\"\nNAME = \"demo\"\n"), "{program}");
    }
}
