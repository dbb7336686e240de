//! The launcher's main loop: takes events in, passes stops on, and knows when it is over.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tessera_control::{ExitCode, Message, read_record};

use crate::addresses::host_name;
use crate::banner::BannerFilter;
use crate::display::{Display, Progress};
use crate::listener::{Event, Stream};
use crate::processes::state_of;
use crate::report::WorkerReport;
use crate::session::Session;
use crate::signals::{Stop, StopCounter, name};
use crate::supervision::{Supervision, Verdict};
use crate::ways::Ways;
use crate::{LaunchOptions, Task, startup};

/// Time between two looks at the clock, at mpirun and at all workers, of whom thousands may speak each second.
const TICK: Duration = Duration::from_millis(50);
/// After a pause of this length it was the launcher that did not run.
const ASLEEP: Duration = Duration::from_secs(5);
/// How long the others may take to leave after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long workers and mpirun may take to leave after every outcome was told.
const AFTER_OUTCOMES: Duration = Duration::from_secs(30);
/// Time between two notes of the workers in the run folder.
const WRITE: Duration = Duration::from_secs(1);
/// How long lines may still come after mpirun has ended.
const AFTER_MPIRUN: Duration = Duration::from_secs(2);

/// Where what is known of a run comes from and goes to.
#[derive(Clone, Copy)]
pub(crate) struct Places<'a> {
    /// Which start of the workers this is.
    pub(crate) attempt: &'a str,
    /// Folder where workers of this host keep what they are doing.
    pub(crate) records: &'a Path,
    pub(crate) ways: Ways<'a>,
}

/// A run that is being watched.
pub(crate) struct Watch<'a> {
    events: &'a Receiver<Event>,
    session: &'a mut Session,
    places: Places<'a>,
    next_write: Instant,
    supervision: Supervision,
    display: Display<'a>,
    filters: [BannerFilter; 2],
    stops: StopCounter,
    task: Task,
    verbose: bool,
    /// A stop was asked for and not yet passed on.
    stop_waits: bool,
    open_streams: usize,
    mpirun_ended: Option<Instant>,
    /// Whether the run folder is that of these workers.
    holds: bool,
    deadline: Option<Instant>,
}

impl<'a> Watch<'a> {
    /// Watches `session`, from which and about which `events` come, for `supervision`.
    pub(crate) fn new(
        options: &LaunchOptions,
        supervision: Supervision,
        steps: Option<u64>,
        events: &'a Receiver<Event>,
        session: &'a mut Session,
        places: Places<'a>,
    ) -> Self {
        let pid = session.child().id();
        Self {
            events,
            session,
            places,
            next_write: Instant::now(),
            supervision,
            display: Display::new(steps, places.ways.results, options.show),
            filters: std::array::from_fn(|_| BannerFilter::of(pid)),
            stops: StopCounter::default(),
            task: options.task,
            verbose: options.verbose,
            stop_waits: false,
            open_streams: 2,
            mpirun_ended: None,
            holds: false,
            deadline: None,
        }
    }

    /// Whether a person or a batch system has asked for the end.
    pub(crate) fn was_asked_to_stop(&self) -> bool {
        self.stops.any()
    }

    /// Whether the workers have had the run folder.
    pub(crate) fn had_folder(&self) -> bool {
        self.holds
    }

    /// Returns when the run is over and none of its processes lives.
    pub(crate) fn until_over(&mut self) {
        let mut last = Instant::now();
        loop {
            self.take_all_until(last + TICK);
            let now = Instant::now();
            if now - last > ASLEEP {
                self.supervision.forgive(now);
            }
            last = now;
            self.look_at_those_away();
            self.supervision.check(now);
            let lines = [self.supervision.late(now), self.supervision.waits_for(now)];
            lines.iter().flatten().for_each(|line| self.display.say(line));
            self.write_down(now);
            self.look_at_mpirun(now);
            self.pass_stop_on();
            if self.is_over(now) {
                break;
            }
        }
        self.look_at_silent_worker();
        self.session.end();
        self.drain();
        self.supervision.recall(|rank| read_record(self.places.records, rank));
        self.supervision.end();
    }

