//! The handle by which a caller asks the server to stop.

use std::sync::Arc;

use tokio::sync::watch;

/// Asks the server to stop. Clones ask the same server; any thread may.
#[derive(Debug, Clone)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Stop {
    /// Asks: no connection is taken any more, and the server ends when all that it has taken is answered.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Whether somebody has asked.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until somebody asks.
    pub async fn asked(&self) {
        // It cannot be closed while `self` holds the sender.
        let _ = self.0.subscribe().wait_for(|asked| *asked).await;
    }
}
