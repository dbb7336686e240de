//! The thread that owns the model: loads it, passes one batch for warming up, then answers until nobody can ask.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::batch::{Batch, Line};
use super::{Answer, BuildEngine, Health, Item, Kind, Submission};
use crate::Description;
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::refusal::Refusal;

pub(super) struct Thread {
    pub(super) description: Arc<Description>,
    pub(super) batch_wait: Duration,
    pub(super) metrics: Arc<Metrics>,
    pub(super) receiver: Receiver<Submission>,
    pub(super) health: watch::Sender<Health>,
}

/// Why a batch has no answers.
enum BatchError {
    /// The next batch may go through.
    Failed(String),
    /// The model's state is unknown: it is not asked again.
    Panicked(String),
}

impl Thread {
    pub(super) fn run(self, build: BuildEngine) {
        let began = Instant::now();
        let loaded = catch_unwind(AssertUnwindSafe(build))
            .unwrap_or_else(|panic| Err(line_of(&*panic)))
            .and_then(|mut engine| self.warm_up(&mut *engine).map(|()| engine));
        let mut engine = match loaded {
            Ok(engine) => engine,
            Err(error) => return self.fail(&mut Line::default(), error),
        };
        tracing::info!(seconds = began.elapsed().as_secs_f64(), "the model is ready");
        self.health.send_replace(Health::Ready);
        let mut line = Line::default();
        while self.gather(&mut line) {
            let Some(batch) = line.take(self.description.tile) else { continue };
            if let Err(error) = self.answer(&mut *engine, batch, &mut line) {
                return self.fail(&mut line, error);
            }
        }
    }

    /// One sample there and back, so that the first client does not wait for what is set up once.
    fn warm_up(&self, engine: &mut dyn Engine) -> Result<(), String> {
        let sample = vec![0; self.description.sample_bytes()];
        let items = [Item::Sample(sample.into())];
        let tokens = self.compute(engine, Kind::Encode, &items).map_err(BatchError::into_line)?;
        let items: Vec<Item> =
            tokens.into_iter().filter_map(Answer::into_tokens).map(Item::Tokens).collect();
        self.compute(engine, Kind::Decode, &items).map_err(BatchError::into_line)?;
        Ok(())
    }

    /// Waits until there is a batch to be computed; `false`: nobody can ask any more and all is answered.
    fn gather(&self, line: &mut Line) -> bool {
        loop {
            while let Ok(submission) = self.receiver.try_recv() {
                line.push(submission);
            }
            line.drop_gone();
            let Some(oldest) = line.oldest() else {
                match self.receiver.recv() {
                    Ok(submission) => line.push(submission),
                    Err(_) => return false,
                }
                continue;
            };
            let left = self.batch_wait.saturating_sub(oldest.elapsed());
            if left.is_zero() || line.num_ready() >= self.description.tile {
                return true;
            }
            match self.receiver.recv_timeout(left) {
                Ok(submission) => line.push(submission),
                // Who has stopped asking will not fill the batch.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return true,
            }
        }
    }

    /// Computes a batch and answers the requests that are complete with it; an error if the model cannot go on.
    fn answer(&self, engine: &mut dyn Engine, batch: Batch, line: &mut Line) -> Result<(), String> {
        for (submission, _) in &batch.parts {
            if submission.answers.is_empty() {
                self.metrics.queued(submission.arrived.elapsed());
            }
        }
        let began = Instant::now();
        let computed = self.compute(engine, batch.kind, &batch.items);
        let seconds = began.elapsed();
        self.metrics.batch(batch.kind, batch.items.len(), seconds);
        tracing::debug!(
            kind = batch.kind.label(),
            samples = batch.items.len(),
            ?seconds,
            "batch done"
        );
        let mut answers = match computed {
            Ok(answers) => answers.into_iter(),
            Err(error) => {
                let panicked = matches!(error, BatchError::Panicked(_));
                let error = error.into_line();
                let refusal = Refusal::failed(format!("the model has failed: {error}"));
                for (submission, _) in batch.parts {
                    let _ = submission.reply.send(Err(refusal.clone()));
                }
                return if panicked { Err(error) } else { Ok(()) };
            }
        };
        for (mut submission, count) in batch.parts {
            submission.answers.extend(answers.by_ref().take(count));
            if submission.items.is_empty() {
                // A client that has gone needs no answer.
                let _ = submission.reply.send(Ok(submission.answers));
            } else {
                line.push(submission);
            }
        }
        Ok(())
    }

    /// Asks the model, and holds its answers against its description.
    fn compute(
        &self,
        engine: &mut dyn Engine,
        kind: Kind,
        items: &[Item],
    ) -> Result<Vec<Answer>, BatchError> {
        let asked = catch_unwind(AssertUnwindSafe(|| ask(engine, kind, items)));
        let answers = match asked {
            Ok(answers) => answers.map_err(BatchError::Failed)?,
            Err(panic) => return Err(BatchError::Panicked(line_of(&*panic))),
        };
        let fits = |answer: &Answer| match answer {
            Answer::Sample(sample) => sample.len() == self.description.sample_bytes(),
            Answer::Tokens(tokens) => self.description.check_tokens(tokens).is_ok(),
        };
        if answers.len() != items.len() || !answers.iter().all(fits) {
            let problem = "its answers are not those of the described model";
            return Err(BatchError::Failed(problem.to_owned()));
        }
        Ok(answers)
    }

    /// Says that the model is gone, and answers all who wait for it.
    fn fail(&self, line: &mut Line, error: String) {
        let refusal = Refusal::failed(format!("the model has failed: {error}"));
        self.health.send_replace(Health::Failed(error));
        line.refuse(&refusal);
        while let Ok(submission) = self.receiver.try_recv() {
            let _ = submission.reply.send(Err(refusal.clone()));
        }
    }
}

impl BatchError {
    fn into_line(self) -> String {
        match self {
            Self::Failed(line) | Self::Panicked(line) => line,
        }
    }
}

fn ask(engine: &mut dyn Engine, kind: Kind, items: &[Item]) -> Result<Vec<Answer>, String> {
    match kind {
        Kind::Encode => {
            let mut samples = Vec::with_capacity(items.len());
            for item in items {
                if let Item::Sample(sample) = item {
                    samples.push(&**sample);
                }
            }
            Ok(engine.encode(&samples)?.into_iter().map(Answer::Tokens).collect())
        }
        Kind::Decode => {
            let mut tokens = Vec::with_capacity(items.len());
            for item in items {
                if let Item::Tokens(of_sample) = item {
                    tokens.push(of_sample.as_slice());
                }
            }
            Ok(engine.decode(&tokens)?.into_iter().map(Answer::Sample).collect())
        }
        Kind::Draw(drawing) => {
            let mut wanted = Vec::with_capacity(items.len());
            for item in items {
                if let Item::Wanted(one) = item {
                    wanted.push(*one);
                }
            }
            Ok(engine.draw(&drawing, &wanted)?.into_iter().map(Answer::Tokens).collect())
        }
    }
}

/// The first line of a panic's message.
fn line_of(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("panic without a message");
    text.lines().next().unwrap_or_default().to_owned()
}