    /// The verdict, `mpirun`'s own exit code, and what is known of each worker.
    pub(crate) fn into_verdict(mut self) -> (Verdict, Option<i32>, Vec<WorkerReport>) {
        for stream in [Stream::Out, Stream::Err] {
            let rest = self.filters[stream as usize].finish();
            if !self.verbose {
                self.show(stream, &rest);
            }
        }
        self.display.finish();
        if let Some(rank) = self.supervision.lost_worker()
            && let Some(how) = self.filters.iter().find_map(|filter| filter.cause(rank))
        {
            self.supervision.explain(how.to_owned());
        }
        let mut verdict = self.supervision.verdict();
        let status = self.session.status();
        let no_start = status.filter(|_| self.supervision.none_came()).and_then(|status| {
            let said: Vec<&str> = self.filters.iter().flat_map(BannerFilter::tail).collect();
            startup::explain(&said, status, &host_name())
        });
        if let Some(message) = no_start {
            verdict = Verdict {
                code: ExitCode::BadInput,
                message,
                agreed: false,
                unexplained: false,
                ..verdict
            };
        }
        if verdict.unexplained && !self.verbose {
            for line in self.filters.iter().flat_map(BannerFilter::tail) {
                self.display.say(line);
            }
        }
        let workers = self.report(Instant::now());
        (verdict, self.session.status().and_then(|status| status.code()), workers)
    }

    /// Keeps what is known of the workers in the run folder, once a second.
    fn write_down(&mut self, now: Instant) {
        if now < self.next_write {
            return;
        }
        self.next_write = now + WRITE;
        let workers = self.report(now);
        let Ways { exporter, files, .. } = self.places.ways;
        if let Some(files) = files.filter(|_| self.holds) {
            files.workers(workers.clone());
        }
        if let Some(exporter) = exporter {
            exporter.set_workers(workers);
        }
    }

    fn take_all_until(&mut self, look: Instant) {
        loop {
            let now = Instant::now();
            let Some(left) = look.checked_duration_since(now) else { return };
            match self.events.recv_timeout(left) {
                Ok(event) => self.take(event, Instant::now()),
                Err(_) => return,
            }
        }
    }

    fn report(&self, now: Instant) -> Vec<WorkerReport> {
        let mut workers = self.supervision.report(now);
        workers.iter_mut().for_each(|worker| self.places.attempt.clone_into(&mut worker.attempt));
        workers
    }

    fn take(&mut self, event: Event, now: Instant) {
        match event {
            Event::Message { rank, message } => {
                if let Some(line) = self.supervision.hear(rank, &message, now) {
                    self.display.say(&line);
                }
                self.show_message(rank, message, now);
            }
            Event::Closed { rank, end } => self.supervision.disconnect(rank, end, now),
            Event::Warning(text) => self.display.say(&format!("warning: {text}")),
            Event::Line { stream, text } => {
                let lines = self.filters[stream as usize].push(&text);
                let lines = if self.verbose { vec![text] } else { lines };
                self.show(stream, &lines);
            }
            Event::EndOfStream => self.open_streams = self.open_streams.saturating_sub(1),
            Event::Signal(signal) => self.stop(signal),
        }
    }

    fn show(&mut self, stream: Stream, lines: &[String]) {
        for line in lines {
            match stream {
                Stream::Out => self.display.result(line),
                Stream::Err => self.display.say(line),
            }
        }
    }

    fn show_message(&mut self, rank: usize, message: Message, now: Instant) {
        match message {
            Message::Hello { host, pid, .. } => tracing::debug!(rank, host, pid, "worker is here"),
            Message::Holds { attempt } => {
                tracing::debug!(attempt, "the run folder is these workers'");
                self.holds = true;
                self.next_write = now; // what is known so far
                if let Some(trackers) = self.places.ways.trackers {
                    trackers.start();
                }
            }
            Message::Notice { text } => self.display.notice(&text),
            Message::Progress { step, steps, words, figures, samples_per_second } => {
                let progress = Progress { step, steps, words, figures, samples_per_second };
                self.display.progress(&progress, now);
                if let Some(exporter) = self.places.ways.exporter {
                    exporter.set_progress(progress);
                }
            }
            Message::Outcome { code, message, step } => {
                tracing::debug!(rank, code = code.code(), message, step, "worker leaves");
            }
            Message::Heartbeat { .. } => {}
        }
    }

