//! How far two sets of features are from one another.

use tch::Tensor;

/// Keeps the length of a vector of zeros from being divided by.
const EPS: f64 = 1e-10;

/// What features are divided by, with s the sum of their squares over channels.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lengths {
    /// sqrt(s + 1e-10), which has a gradient at 0.
    Guarded,
    /// sqrt(s) + 1e-10, as LPIPS 0.1.4 has it, whose gradient at 0 is not a number.
    Original,
}

impl Lengths {
    /// Features `[N, C, h, w]` as directions.
    fn directions(self, map: &Tensor) -> Tensor {
        let squares = map.square().sum_dim_intlist([1i64].as_slice(), true, map.kind());
        map / match self {
            Self::Guarded => (squares + EPS).sqrt(),
            Self::Original => squares.sqrt() + EPS,
        }
    }
}

/// Sum over samples and maps of the mean over positions of the squared difference of directions, a
/// scalar; with a head `[C]` for each map, channels count by its weights, else each by 1.
pub(super) fn between(
    outputs: &[Tensor],
    targets: &[Tensor],
    heads: &[Tensor],
    lengths: Lengths,
) -> Tensor {
    let mut total: Option<Tensor> = None;
    for (at, (output, target)) in outputs.iter().zip(targets).enumerate() {
        let mut squares = (lengths.directions(output) - lengths.directions(target)).square();
        if let Some(head_c) = heads.get(at) {
            squares *= head_c.to_kind(output.kind()).view([1, -1, 1, 1]);
        }
        let positions: i64 = output.size()[2..].iter().product();
        let distance = squares.sum(output.kind()) / positions as f64;
        total = Some(total.map_or_else(|| distance.shallow_clone(), |total| total + &distance));
    }
    total.expect("a network has maps")
}
