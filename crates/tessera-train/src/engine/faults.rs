//! Faults on purpose: what `tessera chaos` and the tests let go wrong in a worker.
//!
//! `TESSERA_FAULTS` holds any number of faults, with semicolons between them; each is a list such
//! as `rank=1,step=5,at=reduce,do=kill`. Nothing happens without that variable.
//!
//! | key | values |
//! |---|---|
//! | `rank` | the rank it is for; without it, every rank |
//! | `start` | which start of the workers it is for: 0, the first, without it; 1 after a restart by the launcher, and so on |
//! | `at` | `data`, `forward`, `backward`, `reduce`, `optimizer`, `checkpoint`: before that part of a step; or a file operation of a save: `folder`, `create`, `write`, `sync`, `rename`, `remove`, `save` (any of them); or `append`: of a row or an event |
//! | `step` | steps done before the step it happens in; of file operations: the first such step |
//! | `nth` | which operation, from 1; without it, every one |
//! | `times` | how many operations from there on |
//! | `do` | `kill`, `stop`, `exit`, `panic`, `segfault`, `slow` (by `ms` milliseconds, in every step from `step` on), `nan` (in the gradient), `skip` (the sum over ranks), `shape` (a shorter sum); of file operations also `enospc`, `eio`, `short` |

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Signal, getpid, kill_process};
use tessera_checkpoint::{Fate, Operation, Storage};
use tessera_comm::{Communicator, Reducer};

use crate::error::TrainError;

/// Environment variable with the faults.
const VARIABLE: &str = "TESSERA_FAULTS";
/// Exit code of `do=exit`.
const EXIT: i32 = 9;

/// A point of a step that a fault can be at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// Before the wait for a batch.
    Data,
    /// Before the forward pass.
    Forward,
    /// Before the backward pass.
    Backward,
    /// Before the sum over ranks.
    Reduce,
    /// Before AdamW.
    Optimizer,
    /// Before a save begins.
    Checkpoint,
}

/// What may become of the sum over ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SumFault {
    /// This rank leaves it out.
    Skip,
    /// This rank sums less.
    Shape,
    /// This rank's gradient holds a NaN.
    Nan,
}

impl SumFault {
    /// Sums over ranks as a rank with this fault does.
    pub(crate) fn sum(
        self,
        reducer: &mut Reducer,
        comm: &dyn Communicator,
    ) -> Result<(), TrainError> {
        match self {
            Self::Skip => {}
            Self::Shape => {
                let part = reducer.piece("gradients");
                let _ = comm.all_reduce(part.narrow(0, 0, part.size()[0] / 2))?.wait()?;
            }
            Self::Nan => {
                let _ = reducer.piece("gradients").narrow(0, 0, 1).fill_(f64::NAN);
                reducer.all_reduce(comm)?;
            }
        }
        Ok(())
    }
}

/// The faults of this process; none unless a test asks for them.
#[derive(Debug, Clone, Default)]
pub struct Faults(Vec<Arc<Fault>>);

#[derive(Debug)]
struct Fault {
    at: Place,
    step: u64,
    /// The first operation, from 1, and how many from there on.
    nth: u64,
    times: u64,
    deed: Deed,
    pause: Duration,
    /// Operations that it could have been at.
    met: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Point(Point),
    Storage(Option<Operation>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Kill,
    Stop,
    Exit,
    Panic,
    Segfault,
    Slow,
    Sum(SumFault),
    Enospc,
    Eio,
    Short,
}

impl Faults {
    /// Those of the environment for this rank.
    ///
    /// # Errors
    ///
    /// What is wrong with the variable.
    pub fn from_env(rank: usize) -> Result<Self, String> {
        let restarts = std::env::var(tessera_control::variables::RESTART);
        let start = restarts.ok().and_then(|number| number.parse().ok()).unwrap_or(0);
        match std::env::var(VARIABLE) {
            Ok(text) => {
                let faults = Self::parse(&text, rank, start);
                faults.map_err(|problem| format!("environment variable {VARIABLE} {problem}"))
            }
            _ => Ok(Self::default()),
        }
    }

    fn parse(text: &str, rank: usize, start: u64) -> Result<Self, String> {
        let mut faults = Vec::new();
        for text in text.split(';').map(str::trim).filter(|text| !text.is_empty()) {
            if let Some(fault) = Fault::parse(text, rank, start)? {
                faults.push(Arc::new(fault));
            }
        }
        Ok(Self(faults))
    }

