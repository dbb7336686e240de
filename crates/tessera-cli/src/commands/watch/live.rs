//! The live view: loss, speed, workers, the last checkpoint and the last failure.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{
    Axis, Block, Cell, Chart, Dataset, GraphType, Paragraph, Row as TableRow, Sparkline, Table,
};
use tessera_control::{ExitCode, Phase, RunState, RunStatus};
use tessera_launch::{FailureReport, WorkerReport, last_failure, read_workers};

use super::pulse::Pulse;
use super::{EVERY, Row, has_ended, read_status};
use crate::failure::Failure;

/// Silence after which a worker is shown as one to worry about.
const SILENT: f64 = 5.0;

/// Shows the run until it has ended, or `q` is pressed.
pub(super) fn show(run_dir: &Path) -> Result<ExitCode, Failure> {
    let mut view = View::of(run_dir);
    let mut pulse = Pulse::of(run_dir, Instant::now());
    let mut lost = None;
    let mut terminal = ratatui::init();
    let ended = loop {
        if let Err(failure) = view.look() {
            break Err(failure);
        }
        if let Err(error) = terminal.draw(|frame| view.draw(frame)) {
            break Err(error.into());
        }
        if let Some(status) = view.status.as_ref().filter(|status| has_ended(run_dir, status)) {
            break Ok(status.exit_code.unwrap_or(ExitCode::Failed));
        }
        lost = pulse.lost(run_dir, view.status.as_ref(), Instant::now());
        if lost.is_some() {
            break Ok(ExitCode::WorkerLost);
        }
        match wants_to_leave() {
            Ok(true) => break Ok(ExitCode::Done),
            Ok(false) => {}
            Err(error) => break Err(error.into()),
        }
    };
    ratatui::restore();
    if let Some(why) = lost {
        let words =
            format!("worker lost after step {}: {why}\n", view.status.map_or(0, |s| s.step));
        std::io::Write::write_all(&mut std::io::stdout(), words.as_bytes())?;
    } else if let Some(status) = &view.status {
        let what = status.exit_code.map_or("running", ExitCode::meaning);
        let words = format!("{what}, step {}: {}\n", status.step, status.message);
        std::io::Write::write_all(&mut std::io::stdout(), words.as_bytes())?;
    }
    ended
}

