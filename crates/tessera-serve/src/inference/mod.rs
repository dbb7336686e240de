//! The way to the one thread that owns the model: a bounded queue in, an answer for each request out.
//!
//! Requests hand in samples; the thread ([`thread`]) puts samples of several requests into one batch ([`batch`]). What
//! waits is bounded in samples, not in requests: the queue refuses at once what does not fit. Nothing here computes.

pub(crate) mod batch;
mod thread;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Instant;

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::engine::{Drawing, Engine, Wanted};
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::{Description, Options, ServeError};

/// Builds the model, on the thread that will own it.
pub type BuildEngine = Box<dyn FnOnce() -> Result<Box<dyn Engine>, String> + Send>;

/// How the model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// It is being loaded, or its first batch has not gone through.
    Loading,
    /// It answers.
    Ready,
    /// It will not answer any more; the line says why.
    Failed(String),
}

/// What is asked of the model; only requests of the same kind share a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Encode,
    Decode,
    Draw(Drawing),
}

impl Kind {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::Decode => "decode",
            Self::Draw(_) => "draw",
        }
    }
}

/// What one answer is computed from.
#[derive(Debug)]
pub(crate) enum Item {
    Sample(Bytes),
    Tokens(Vec<u32>),
    Wanted(Wanted),
}

/// What is computed from one [`Item`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Sample(Vec<u8>),
    Tokens(Vec<u32>),
}

/// One request on its way through the thread.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) kind: Kind,
    /// What has not been computed yet.
    pub(crate) items: VecDeque<Item>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) reply: oneshot::Sender<Result<Vec<Answer>, Refusal>>,
    pub(crate) arrived: Instant,
    /// Its share of the queue, given back when it is dropped.
    pub(crate) _permit: Option<OwnedSemaphorePermit>,
}

/// The requests' side of the queue. The thread ends when the last of these is dropped and all is answered.
pub(crate) struct Inference {
    sender: Sender<Submission>,
    free_samples: Arc<Semaphore>,
    queue_samples: usize,
    request_samples: usize,
    health: watch::Receiver<Health>,
}

/// Resolves when the thread has ended.
pub(crate) type Ended = oneshot::Receiver<()>;

impl Inference {
    /// Starts the thread, which loads the model.
    ///
    /// # Errors
    ///
    /// [`ServeError::System`] if there is no thread to be had.
    pub(crate) fn start(
        description: &Arc<Description>,
        options: &Options,
        metrics: &Arc<Metrics>,
        build: BuildEngine,
    ) -> Result<(Self, Ended), ServeError> {
        let (sender, receiver) = mpsc::channel();
        let (tell, health) = watch::channel(Health::Loading);
        let (end, ended) = oneshot::channel();
        let thread = thread::Thread {
            description: Arc::clone(description),
            batch_wait: options.batch_wait,
            metrics: Arc::clone(metrics),
            receiver,
            health: tell,
        };
        std::thread::Builder::new()
            .name("inference".to_owned())
            .spawn(move || {
                thread.run(build);
                drop(end);
            })
            .map_err(ServeError::system("start the inference thread"))?;
        let free_samples = Arc::new(Semaphore::new(options.queue_samples));
        let Options { queue_samples, request_samples, .. } = *options;
        Ok((Self { sender, free_samples, queue_samples, request_samples, health }, ended))
    }

    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Samples that wait or are computed.
    pub(crate) fn num_queued(&self) -> usize {
        self.queue_samples - self.free_samples.available_permits()
    }

    /// Refuses a request of more samples than one may have.
    pub(crate) fn check_count(&self, num_samples: usize) -> Result<(), Refusal> {
        if num_samples > self.request_samples {
            let most = self.request_samples;
            return Err(Refusal::too_large(format!(
                "expected at most {most} samples in a request, got {num_samples}"
            )));
        }
        Ok(())
    }

    pub(crate) async fn encode(&self, samples: Vec<Bytes>) -> Result<Vec<Vec<u32>>, Refusal> {
        let items = samples.into_iter().map(Item::Sample).collect();
        Ok(into_tokens(self.submit(Kind::Encode, items).await?))
    }

    pub(crate) async fn decode(&self, tokens: Vec<Vec<u32>>) -> Result<Vec<Vec<u8>>, Refusal> {
        let items = tokens.into_iter().map(Item::Tokens).collect();
        let answers = self.submit(Kind::Decode, items).await?;
        Ok(answers.into_iter().filter_map(Answer::into_sample).collect())
    }

    pub(crate) async fn draw(
        &self,
        drawing: Drawing,
        wanted: Vec<Wanted>,
    ) -> Result<Vec<Vec<u32>>, Refusal> {
        let items = wanted.into_iter().map(Item::Wanted).collect();
        Ok(into_tokens(self.submit(Kind::Draw(drawing), items).await?))
    }

    /// Waits for the answers of a request whose count was checked, by [`Self::check_count`].
    async fn submit(&self, kind: Kind, items: VecDeque<Item>) -> Result<Vec<Answer>, Refusal> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let num = u32::try_from(items.len()).expect("a request's samples are fewer than permits");
        let permit = Arc::clone(&self.free_samples)
            .try_acquire_many_owned(num)
            .map_err(|_| Refusal::busy("the queue is full: try again"))?;
        let (reply, answer) = oneshot::channel();
        let submission = Submission {
            kind,
            answers: Vec::with_capacity(items.len()),
            items,
            reply,
            arrived: Instant::now(),
            _permit: Some(permit),
        };
        let gone = || Refusal::failed("the model has failed");
        self.sender.send(submission).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn into_tokens(answers: Vec<Answer>) -> Vec<Vec<u32>> {
    answers.into_iter().filter_map(Answer::into_tokens).collect()
}

impl Answer {
    fn into_sample(self) -> Option<Vec<u8>> {
        match self {
            Self::Sample(sample) => Some(sample),
            Self::Tokens(_) => None,
        }
    }

    fn into_tokens(self) -> Option<Vec<u32>> {
        match self {
            Self::Tokens(tokens) => Some(tokens),
            Self::Sample(_) => None,
        }
    }
}
