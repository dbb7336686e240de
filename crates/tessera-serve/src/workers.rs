//! A few threads that read and write files, so that the threads that talk to clients never compute for long.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::refusal::Refusal;

/// A few threads that compute. Tokio's own pool would grow to hundreds.
#[derive(Debug, Clone)]
pub(crate) struct Workers {
    free: Arc<Semaphore>,
}

impl Workers {
    pub(crate) fn new(num_threads: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(num_threads)) }
    }

    /// Computes on one of the threads, after those who came before. Whoever stops waiting before its turn costs nothing.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        compute: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = Arc::clone(&self.free).acquire_owned().await.expect("it is never closed");
        // The thread holds the permit: work cannot be stopped when its client goes.
        let work = move || {
            let _permit = permit;
            compute()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| Refusal::failed("reading or writing the file failed"))
    }
}