    fn stop(&mut self, signal: i32) {
        if !self.task.can_stop() {
            return self.supervision.interrupt(); // There is nothing to save.
        }
        match self.stops.next(signal) {
            Stop::Checkpoint => {
                let signal = name(signal);
                let does = match self.task {
                    Task::Train => "write a checkpoint and leave",
                    _ => "leave after the shard that they write",
                };
                self.display.say(&format!("{signal}: the workers {does}"));
                self.stop_waits = true;
            }
            Stop::Warn => {
                self.display.say("still saving; again to end at once without a checkpoint");
            }
            Stop::Now => self.supervision.interrupt(),
            Stop::Ignore => {}
        }
    }

    /// A worker that has not said hello may have no handler yet, and SIGUSR1 would kill it.
    fn pass_stop_on(&mut self) {
        if self.stop_waits && self.supervision.all_ready() {
            self.stop_waits = false;
            self.session.ask_to_stop();
        }
    }

    fn look_at_mpirun(&mut self, now: Instant) {
        if self.mpirun_ended.is_some() {
            return;
        }
        let Some(status) = self.session.status() else { return };
        self.mpirun_ended = Some(now);
        if let Some(signal) = status.signal() {
            self.supervision.mpirun_killed(signal);
        }
    }

    fn is_over(&mut self, now: Instant) -> bool {
        if self.supervision.hopeless() {
            return true;
        }
        if let Some(ended) = self.mpirun_ended {
            let heard_all = self.open_streams == 0 && !self.supervision.any_connected();
            return heard_all || now - ended > AFTER_MPIRUN;
        }
        if self.deadline.is_none() {
            if self.supervision.failed() {
                self.deadline = Some(now + AFTER_FAILURE);
            } else if self.supervision.all_told() {
                self.deadline = Some(now + AFTER_OUTCOMES);
            }
        }
        self.deadline.is_some_and(|deadline| now > deadline)
    }

    /// Whose connection broke because its process on this host has ended does not come back.
    fn look_at_those_away(&mut self) {
        let own = host_name();
        let is_gone = |host: &str, pid: u32| {
            let state = i32::try_from(pid).ok().and_then(state_of);
            host == own && state.is_none_or(|state| state.letter == 'Z')
        };
        let away = self.supervision.away();
        let gone: Vec<usize> =
            away.filter(|(_, host, pid)| is_gone(host, *pid)).map(|(rank, ..)| rank).collect();
        gone.into_iter().for_each(|rank| self.supervision.close(rank));
    }

    /// Says of a silent worker on this host whether somebody stopped it; to be asked before the end.
    fn look_at_silent_worker(&mut self) {
        let Some((host, pid)) = self.supervision.silent_worker() else { return };
        if host != host_name() {
            return;
        }
        let Ok(pid) = i32::try_from(pid) else { return };
        let detail = match state_of(pid).map(|state| state.letter) {
            Some('T' | 't') => "the process is stopped: SIGSTOP or a debugger",
            Some('D') => "the process waits for a disk or a device",
            Some('Z') | None => "the process is gone",
            Some(_) => "the process runs",
        };
        self.supervision.explain(detail.into());
    }

    /// Takes what was said before everything ended.
    fn drain(&mut self) {
        let deadline = Instant::now() + AFTER_MPIRUN;
        while self.open_streams > 0 || self.supervision.any_connected() {
            let now = Instant::now();
            let Some(left) = deadline.checked_duration_since(now) else { return };
            match self.events.recv_timeout(left) {
                Ok(Event::Signal(_)) => {}
                Ok(event) => self.take(event, now),
                Err(_) => return,
            }
        }
    }
}
