//! The gradient that passes back through the quantiser, which has none of its own.

use serde::{Deserialize, Serialize};
use tch::Tensor;

/// How the gradient at the codes becomes one at the latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Passage {
    /// Unchanged: van den Oord et al. 2017, <https://arxiv.org/abs/1711.00937>, section 3.2.
    StraightThrough,
    /// Rotated and scaled as the latent would have to be to become its code: Fifty et al. 2024,
    /// <https://arxiv.org/abs/2410.06424>. Latents keep their angle to their code, which keeps
    /// more codes in use.
    Rotation,
}

/// Length below which a vector has no direction.
const TINY: f64 = 1e-6;
/// 1 + cosine below which two vectors are opposite, and no plane to turn in is known.
const OPPOSITE: f64 = 1e-6;

/// A tensor with the values of `value`, bit for bit, and the gradient of `path`.
pub fn pass_through(value: &Tensor, path: &Tensor) -> Tensor {
    value.detach() + (path - path.detach())
}

impl Passage {
    /// What a gradient at the codes `[N, D]` goes back through to the latents `[N, D]`.
    ///
    /// With u = z/|z|, v = e/|e|, w = (u+v)/|u+v| and l = |e|/|z|, all held constant, "rotation"
    /// is e = l (I - 2ww' + 2vu') z, so a gradient g at the code gives l (g - 2w(w.g) + 2u(v.g))
    /// at the latent. Where z or e is zero, or u is opposite to v, there is no such rotation and
    /// the gradient stays as it is.
    pub fn path(self, latents_nd: &Tensor, codes_nd: &Tensor) -> Tensor {
        match self {
            Self::StraightThrough => latents_nd.shallow_clone(),
            Self::Rotation => rotated(latents_nd, &codes_nd.detach()),
        }
    }
}

/// The latents turned and scaled to their codes, with everything but the latents held constant.
///
/// With c = u.v the square of |u+v| is 2 + 2c, so this is
/// l z - z' l (p + q) / ((1 + c) |z|) + e l (2 p - (p + q) / (1 + c)) / |e|, where z' is z held
/// constant, p = u.z and q = v.z: numbers of tokens, and few passes over their channels.
fn rotated(latents_nd: &Tensor, codes_nd: &Tensor) -> Tensor {
    let kind = latents_nd.kind();
    let dot = |a: &Tensor, b: &Tensor| (a * b).sum_dim_intlist([1i64].as_slice(), true, kind);
    let still_nd = latents_nd.detach();
    let (along_z, along_e) = (dot(latents_nd, &still_nd), dot(latents_nd, codes_nd));
    let latent_length = along_z.detach().sqrt();
    let code_length = dot(codes_nd, codes_nd).sqrt();
    let (latent_divisor, code_divisor) =
        (latent_length.clamp_min(TINY), code_length.clamp_min(TINY));
    let opposite = along_e.detach() / (&latent_divisor * &code_divisor) + 1.0;
    let has_direction = latent_length.minimum(&code_length).gt(TINY);
    let turns = has_direction.logical_and(&opposite.gt(OPPOSITE));

    let scale = &code_length / &latent_divisor;
    let (p, q) = (along_z / &latent_divisor, along_e / &code_divisor);
    let middle = (&p + q) / opposite.clamp_min(OPPOSITE);
    let zero = scale.zeros_like();
    let only_if = |weight: Tensor| weight.where_self(&turns, &zero);
    let of_still = only_if(&middle * &scale / &latent_divisor);
    let of_codes = only_if((p * 2.0 - middle) * &scale / &code_divisor);
    let scale = scale.where_self(&turns, &zero.ones_like());
    (latents_nd * scale).addcmul(&still_nd, &-of_still).addcmul(codes_nd, &of_codes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn row(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).view([1, -1])
    }

    /// The gradient at the latent from `g` at the code.
    fn back(passage: Passage, z: &[f64], e: &[f64], g: &[f64]) -> Vec<f64> {
        let (z, e) = (row(z).set_requires_grad(true), row(e));
        let output = pass_through(&e, &passage.path(&z, &e));
        assert_eq!(output, e);
        let root = (output * row(g)).sum(Kind::Double);
        Vec::try_from(Tensor::run_backward(&[root], &[&z], false, false)[0].flatten(0, -1)).unwrap()
    }

    /// By hand, in the plane: z = (2, 0) and e = (0, 1), a quarter turn and half the length. The
    /// forward map is e = 1/2 [[0, -1], [1, 0]] z, so g = (3, 5) comes back as 1/2 (5, -3).
    #[test]
    fn a_quarter_turn_is_turned_back() {
        let back = back(Passage::Rotation, &[2.0, 0.0], &[0.0, 1.0], &[3.0, 5.0]);
        assert!((back[0] - 2.5).abs() < 1e-12 && (back[1] + 1.5).abs() < 1e-12, "{back:?}");
    }

    #[test]
    fn straight_through_leaves_the_gradient_and_the_code_as_they_are() {
        let found = back(Passage::StraightThrough, &[1e8, 0.3], &[0.1, 0.7], &[3.0, 5.0]);
        assert_eq!(found, [3.0, 5.0]);
    }

    /// The transpose of the paper's map, in five dimensions.
    #[test]
    fn it_is_the_derivative_of_the_rotation() {
        let (z, e) = ([0.3, -1.2, 0.5, 2.0, -0.1], [-0.7, -0.4, 1.1, 1.5, 0.2]);
        let g = [1.0, 2.0, -3.0, 0.5, 4.0];
        let unit = |a: &Tensor| a / a.norm();
        let (u, v) = (unit(&row(&z)), unit(&row(&e)));
        let w = unit(&(&u + &v));
        let eye = Tensor::eye(5, (Kind::Double, Device::Cpu));
        let map = (eye - w.tr().matmul(&w) * 2.0 + v.tr().matmul(&u) * 2.0)
            * (row(&e).norm() / row(&z).norm());
        assert!(row(&z).matmul(&map.tr()).allclose(&row(&e), 0.0, 1e-12, false));
        let found = row(&back(Passage::Rotation, &z, &e, &g));
        assert!(found.allclose(&row(&g).matmul(&map), 0.0, 1e-12, false));
    }

    #[test]
    fn without_a_direction_the_gradient_stays() {
        for (z, e) in
            [([0.0, 0.0], [1.0, 0.0]), ([1.0, 0.0], [0.0, 0.0]), ([1.0, 0.0], [-1.0, 0.0])]
        {
            assert_eq!(back(Passage::Rotation, &z, &e, &[3.0, 5.0]), [3.0, 5.0]);
        }
    }
}