/// Waits for the next look, or a key.
fn wants_to_leave() -> std::io::Result<bool> {
    if !event::poll(EVERY)? {
        return Ok(false);
    }
    let Event::Key(key) = event::read()? else { return Ok(false) };
    let interrupt = key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL;
    Ok(interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

/// What is known of a run.
struct View {
    run_dir: PathBuf,
    /// Optimiser steps of the whole run; 0 where the configuration does not say.
    steps: u64,
    rows: Vec<Row>,
    /// How far `metrics.jsonl` was read.
    read_to: u64,
    status: Option<RunStatus>,
    workers: Vec<WorkerReport>,
    checkpoint: Option<(u64, Duration)>,
    failure: Option<FailureReport>,
}

impl View {
    fn of(run_dir: &Path) -> Self {
        let config = std::fs::read_to_string(run_dir.join("config.toml")).unwrap_or_default();
        let config: toml::Table = config.parse().unwrap_or_default();
        let steps = config.get("train").and_then(|train| train.get("steps")?.as_integer());
        Self {
            run_dir: run_dir.to_owned(),
            steps: steps.and_then(|steps| steps.try_into().ok()).unwrap_or(0),
            rows: Vec::new(),
            read_to: 0,
            status: None,
            workers: Vec::new(),
            checkpoint: None,
            failure: None,
        }
    }

    /// Reads what is new in the run folder.
    fn look(&mut self) -> Result<(), Failure> {
        self.status = read_status(&self.run_dir)?;
        self.read_rows();
        self.workers = read_workers(&self.run_dir).unwrap_or_default();
        self.failure = last_failure(&self.run_dir);
        let all = tessera_checkpoint::list(&self.run_dir.join("checkpoints")).unwrap_or_default();
        self.checkpoint = all.last().map(|(step, path)| {
            let written = path.join("manifest.json").metadata().and_then(|file| file.modified());
            let age = written.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            (*step, age.unwrap_or_default())
        });
        Ok(())
    }

    /// Reads rows of metrics that came since; all of them anew where a resume has cut the file.
    fn read_rows(&mut self) {
        let Ok(mut file) = File::open(self.run_dir.join("metrics.jsonl")) else { return };
        if file.metadata().map_or(0, |file| file.len()) < self.read_to {
            self.rows.clear();
            self.read_to = 0;
        }
        let mut text = String::new();
        if file.seek(SeekFrom::Start(self.read_to)).is_err()
            || file.read_to_string(&mut text).is_err()
        {
            return;
        }
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let rows = text[..whole].lines().filter_map(|line| serde_json::from_str(line).ok());
        self.rows.extend(rows);
        self.read_to += whole as u64;
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let workers = u16::try_from(self.workers.len()).unwrap_or(u16::MAX).saturating_add(3);
        let [head, chart, speed, table, foot] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Min(8),
            Constraint::Length(5),
            Constraint::Max(workers),
            Constraint::Length(3),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(self.head()), head);
        self.draw_loss(frame, chart);
        let skip = self.rows.len().saturating_sub(usize::from(speed.width));
        let speeds: Vec<u64> =
            self.rows[skip..].iter().map(|row| row.samples_per_second as u64).collect();
        let sparkline = Sparkline::default().data(&speeds).style(Style::new().fg(Color::Green));
        frame.render_widget(sparkline.block(Block::bordered().title("samples/s")), speed);
        self.draw_workers(frame, table);
        frame.render_widget(Paragraph::new(self.foot()), foot);
    }

    fn head(&self) -> Vec<Line<'static>> {
        let state = match self.status.as_ref().map(|status| status.state) {
            Some(RunState::Done) => "done",
            Some(RunState::Stopped) => "stopped",
            Some(RunState::Failed) => "failed",
            Some(RunState::Running) => "running",
            None => "starting",
        };
        let first = Line::from(format!("{}  {state}", self.run_dir.display())).bold();
        let Some(Row { step, loss, perplexity, samples_per_second: speed }) = self.rows.last()
        else {
            return vec![first, Line::from("no row of metrics yet")];
        };
        let share = if self.steps > 0 {
            format!("/{} ({:.0} %)", self.steps, 100.0 * *step as f64 / self.steps as f64)
        } else {
            String::new()
        };
        let second = format!(
            "step {step}{share}  loss {loss:.5}  perplexity {perplexity:.1}  {speed:.0} samples/s"
        );
        vec![first, Line::from(second)]
    }

    /// The loss over steps, on a logarithmic scale.
    fn draw_loss(&self, frame: &mut Frame<'_>, area: Rect) {
        let points: Vec<(f64, f64)> = self
            .rows
            .iter()
            .filter(|row| row.loss > 0.0)
            .map(|row| (row.step as f64, row.loss.log10()))
            .collect();
        let bounds = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| {
                (low.min(at), high.max(at))
            });
            if low < high { [low, high] } else { [low - 0.5, low + 0.5] }
        };
        let block = Block::bordered().title("loss");
        if points.is_empty() {
            frame.render_widget(block, area);
            return;
        }
        let across = bounds(&mut points.iter().map(|point| point.0));
        let up = bounds(&mut points.iter().map(|point| point.1));
        let data = Dataset::default()
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(Style::new().fg(Color::Cyan))
            .data(&points);
        let label = |value: f64| format!("{value:.0}");
        let loss = |value: f64| format!("{:.2e}", 10f64.powf(value));
        let chart = Chart::new(vec![data])
            .block(block)
            .x_axis(Axis::default().bounds(across).labels(across.map(label)))
            .y_axis(Axis::default().bounds(up).labels(up.map(loss)));
        frame.render_widget(chart, area);
    }

    fn draw_workers(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.workers.iter().map(|worker| {
            let phase = worker.phase.map_or("starting", Phase::name);
            let call = worker.call.as_ref().filter(|call| call.waiting);
            let call = call.map_or(String::new(), ToString::to_string);
            let heard = if worker.host.is_empty() {
                "not yet".to_owned()
            } else {
                format!("{:.0} s ago", worker.silent_seconds)
            };
            let worry = worker.silent_seconds > SILENT || !worker.connected;
            let style = if worry { Style::new().fg(Color::Red) } else { Style::new() };
            let cells = [
                worker.rank.to_string(),
                worker.host.clone(),
                worker.pid.to_string(),
                phase.to_owned(),
                worker.step.to_string(),
                heard,
                worker
                    .waiting_share
                    .map_or(String::new(), |share| format!("{:.0} %", 100.0 * share)),
                call,
            ];
            TableRow::new(cells.map(Cell::from)).style(style)
        });
        let widths = [
            Constraint::Length(5),
            Constraint::Length(16),
            Constraint::Length(8),
            Constraint::Length(10),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(6),
            Constraint::Min(10),
        ];
        let head = ["rank", "host", "pid", "phase", "step", "heard", "waits", "in"];
        let table = Table::new(rows, widths)
            .header(TableRow::new(head).bold())
            .block(Block::bordered().title("workers"));
        frame.render_widget(table, area);
    }

    fn foot(&self) -> Vec<Line<'static>> {
        let checkpoint = self.checkpoint.map_or("no checkpoint yet".to_owned(), |(step, age)| {
            format!("last checkpoint: step {step}, {} s ago", age.as_secs())
        });
        let failure = self
            .failure
            .as_ref()
            .map_or(String::new(), |failure| format!("last failure: {}", failure.message));
        vec![Line::from(checkpoint), Line::from(failure).red(), Line::from("q: leave").dim()]
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    #[test]
    fn the_view_shows_loss_workers_checkpoint_and_failure() {
        let run = tempfile::tempdir().unwrap();
        let path = |name: &str| run.path().join(name);
        fs::write(path("config.toml"), "[train]\nsteps = 40\n").unwrap();
        let row = |step: u64, loss: f64| {
            format!(
                r#"{{"step":{step},"loss":{loss},"perplexity":7.0,"samples_per_second":123.0}}"#
            )
        };
        let half = "{\"step\":30,";
        let rows = format!("{}\n{}\n{half}", row(10, 0.5), row(20, 0.25));
        fs::write(path("metrics.jsonl"), rows).unwrap();
        fs::create_dir_all(path("checkpoints/step-00000020")).unwrap();
        let worker = r#"[{"rank":0,"host":"node7","pid":41,"phase":"reduce","step":21,"call":
            {"op":"all_reduce","sequence":9,"count":8,"kind":"f32","waiting":true},
            "silent_seconds":0.5,"still_seconds":0.5,"waiting_share":0.421,"connected":true,"exit_code":null,
            "message":""}]"#;
        fs::write(path("workers.json"), worker).unwrap();
        fs::create_dir(path("failures")).unwrap();
        let failure = r#"{"unix_seconds":1.0,"restarts":0,"world_size":1,"exit_code":3,
            "message":"worker lost: rank 0","workers":[]}"#;
        fs::write(path("failures/1.000.json"), failure).unwrap();

        let mut view = View::of(run.path());
        view.look().unwrap();
        let mut terminal = Terminal::new(TestBackend::new(100, 30)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let shown = terminal.backend().to_string();
        for words in [
            "step 20/40 (50 %)  loss 0.25000  perplexity 7.0  123 samples/s",
            "node7",
            " 42 % ",
            "all_reduce number 9 of 8 f32",
            "last checkpoint: step 20",
            "last failure: worker lost: rank 0",
            "5.00e-1",
            "2.50e-1",
        ] {
            assert!(shown.contains(words), "{words} is missing in\n{shown}");
        }
        // A resume has cut the file: what was read of it is not believed any more.
        fs::write(path("metrics.jsonl"), row(10, 0.5) + "\n").unwrap();
        view.look().unwrap();
        assert_eq!(view.rows.len(), 1);
        // And a row that was half there is read once it is whole.
        fs::write(path("metrics.jsonl"), format!("{}\n{}\n", row(10, 0.5), row(30, 0.1))).unwrap();
        view.look().unwrap();
        assert_eq!(view.rows.iter().map(|row| row.step).collect::<Vec<_>>(), [10, 30]);
    }
}
