//! Starts a server with the stand-in, which can be held, made to fail, and asked what it saw.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tessera_serve::{Drawing, Engine, Modality, Options, ServeError, Service, Stop, Wanted};

use crate::client::{Answer, Client};
use crate::engine::{StandIn, describe};
use crate::media::Files;

/// Seed of samples that cannot be drawn.
pub(crate) const FAILING_SEED: u64 = 666;
/// Seed of samples that make the model panic.
pub(crate) const PANICKING_SEED: u64 = 777;
/// A hang is a failure: far above what anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Holds the model in front of its next batch, as long as it is on.
#[derive(Clone, Default)]
pub(crate) struct Brake(Arc<(Mutex<bool>, Condvar)>);

impl Brake {
    pub(crate) fn set(&self, is_on: bool) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = is_on;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let mut is_on = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *is_on {
            is_on = self.0.1.wait(is_on).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

struct Held {
    stand_in: StandIn,
    brake: Brake,
    batch_sizes: Arc<Mutex<Vec<usize>>>,
}

impl Held {
    fn see(&self, num_samples: usize) {
        self.batch_sizes.lock().unwrap().push(num_samples);
        self.brake.wait();
    }
}

impl Engine for Held {
    fn encode(&mut self, samples: &[&[u8]]) -> Result<Vec<Vec<u32>>, String> {
        self.see(samples.len());
        self.stand_in.encode(samples)
    }

    fn decode(&mut self, tokens: &[&[u32]]) -> Result<Vec<Vec<u8>>, String> {
        self.see(tokens.len());
        self.stand_in.decode(tokens)
    }

    fn draw(&mut self, drawing: &Drawing, wanted: &[Wanted]) -> Result<Vec<Vec<u32>>, String> {
        self.see(wanted.len());
        assert!(wanted.iter().all(|one| one.seed != PANICKING_SEED), "this seed panics");
        if wanted.iter().any(|one| one.seed == FAILING_SEED) {
            return Err("this seed fails".to_owned());
        }
        self.stand_in.draw(drawing, wanted)
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) stop: Stop,
    pub(crate) brake: Brake,
    pub(crate) batch_sizes: Arc<Mutex<Vec<usize>>>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Server {
    /// A server of pictures whose model is ready.
    pub(crate) fn start(options: Options) -> Self {
        Self::of(Modality::Picture, options)
    }

    pub(crate) fn of(modality: Modality, options: Options) -> Self {
        let server = Self::loading(modality, options, Brake::default());
        server.wait_until(|server| server.get("/v2/health/ready").status == 200);
        server.batch_sizes.lock().unwrap().clear();
        server
    }

    /// A server whose model may still be held in its first batch.
    pub(crate) fn loading(modality: Modality, options: Options, brake: Brake) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let batch_sizes = Arc::<Mutex<Vec<usize>>>::default();
        let held = Held {
            stand_in: StandIn { modality },
            brake: brake.clone(),
            batch_sizes: Arc::clone(&batch_sizes),
        };
        let service = Service {
            description: describe(modality),
            engine: Box::new(move || Ok(Box::new(held))),
            media: Arc::new(Files { modality }),
            options,
        };
        let stop = Stop::default();
        let asked = stop.clone();
        let thread = std::thread::spawn(move || tessera_serve::run(listener, service, asked));
        Self { address, stop, brake, batch_sizes, thread: Some(thread) }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.client().ask("GET", path, &[("Connection", "close")], b"")
    }

    pub(crate) fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        let headers = [("Content-Type", content_type), ("Connection", "close")];
        self.client().ask("POST", path, &headers, body)
    }

    /// A figure without labels.
    pub(crate) fn figure(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    /// Waits for something that has to come, however long it takes on a busy machine.
    pub(crate) fn wait_until(&self, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "it did not come");
            std::thread::yield_now();
        }
    }

    /// Stops and tells how the server ended.
    pub(crate) fn end(mut self) -> Result<(), ServeError> {
        self.stop.stop();
        self.thread.take().unwrap().join().unwrap()
    }

    /// How a server ends by itself.
    pub(crate) fn wait(mut self) -> Result<(), ServeError> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.brake.set(false);
        self.stop.stop();
        let Some(thread) = self.thread.take() else { return };
        let ended = thread.join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// Options under which a test does not wait for idle connections.
pub(crate) fn options() -> Options {
    Options { linger: Duration::ZERO, ..Options::default() }
}

/// A sample of the pictures' shape, different for each number.
pub(crate) fn sample(number: usize) -> Vec<u8> {
    (0..8 * 8 * 3).map(|at| (at * 7 + number * 13) as u8).collect()
}

/// A picture as PNG.
pub(crate) fn png(height: usize, width: usize) -> Vec<u8> {
    let pixels: Vec<u8> = (0..height * width * 3).map(|at| (at * 5) as u8).collect();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    file
}

/// A request of the KServe protocol with a binary tensor behind its JSON: the body and the length of the JSON.
pub(crate) fn binary_request(
    name: &str,
    datatype: &str,
    shape: &[usize],
    values: &[u8],
) -> (Vec<u8>, String) {
    let head = serde_json::json!({
        "id": "7",
        "parameters": { "binary_data_output": true },
        "inputs": [{
            "name": name,
            "datatype": datatype,
            "shape": shape,
            "parameters": { "binary_data_size": values.len() },
        }],
    });
    let mut body = serde_json::to_vec(&head).unwrap();
    let length = body.len().to_string();
    body.extend_from_slice(values);
    (body, length)
}
