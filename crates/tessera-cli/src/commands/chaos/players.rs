//! The hidden command that stands in for mpirun and all its ranks: one process that speaks for thousands.
//!
//! It plays what the launcher sees of them, which is the control connection and mpirun's own end, after a
//! scenario that [`super::simulate`] has left in a folder. Nothing here trains.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tessera_control::{
    Call, ExitCode, Message, Numbered, Phase, Reply, proof, variables, write_result,
};

use crate::failure::Failure;

/// Name of the hidden command: `tessera __play FOLDER MPIRUN'S ARGUMENTS...`.
pub(crate) const PLAYERS: &str = "__play";

/// Threads that say hello side by side.
const KNOCKING: usize = 8;
/// Time between two heartbeats of a rank.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Ranks of one host.
pub(super) const RANKS_A_HOST: usize = 8;

/// The scenario's folder, and what mpirun would be told.
#[derive(Debug, Args)]
pub(crate) struct PlayArgs {
    /// Folder with `scenario.json`, into which `events.jsonl` is written.
    folder: PathBuf,
    /// Arguments of mpirun.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

/// What happens to the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum What {
    /// Nothing: they end well.
    Start,
    /// One is killed.
    Death,
    /// One host is cut off.
    SilentHost,
    /// One is killed in every attempt but the last.
    Restarts,
}

/// What is played.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Scenario {
    pub(super) what: What,
    /// How long all live side by side before it happens.
    pub(super) hold_seconds: f64,
    /// How often the launcher starts them again.
    pub(super) restarts: u32,
}

impl Scenario {
    /// The rank to which it happens, or the first of its host.
    pub(super) fn victim(self, world_size: usize) -> usize {
        let two_thirds = world_size * 2 / 3;
        if self.what == What::SilentHost {
            two_thirds / RANKS_A_HOST * RANKS_A_HOST
        } else {
            two_thirds
        }
    }
}

/// Something that has happened, for whoever takes the time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Happened {
    /// `begun`, `here` (all ranks are welcome), `fault`.
    pub(super) what: String,
    /// How often they had been started before.
    pub(super) restart: u32,
    /// When, in seconds since 1970.
    pub(super) unix_seconds: f64,
}

pub(super) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Plays.
pub(crate) fn run(args: &PlayArgs) -> Result<ExitCode, Failure> {
    if args.rest.first().is_some_and(|first| first == "--version") {
        write_result("mpirun (Open MPI) 4.1.4\n")?;
        return Ok(ExitCode::Done);
    }
    play(&args.folder).map_err(|problem| Failure::new(ExitCode::Failed, problem))
}

fn play(folder: &Path) -> Result<ExitCode, String> {
    let text = std::fs::read(folder.join("scenario.json")).map_err(|error| error.to_string())?;
    let scenario: Scenario = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let note = |what: &str| note(folder, what);
    note("begun")?;
    let of_env = |name: &str| std::env::var(name).map_err(|error| format!("{name}: {error}"));
    let world_size: usize =
        of_env(variables::WORLD_SIZE)?.parse().map_err(|_| "no world size".to_owned())?;
    let launch = Launch {
        address: of_env(variables::CONTROL)?.parse().map_err(|_| "no address".to_owned())?,
        secret: of_env(variables::CONTROL_TOKEN)?,
        attempt: of_env(variables::ATTEMPT)?,
        world_size,
    };
    let mut ranks = launch.all()?;
    note("here")?;
    let is_last = restart() >= scenario.restarts;
    let what = if scenario.what == What::Restarts && is_last { What::Start } else { scenario.what };
    let mut step = 0;
    let hold = Duration::from_secs_f64(scenario.hold_seconds);
    beat(&mut ranks, |_| true, &mut step, Some(hold));
    let victim = scenario.victim(world_size);
    match what {
        What::Start => {
            let message =
                || Message::Outcome { code: ExitCode::Done, message: "played".into(), step };
            ranks.iter_mut().for_each(|rank| rank.say(Some(1), message()));
            Ok(ExitCode::Done)
        }
        What::Death | What::Restarts => {
            note("fault")?;
            drop(ranks.remove(victim));
            let (line, pid) = ("-".repeat(74), 1000 + victim);
            let words = format!(
                "{line}\nmpirun noticed that process rank {victim} with PID {pid} on node sim exited on signal 9 \
                 (Killed).\n{line}\n"
            );
            let _ = std::io::stderr().write_all(words.as_bytes());
            // So long mpirun takes to end the others.
            beat(&mut ranks, |_| true, &mut step, Some(Duration::from_millis(200)));
            Ok(ExitCode::Failed)
        }
        What::SilentHost => {
            note("fault")?;
            let is_up = |rank| !(victim..victim + RANKS_A_HOST).contains(&rank);
            beat(&mut ranks, is_up, &mut step, None); // until the launcher ends it
            Ok(ExitCode::Failed)
        }
    }
}

