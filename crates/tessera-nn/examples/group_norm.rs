//! Times group norm and SiLU in one against libtorch's one after the other, in turn, on this CPU.
//!
//! `cargo run --release -p tessera-nn --example group_norm -- 1` prints a table in Markdown for one thread: the shortest
//! of some rounds, in nanoseconds a value, of forward alone and of forward and backward.
#![allow(clippy::print_stdout)] // a person reads it

use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};
use tessera_nn::layers::{GroupNorm, Scope};
use tessera_nn::parameters::{Declarations, Stage};
use tessera_nn::{Kinds, Parameters};

const GROUPS: i64 = 8;
const EPS: f64 = 1e-6;
const ROUNDS: usize = 12;

type Forward<'a> = &'a dyn Fn(&Tensor) -> Tensor;

fn main() {
    println!(
        "| kind | in memory | shape | forward: libtorch | ours | and backward: libtorch | ours |"
    );
    println!("|---|---|---|---|---|---|---|");
    let shapes: [&[i64]; 8] = [
        &[16, 16, 64, 64],
        &[16, 32, 32, 32],
        &[32, 64, 16, 16],
        &[64, 128, 8, 8],
        &[16, 128, 32, 32],
        &[64, 32, 64, 64],
        &[16, 16, 4096],
        &[4, 16, 8, 32, 32],
    ];
    let threads = std::env::args().nth(1).and_then(|threads| threads.parse().ok());
    tch::set_num_threads(threads.unwrap_or(1));
    for kind in [Kind::Float, Kind::BFloat16] {
        for channels_last in [true, false] {
            for shape in shapes {
                row(kind, channels_last, shape);
            }
        }
    }
}

fn row(kind: Kind, channels_last: bool, shape: &[i64]) {
    let last = shape.len() as i64 - 1;
    let mut input = Tensor::randn(shape, (kind, Device::Cpu));
    if channels_last {
        input = input.movedim_int(1, last).contiguous().movedim_int(last, 1);
    }
    let input = input.set_requires_grad(true);
    let upstream = input.detach().copy();
    let mut to = Declarations::default();
    let scope = Scope::new(Stage::Head, "norm");
    let layer = GroupNorm::new(&mut to, &scope, shape[1], GROUPS, EPS);
    let parameters = to.allocate(0, Kinds::same(kind), Device::Cpu);
    let leaves = parameters.leaves_of(Stage::Head);
    let ways: [Forward<'_>; 2] = [
        &|input| input.group_norm(GROUPS, Some(leaves[0]), Some(leaves[1]), EPS, true).silu(),
        &|input| layer.forward_silu(&parameters, input),
    ];
    let mut shortest = [Duration::MAX; 4];
    for _ in 0..ROUNDS {
        for (way, forward) in ways.iter().enumerate() {
            let alone = time(|| tch::no_grad(|| drop(forward(&input))));
            let both = time(|| there_and_back(*forward, &parameters, &input, &upstream));
            shortest[way] = shortest[way].min(alone);
            shortest[2 + way] = shortest[2 + way].min(both);
        }
    }
    let per_value = shortest.map(|time| time.as_nanos() as f64 / input.numel() as f64);
    let order = if channels_last { "channels last" } else { "positions last" };
    println!(
        "| {kind:?} | {order} | {shape:?} | {:.2} | {:.2} | {:.2} | {:.2} |",
        per_value[0], per_value[1], per_value[2], per_value[3]
    );
}

fn there_and_back(
    forward: Forward<'_>,
    parameters: &Parameters,
    input: &Tensor,
    upstream: &Tensor,
) {
    let output = forward(input);
    let leaves = parameters.leaves_of(Stage::Head);
    let targets: Vec<&Tensor> = [input].into_iter().chain(leaves).collect();
    // The product and its sum are the same for both ways, and a small part of either.
    let root = (output * upstream).sum(Kind::Float);
    drop(Tensor::run_backward(&[root], &targets, false, false));
}

fn time(f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}
