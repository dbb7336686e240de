//! A network between workers and their launcher that forgets connections: both sides see them reset.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

/// Time between two looks whether the network was cut.
const LOOK: Duration = Duration::from_millis(20);

/// A way to a launcher whose address stands in a file by then.
pub(super) struct Network {
    address: String,
    target: PathBuf,
    /// How often it was cut.
    cuts: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
}

impl Network {
    pub(super) fn to(target: PathBuf) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let (cuts, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let network = Self { address, target, cuts, ends };
        let (target, cuts, ends) =
            (network.target.clone(), Arc::clone(&network.cuts), Arc::clone(&network.ends));
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if ends.load(Ordering::Acquire) {
                    return;
                }
                // Whoever cannot be led on is hung up on, and tries again.
                let launcher = fs::read_to_string(&target).unwrap_or_default();
                let Ok(far) = TcpStream::connect(launcher.trim()) else { continue };
                let (near, far) = (Arc::new(near), Arc::new(far));
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to, cuts) = (Arc::clone(from), Arc::clone(to), Arc::clone(&cuts));
                    std::thread::spawn(move || pass(&from, &to, &cuts));
                }
            }
        });
        Ok(network)
    }

    /// Resets every connection.
    pub(super) fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::Release);
    }

    /// Makes `script` a worker that reaches its launcher through this network alone.
    pub(super) fn lead(&self, script: &Path, worker: &Path) -> io::Result<()> {
        let (target, address) = (self.target.display(), &self.address);
        let text = format!(
            "#!/bin/sh\nif [ \"$1\" = train ]; then\n  echo \"$TESSERA_CONTROL\" >'{target}'.$$ && mv '{target}'.$$ \
             '{target}'\n  export TESSERA_CONTROL={address}\nfi\nexec '{}' \"$@\"\n",
            worker.display()
        );
        fs::write(script, text)?;
        fs::set_permissions(script, Permissions::from_mode(0o755))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        let _ = TcpStream::connect(&self.address);
    }
}

/// Passes bytes on until the end, or until the network is cut.
fn pass(mut from: &TcpStream, mut to: &TcpStream, cuts: &AtomicU64) {
    let before = cuts.load(Ordering::Acquire);
    let _ = from.set_read_timeout(Some(LOOK));
    let mut bytes = [0; 4096];
    while cuts.load(Ordering::Acquire) == before {
        match from.read(&mut bytes) {
            Ok(0) => return drop(to.shutdown(Shutdown::Write)),
            Ok(read) => {
                if to.write_all(&bytes[..read]).is_err() {
                    return;
                }
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
            Err(_) => return,
        }
    }
    // The last of the two threads closes both, without a word.
    for stream in [from, to] {
        let _ = set_socket_linger(stream, Some(Duration::ZERO));
    }
}