fn restart() -> u32 {
    std::env::var(variables::RESTART).ok().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn note(folder: &Path, what: &str) -> Result<(), String> {
    let happened =
        Happened { what: what.to_owned(), restart: restart(), unix_seconds: unix_seconds() };
    let line = serde_json::to_string(&happened).expect("plain data") + "\n";
    let path = folder.join("events.jsonl");
    let file = std::fs::File::options().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(|error| error.to_string())
}

/// Lets these ranks speak each second, and hear what they are told.
fn beat(ranks: &mut [Rank], who: impl Fn(usize) -> bool, step: &mut u64, hold: Option<Duration>) {
    let begun = Instant::now();
    let mut next = begun;
    loop {
        *step += 1;
        next += HEARTBEAT;
        for rank in ranks.iter_mut().filter(|rank| who(rank.rank)) {
            rank.beat(*step);
        }
        let end = hold.map_or(next, |hold| begun + hold);
        std::thread::sleep(next.min(end).saturating_duration_since(Instant::now()));
        if hold.is_some_and(|hold| begun.elapsed() >= hold) {
            return;
        }
    }
}

/// What the launcher has told its workers.
struct Launch {
    address: SocketAddr,
    secret: String,
    attempt: String,
    world_size: usize,
}

struct Rank {
    rank: usize,
    stream: TcpStream,
}

impl Launch {
    /// All ranks, each of which was taken.
    fn all(&self) -> Result<Vec<Rank>, String> {
        let some = |first: usize| -> Result<Vec<Rank>, String> {
            let (mut met, mut next_beat) = (Vec::new(), Instant::now() + HEARTBEAT);
            for rank in (first..self.world_size).step_by(KNOCKING) {
                let met_now = self.meet(rank);
                met.push(met_now.map_err(|error| format!("rank {rank} was not taken: {error}"))?);
                // Those that are here do not wait for the others with their heartbeats.
                if Instant::now() >= next_beat {
                    next_beat += HEARTBEAT;
                    met.iter_mut().for_each(|rank: &mut Rank| rank.beat(0));
                }
            }
            Ok(met)
        };
        let mut all = std::thread::scope(|scope| {
            let some = &some;
            let threads: Vec<_> =
                (0..KNOCKING).map(|first| scope.spawn(move || some(first))).collect();
            let met = threads.into_iter().map(|thread| thread.join().expect("no thread panics"));
            met.collect::<Result<Vec<_>, _>>()
        })?;
        let mut all: Vec<Rank> = all.drain(..).flatten().collect();
        all.sort_by_key(|rank| rank.rank);
        Ok(all)
    }

    fn meet(&self, rank: usize) -> std::io::Result<Rank> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut next = || -> std::io::Result<Reply> {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            Ok(serde_json::from_str(&line)?)
        };
        let Reply::Challenge { challenge } = next()? else {
            return Err(std::io::Error::other("no challenge"));
        };
        let (attempt, world_size) = (self.attempt.clone(), self.world_size);
        let proof = proof(&self.secret, &challenge, &attempt, rank);
        let host = host_of(rank);
        let pid = u32::try_from(1000 + rank).map_err(std::io::Error::other)?;
        let (token, attempt) = (String::new(), Some(attempt));
        write_line(
            &mut stream,
            &Message::Hello { token, proof, attempt, rank, world_size, host, pid },
        )?;
        match next()? {
            Reply::Welcome { .. } => {}
            other => return Err(std::io::Error::other(format!("told {other:?}"))),
        }
        stream.set_nonblocking(true)?;
        Ok(Rank { rank, stream })
    }
}

/// The host of a rank.
pub(super) fn host_of(rank: usize) -> String {
    format!("sim{}", rank / RANKS_A_HOST)
}

impl Rank {
    fn beat(&mut self, step: u64) {
        let (op, kind) = ("all_reduce".to_owned(), "f32".to_owned());
        let waited_ms = 10 * step;
        let call = Call { op, sequence: step, count: 1, kind, waiting: false, waited_ms };
        self.say(
            None,
            Message::Heartbeat { phase: Phase::Compute, step, part: 0, call: Some(call) },
        );
        let mut told = [0; 1024];
        while matches!(self.stream.read(&mut told), Ok(1..)) {}
    }

    fn say(&mut self, number: Option<u64>, message: Message) {
        // A launcher that is gone ends this process.
        let _ = write_line(&mut self.stream, &Numbered { number, message });
    }
}

fn write_line(stream: &mut TcpStream, message: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}
