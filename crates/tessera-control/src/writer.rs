//! A thread that writes, so that whoever decides never waits for storage or for a terminal.
//!
//! What is handed over waits in a queue until the thread comes to it. A storage that stands still keeps the
//! thread and nobody else: the newest of a kind takes the place of an older one that was not begun, and lines
//! past a bound are counted instead of kept.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A thread and the queue before it; dropping it lets the thread end once the queue is empty.
#[derive(Debug)]
pub struct Writer<J> {
    shared: Arc<Shared<J>>,
    /// Jobs that may wait.
    most: usize,
    /// What stands for so many jobs that were left out.
    gap: fn(u64) -> J,
}

#[derive(Debug)]
struct Shared<J> {
    queue: Mutex<Queue<J>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Queue<J> {
    jobs: VecDeque<J>,
    /// Left out behind the last job.
    left_out: u64,
    /// Whether the thread is at one.
    is_busy: bool,
    is_closed: bool,
}

impl<J> Shared<J> {
    fn lock(&self) -> MutexGuard<'_, Queue<J>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J: Send + 'static> Writer<J> {
    /// Starts a thread of this name that does `write` with each job. `gap` makes the job that tells how many
    /// were left out, where more than `most` would wait.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub fn start(
        name: &str,
        most: usize,
        gap: fn(u64) -> J,
        write: impl FnMut(J) + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Queue { jobs: VecDeque::new(), left_out: 0, is_busy: false, is_closed: false };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name(name.into()).spawn(move || serve(&theirs, gap, write))?;
        Ok(Self { shared, most, gap })
    }

    /// Hands a job over, and never waits: where as many as may do wait already, it is only counted.
    pub fn put(&self, job: J) {
        let mut queue = self.shared.lock();
        if queue.jobs.len() >= self.most {
            queue.left_out += 1;
            return;
        }
        self.push(queue, job);
    }

    /// Hands over a job that takes the place of those that wait and are older ones of its kind; it is never
    /// left out.
    pub fn put_newest(&self, job: J, is_older: impl Fn(&J) -> bool) {
        let mut queue = self.shared.lock();
        queue.jobs.retain(|waiting| !is_older(waiting));
        self.push(queue, job);
    }

    fn push(&self, mut queue: MutexGuard<'_, Queue<J>>, job: J) {
        if queue.left_out > 0 {
            let left_out = std::mem::take(&mut queue.left_out);
            queue.jobs.push_back((self.gap)(left_out));
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Waits until all that was handed over is written, for so long at most; whether it is.
    pub fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut queue = self.shared.lock();
        while queue.is_busy || !queue.jobs.is_empty() || queue.left_out > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Jobs that wait, with the one that the thread is at.
    pub fn num_waiting(&self) -> usize {
        let queue = self.shared.lock();
        queue.jobs.len() + usize::from(queue.is_busy)
    }
}

impl<J> Drop for Writer<J> {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
    }
}

fn serve<J>(shared: &Shared<J>, gap: fn(u64) -> J, mut write: impl FnMut(J)) {
    let mut queue = shared.lock();
    loop {
        let next = match queue.jobs.pop_front() {
            None if queue.left_out > 0 => Some(gap(std::mem::take(&mut queue.left_out))),
            next => next,
        };
        match next {
            Some(job) => {
                queue.is_busy = true;
                drop(queue);
                write(job);
                queue = shared.lock();
                queue.is_busy = false;
                shared.changed.notify_all();
            }
            None if queue.is_closed => return,
            None => {
                queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn gap(left_out: u64) -> String {
        format!("{left_out} left out")
    }

    /// A writer that stands still at each job until it is told to go on, and what it was handed.
    fn standing_still(most: usize) -> (Writer<String>, Sender<()>, Receiver<String>) {
        let (go, goes) = channel::<()>();
        let (told, hears) = channel();
        let write = move |job: String| {
            let _ = told.send(job);
            let _ = goes.recv();
        };
        (Writer::start("test", most, gap, write).unwrap(), go, hears)
    }

    #[test]
    fn nobody_waits_for_a_storage_that_stands_still_and_the_newest_of_a_kind_is_kept() {
        let (writer, go, hears) = standing_still(9);
        writer.put("first".into());
        assert_eq!(hears.recv_timeout(PATIENCE).unwrap(), "first");
        for number in 1..=1000 {
            writer.put_newest(format!("workers {number}"), |job| job.starts_with("workers"));
        }
        writer.put("last".into());
        assert_eq!(writer.num_waiting(), 3, "one that is being written, and one of each kind");
        assert!(!writer.wait(Duration::from_millis(1)));
        drop(go);
        assert!(writer.wait(PATIENCE));
        assert_eq!(hears.try_iter().collect::<Vec<_>>(), ["workers 1000", "last"]);
    }

    #[test]
    fn lines_past_the_bound_are_counted_where_they_are_missing() {
        let (writer, go, hears) = standing_still(2);
        writer.put("a".into());
        assert_eq!(hears.recv_timeout(PATIENCE).unwrap(), "a");
        for line in ["b", "c", "d", "e"] {
            writer.put(line.into());
        }
        go.send(()).unwrap(); // "a" is written: there is room for one
        assert_eq!(hears.recv_timeout(PATIENCE).unwrap(), "b");
        writer.put("f".into());
        drop(go);
        assert!(writer.wait(PATIENCE));
        assert_eq!(hears.try_iter().collect::<Vec<_>>(), ["c", "2 left out", "f"]);
        for line in ["g", "h"] {
            writer.put(line.into());
        }
        assert!(writer.wait(PATIENCE));
    }

    #[test]
    fn what_was_handed_over_is_written_although_the_writer_is_dropped() {
        let (writer, go, hears) = standing_still(9);
        writer.put("a".into());
        writer.put("b".into());
        drop((writer, go));
        assert_eq!(hears.iter().collect::<Vec<_>>(), ["a", "b"]);
    }
}