    /// Lets happen what is to happen at a point.
    pub(crate) fn reach(&self, point: Point, step: u64) {
        for fault in &self.0 {
            let slow = fault.deed == Deed::Slow;
            let due = if slow { step >= fault.step } else { step == fault.step };
            if fault.at == Place::Point(point) && due {
                fault.happen();
            }
        }
    }

    /// What is to become of this rank's sum in this step.
    pub(crate) fn of_sum(&self, step: u64) -> Option<SumFault> {
        self.0.iter().find_map(|fault| match fault.deed {
            Deed::Sum(deed) if fault.step == step => Some(deed),
            _ => None,
        })
    }

    /// The file system that saves meet.
    pub(crate) fn storage(&self) -> Storage {
        self.storage_of(|operation| operation != Some(Operation::Append))
    }

    /// The file system that rows and events meet.
    pub(crate) fn rows(&self) -> Storage {
        self.storage_of(|operation| operation == Some(Operation::Append))
    }

    fn storage_of(&self, is_meant: fn(Option<Operation>) -> bool) -> Storage {
        let is_meant = |fault: &&Arc<Fault>| match fault.at {
            Place::Storage(operation) => is_meant(operation),
            Place::Point(_) => false,
        };
        let faults: Vec<Arc<Fault>> = self.0.iter().filter(is_meant).cloned().collect();
        if faults.is_empty() {
            return Storage::new();
        }
        Storage::judged(move |operation, path| {
            let judged = faults.iter().map(|fault| fault.judge(operation, path));
            judged.into_iter().find(|fate| !matches!(fate, Fate::Done)).unwrap_or(Fate::Done)
        })
    }
}

impl Fault {
    fn parse(text: &str, rank: usize, start: u64) -> Result<Option<Self>, String> {
        let (mut at, mut deed) = (None, None);
        let (mut step, mut nth, mut pause, mut mine) = (0, None, Duration::from_millis(200), true);
        let (mut wanted, mut times) = (0, None);
        for pair in text.split(',') {
            let (key, value) =
                pair.trim().split_once('=').ok_or(format!("has {pair:?}, not KEY=VALUE"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("has {pair:?}, no number"));
            match key {
                "rank" => mine = number()? == rank as u64,
                "start" => wanted = number()?,
                "step" => step = number()?,
                "nth" => nth = Some(number()?),
                "times" => times = Some(number()?),
                "ms" => pause = Duration::from_millis(number()?),
                "at" => at = Some(place(value).ok_or(format!("knows no place {value:?}"))?),
                "do" => deed = Some(self::deed(value).ok_or(format!("knows no deed {value:?}"))?),
                _ => return Err(format!("knows no key {key:?}")),
            }
        }
        let deed = deed.ok_or("needs do=")?;
        let at = at.or(matches!(deed, Deed::Sum(_)).then_some(Place::Point(Point::Reduce)));
        let at = at.ok_or("needs at=")?;
        let met = AtomicU64::new(0);
        let times = times.unwrap_or(if nth.is_some() { 1 } else { u64::MAX });
        let nth = nth.unwrap_or(1);
        Ok((mine && wanted == start).then_some(Self { at, step, nth, times, deed, pause, met }))
    }

    fn judge(&self, operation: Operation, path: &Path) -> Fate {
        let Place::Storage(wanted) = self.at else { return Fate::Done };
        if wanted.is_some_and(|wanted| wanted != operation) || step_of(path) < self.step {
            return Fate::Done;
        }
        let number = self.met.fetch_add(1, Ordering::Relaxed) + 1;
        if number < self.nth || number - self.nth >= self.times {
            return Fate::Done;
        }
        match self.deed {
            Deed::Enospc => Fate::Failed(io::Error::from_raw_os_error(28)),
            Deed::Eio => Fate::Failed(io::Error::from_raw_os_error(5)),
            Deed::Short => Fate::Short,
            _ => {
                self.happen();
                Fate::Done
            }
        }
    }

    fn happen(&self) {
        if self.deed != Deed::Slow {
            // For whoever measures how long it takes until the fault is seen.
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            let seconds = since.map_or(0.0, |since| since.as_secs_f64());
            // At once: a thread that writes for this process may not live to see it.
            let _ = writeln!(io::stderr().lock(), "fault on purpose at {seconds:.3}");
        }
        let signal = |signal| {
            let _ = kill_process(getpid(), signal);
        };
        match self.deed {
            Deed::Kill => signal(Signal::KILL),
            Deed::Stop => signal(Signal::STOP),
            Deed::Exit => tessera_comm::exit_now(EXIT),
            Deed::Panic => panic!("a fault on purpose"),
            Deed::Segfault => {
                // The first one meets the handler of the standard library, which lets the next
                // one through.
                signal(Signal::SEGV);
                signal(Signal::SEGV);
            }
            Deed::Slow => std::thread::sleep(self.pause),
            Deed::Sum(_) | Deed::Enospc | Deed::Eio | Deed::Short => {}
        }
    }
}

fn place(name: &str) -> Option<Place> {
    Some(match name {
        "data" => Place::Point(Point::Data),
        "forward" => Place::Point(Point::Forward),
        "backward" => Place::Point(Point::Backward),
        "reduce" => Place::Point(Point::Reduce),
        "optimizer" => Place::Point(Point::Optimizer),
        "checkpoint" => Place::Point(Point::Checkpoint),
        "save" => Place::Storage(None),
        "folder" => Place::Storage(Some(Operation::MakeFolder)),
        "create" => Place::Storage(Some(Operation::Create)),
        "write" => Place::Storage(Some(Operation::Write)),
        "sync" => Place::Storage(Some(Operation::Sync)),
        "rename" => Place::Storage(Some(Operation::Rename)),
        "remove" => Place::Storage(Some(Operation::Remove)),
        "append" => Place::Storage(Some(Operation::Append)),
        _ => return None,
    })
}

fn deed(name: &str) -> Option<Deed> {
    Some(match name {
        "kill" => Deed::Kill,
        "stop" => Deed::Stop,
        "exit" => Deed::Exit,
        "panic" => Deed::Panic,
        "segfault" => Deed::Segfault,
        "slow" => Deed::Slow,
        "nan" => Deed::Sum(SumFault::Nan),
        "skip" => Deed::Sum(SumFault::Skip),
        "shape" => Deed::Sum(SumFault::Shape),
        "enospc" => Deed::Enospc,
        "eio" => Deed::Eio,
        "short" => Deed::Short,
        _ => return None,
    })
}

/// The step of the checkpoint that a path lies in; those outside of any belong to every step.
fn step_of(path: &Path) -> u64 {
    let step = |name: &str| {
        let digits = name.strip_prefix('.').unwrap_or(name).strip_prefix("step-")?;
        digits.split('.').next()?.parse().ok()
    };
    let names = path.components().filter_map(|part| part.as_os_str().to_str());
    names.filter_map(step).next_back().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_for_their_rank() {
        let text = "rank=1,step=5,at=reduce,do=kill; at=write,nth=2,step=30,do=enospc";
        assert_eq!(Faults::parse(text, 0, 0).unwrap().0.len(), 1);
        assert_eq!(Faults::parse(text, 1, 0).unwrap().0.len(), 2);
        assert_eq!(Faults::parse("start=2,at=data,do=kill", 0, 2).unwrap().0.len(), 1);
        assert_eq!(Faults::parse("start=2,at=data,do=kill", 0, 0).unwrap().0.len(), 0);
        for bad in ["at=reduce", "do=kill", "at=moon,do=kill", "rank=x,do=nan", "nonsense"] {
            assert!(Faults::parse(bad, 0, 0).is_err(), "{bad}");
        }
        let sum = Faults::parse("rank=0,step=3,do=skip", 0, 0).unwrap();
        assert_eq!((sum.of_sum(3), sum.of_sum(4)), (Some(SumFault::Skip), None));
    }

    #[test]
    fn the_nth_write_from_a_step_on_fails() {
        let faults = Faults::parse("at=write,nth=2,step=30,do=eio", 0, 0).unwrap();
        let fault = &faults.0[0];
        let judge = |operation, path: &str| {
            matches!(fault.judge(operation, Path::new(path)), Fate::Failed(_))
        };
        let (early, late) = ("c/.step-00000020.partial/a", "c/.step-00000030.partial/a");
        let writes = [early, early, late, late, late].map(|path| judge(Operation::Write, path));
        assert_eq!(writes, [false, false, false, true, false]);
        assert!(!judge(Operation::Sync, late));
    }

    #[test]
    fn so_many_rows_from_the_nth_on_fail_and_no_save() {
        let faults = Faults::parse("at=append,nth=2,times=2,do=eio; at=save,do=short", 0, 0);
        let fault = &faults.unwrap().0[0];
        let rows = [(); 4].map(|()| {
            matches!(fault.judge(Operation::Append, Path::new("metrics.jsonl")), Fate::Failed(_))
        });
        assert_eq!(rows, [false, true, true, false]);
        assert!(matches!(fault.judge(Operation::Write, Path::new("a")), Fate::Done));
    }
}
