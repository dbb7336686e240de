//! Parts of a step alone, timed: the quantiser, the product of matrices inside it, and a sum over
//! ranks, which is also checked.

use std::time::{Duration, Instant};

use serde::Serialize;
use tch::{Kind, Tensor};
use tessera_comm::{Communicator, RankDevice};
use tessera_data::{Loader, Order, train_plan};
use tessera_nn::Kinds;
use tessera_nn::parameters::Declarations;
use tessera_nn::quantize::{
    Place, Quantized, Quantizer, Slot, Sums, VectorConfig, VectorQuantizer, nearest_code,
};
use tessera_nn::random::{Purpose, draws};

use crate::config::TrainConfig;
use crate::error::TrainError;

/// Longest wait for one call.
const DEADLINE: Duration = Duration::from_secs(600);

/// What to time, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Calls {
    /// Calls before the first that counts.
    pub warmup: usize,
    /// Calls that count, at least 1.
    pub calls: usize,
}

/// Size of a quantiser's call.
#[derive(Debug, Clone, Copy)]
pub struct QuantizerSize {
    /// N, latents.
    pub num_latents: i64,
    /// K, codes.
    pub num_codes: i64,
    /// D, channels of a code.
    pub code_dim: i64,
}

/// Figures of reading batches into memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataFigures {
    /// Samples of a batch on this rank.
    pub batch: u64,
    /// Batches that count.
    pub batches: u64,
    /// Bytes of a sample.
    pub sample_bytes: usize,
    /// Seconds from the call until the data set was open.
    pub open_s: f64,
    /// Seconds from the call until the first batch was there.
    pub first_batch_s: f64,
    /// Samples a second on this rank after the first batch.
    pub samples_per_second: f64,
}

/// Reads batches as a training run would, and does nothing with them.
///
/// # Errors
///
/// [`TrainError::Data`] if the data set cannot be opened or read.
pub fn data(
    comm: &dyn Communicator,
    config: &TrainConfig,
    batches: u64,
) -> Result<DataFigures, TrainError> {
    let start = Instant::now();
    let source = tessera_data::source::open(&config.data, "train")?;
    let open_s = start.elapsed().as_secs_f64();
    let (global, rank, world_size) = (config.train.global_batch, comm.rank(), comm.world_size());
    let sample_bytes = source.shape().num_bytes();
    let order = Order::Shuffled(source.sampler(&config.data.shuffling(), config.seed));
    let plan = train_plan(0, batches + 1, global, rank, world_size);
    let mut loader = Loader::new(source, order, plan, config.data.load_options())?;
    let (mut first_batch_s, mut num_samples, mut batch_size) = (0.0, 0, 0);
    let mut from = start;
    while let Some(batch) = loader.next() {
        let batch = batch?;
        batch_size = batch_size.max(batch.num_samples() as u64);
        if batch.step == 0 {
            from = Instant::now();
            first_batch_s = start.elapsed().as_secs_f64();
        } else {
            num_samples += batch.num_samples();
        }
        loader.recycle(batch);
    }
    let samples_per_second = num_samples as f64 / from.elapsed().as_secs_f64();
    Ok(DataFigures {
        batch: batch_size,
        batches,
        sample_bytes,
        open_s,
        first_batch_s,
        samples_per_second,
    })
}

/// Figures of the quantiser alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantizerFigures {
    /// Where it ran.
    pub device: String,
    /// N, latents of a call.
    pub n: i64,
    /// K, codes.
    pub codes: i64,
    /// D, channels of a code.
    pub dim: i64,
    /// Median seconds of a training call: codes, statistics, gradient, update of the codebook.
    pub median_s: f64,
    /// Median seconds of the nearest codes alone.
    pub nearest_s: f64,
    /// Median seconds of the product [N, D] x [D, K] in tiles of at most 2^26 numbers.
    pub gemm_s: f64,
    /// Bytes of the GPU that calls have taken beyond latents and codebook; none on the CPU.
    pub peak_bytes: Option<u64>,
}

/// Figures of sums over ranks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AllReduceFigures {
    /// Where it ran.
    pub device: String,
    /// What carried the tensors: "MPI", or NCCL with its version and file.
    pub carrier: String,
    /// Ranks.
    pub world_size: usize,
    /// Bytes of each rank.
    pub bytes: usize,
    /// Median seconds.
    pub median_s: f64,
    /// Bus bandwidth, 2 (P - 1) / P of the bytes over the time, in GB/s.
    pub bus_gb_per_s: f64,
}

/// Times the quantiser's part of a training step on random latents.
///
/// # Errors
///
/// [`TrainError::Comm`] if the device fails.
pub fn quantizer(
    device: &RankDevice,
    size: QuantizerSize,
    calls: Calls,
) -> Result<QuantizerFigures, TrainError> {
    let QuantizerSize { num_latents, num_codes, code_dim } = size;
    let config = VectorConfig { num_codes, code_dim, ..VectorConfig::default() };
    let slot = Slot::root(0, Kind::Float, device.device);
    let mut declarations = Declarations::default();
    let mut quantizer = VectorQuantizer::new(&config, &slot, &mut declarations);
    let kinds = Kinds::same(Kind::Float);
    let parameters = declarations.allocate(0, kinds, device.device);
    let random = |rows: i64, id| {
        let values = draws(0, Purpose::Codebook, 1, id).uniform(1.0, (rows * code_dim) as usize);
        let tensor = Tensor::from_slice(&values).to_kind(Kind::Float).view([rows, code_dim]);
        tensor.to_device(device.device)
    };
    let latents_nd = random(num_latents, 1).set_requires_grad(true);
    let codes_kd = random(num_codes, 2);
    let ones_k = Tensor::ones([num_codes], (Kind::Float, device.device));
    quantizer.set_codes(&parameters, &codes_kd, &ones_k);
    let gradient_nd = latents_nd.ones_like();
    let place = Place::new(0, num_latents as usize, 0..num_latents as usize);
    let sums = Sums::zeros(quantizer.lens(), Kind::Float, device.device);
    device.mark()?.wait(DEADLINE)?;
    let before = device.memory_in_use()?;

    let median_s = median(device, calls, || {
        let _ = sums.counts.shallow_clone().zero_();
        let _ = sums.statistics.shallow_clone().zero_();
        let Quantized { path, loss, .. } =
            quantizer.forward(&parameters, &latents_nd, &place, &sums);
        let root = path.root(&gradient_nd) + loss;
        let _at_latents_nd = Tensor::run_backward(&[root], &[&latents_nd], false, false);
        let _no_grad = tch::no_grad_guard();
        let _ = quantizer.update(&parameters, &sums, &place);
    })?;
    let after = device.memory_in_use()?;
    let _no_grad = tch::no_grad_guard();
    let latents_nd = latents_nd.detach();
    let codes_kd = quantizer.codes(&parameters);
    let nearest_s = median(device, calls, || drop(nearest_code(&latents_nd, &codes_kd)))?;
    let codes_dk = codes_kd.tr().contiguous();
    let rows = ((1 << 26) / num_codes).clamp(1, num_latents.max(1));
    let gemm_s = median(device, calls, || {
        for start in (0..num_latents).step_by(rows as usize) {
            let tile_nd = latents_nd.narrow(0, start, rows.min(num_latents - start));
            drop(tile_nd.matmul(&codes_dk));
        }
    })?;
    let peak_bytes = after.zip(before).map(|(after, before)| after.saturating_sub(before));
    let device = device.name();
    let (n, codes, dim) = (num_latents, num_codes, code_dim);
    Ok(QuantizerFigures { device, n, codes, dim, median_s, nearest_s, gemm_s, peak_bytes })
}

/// Times sums over all ranks, and compares one with the sum by arithmetic. Collective.
///
/// # Errors
///
/// [`TrainError::Mismatch`] if a sum is wrong, [`TrainError::Comm`].
pub fn all_reduce(
    comm: &dyn Communicator,
    device: &RankDevice,
    num_floats: i64,
    calls: Calls,
) -> Result<AllReduceFigures, TrainError> {
    let world_size = comm.world_size() as f64;
    // Small whole numbers, so that the sum is exact in float32: (r + 1) (i mod 97), and the sum
    // of r + 1 over ranks is W (W + 1) / 2.
    let pattern =
        Tensor::arange(num_floats, (Kind::Int64, device.device)).remainder(97).to_kind(Kind::Float);
    let mine = &pattern * (comm.rank() + 1) as f64;
    let sum = comm.all_reduce(mine)?.wait()?;
    let expected = pattern * (world_size * (world_size + 1.0) / 2.0);
    let wrong = (&sum - &expected).abs().max().double_value(&[]);
    if wrong != 0.0 {
        return Err(TrainError::Mismatch(format!(
            "rank {}: the sum of {num_floats} floats over {world_size} ranks is off by up to \
             {wrong}",
            comm.rank()
        )));
    }
    let mut buffer = Some(sum.zeros_like());
    let median_s = median(device, calls, || {
        let sent = buffer.take().and_then(|tensor| comm.all_reduce(tensor).ok());
        buffer = sent.and_then(|flight| flight.wait().ok());
    })?;
    if buffer.is_none() {
        return Err(TrainError::Mismatch("a sum over ranks failed while it was timed".into()));
    }
    let bytes = num_floats as usize * 4;
    let moved = 2.0 * (world_size - 1.0) / world_size * bytes as f64;
    Ok(AllReduceFigures {
        device: device.name(),
        carrier: comm.carrier(),
        world_size: comm.world_size(),
        bytes,
        median_s,
        bus_gb_per_s: moved / median_s / 1e9,
    })
}

/// Median seconds of a call, its work on the device included.
fn median(device: &RankDevice, calls: Calls, mut call: impl FnMut()) -> Result<f64, TrainError> {
    let mut seconds = Vec::with_capacity(calls.calls);
    for at in 0..calls.warmup + calls.calls.max(1) {
        device.mark()?.wait(DEADLINE)?;
        let start = Instant::now();
        call();
        device.mark()?.wait(DEADLINE)?;
        if at >= calls.warmup {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_comm::Threads;

    const CALLS: Calls = Calls { warmup: 1, calls: 3 };

    #[test]
    fn the_quantiser_is_timed_on_the_cpu_as_well() {
        let size = QuantizerSize { num_latents: 300, num_codes: 40, code_dim: 8 };
        let figures = quantizer(&RankDevice::cpu(), size, CALLS).unwrap();
        assert_eq!((figures.n, figures.codes, figures.dim), (300, 40, 8));
        assert_eq!((figures.device.as_str(), figures.peak_bytes), ("cpu", None));
        assert!(figures.median_s >= 0.0 && figures.gemm_s >= 0.0 && figures.nearest_s >= 0.0);
    }

    #[test]
    fn a_sum_over_ranks_is_checked_against_arithmetic() {
        let deadline = Duration::from_secs(20);
        let answers = Threads::run(3, deadline, |comm| {
            Ok(all_reduce(&comm, &RankDevice::cpu(), 1000, CALLS))
        });
        for answer in answers {
            let figures = answer.unwrap().unwrap();
            assert_eq!((figures.world_size, figures.bytes), (3, 4000));
        }
    }
}
