//! The gradient that passes back through the quantiser, which has none of its own.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

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

/// A tensor with the values of `value`, bit for bit, and the gradient of `path`.
pub fn pass_through(value: &Tensor, path: &Tensor) -> Tensor {
    value.detach() + (path - path.detach())
}

impl Passage {
    /// The codes `[N, D]`, with a gradient at the latents `[N, D]`.
    ///
    /// With u = z/|z|, v = e/|e|, w = (u+v)/|u+v| and l = |e|/|z|, all held constant, "rotation"
    /// is e = l (I - 2ww' + 2vu') z, so a gradient g at the code gives l (g - 2w(w.g) + 2u(v.g))
    /// at the latent. Where z or e is zero, or u is opposite to v, there is no such rotation and
    /// the gradient stays as it is.
    pub fn apply(self, latents_nd: &Tensor, codes_nd: &Tensor) -> Tensor {
        match self {
            Self::StraightThrough => pass_through(codes_nd, latents_nd),
            Self::Rotation => pass_through(codes_nd, &rotated(latents_nd, &codes_nd.detach())),
        }
    }
}

/// The latents turned and scaled to their codes, with everything but the latents held constant.
fn rotated(latents_nd: &Tensor, codes_nd: &Tensor) -> Tensor {
    let kind = latents_nd.kind();
    let dot = |a: &Tensor, b: &Tensor| (a * b).sum_dim_intlist([1i64].as_slice(), true, kind);
    let length = |a: &Tensor| dot(a, a).sqrt();
    let still_nd = latents_nd.detach();
    let (latent_length, code_length) = (length(&still_nd), length(codes_nd));
    let u_nd = still_nd / latent_length.clamp_min(TINY);
    let v_nd = codes_nd / code_length.clamp_min(TINY);
    let middle_nd = &u_nd + &v_nd;
    let middle_length = length(&middle_nd);
    let w_nd = middle_nd / middle_length.clamp_min(TINY);
    let scale = &code_length / latent_length.clamp_min(TINY);

    let turned_nd =
        latents_nd - &w_nd * (dot(latents_nd, &w_nd) * 2.0) + v_nd * (dot(latents_nd, &u_nd) * 2.0);
    let shortest = latent_length.minimum(&code_length).minimum(&middle_length);
    (turned_nd * scale).where_self(&shortest.gt(TINY).to_kind(Kind::Bool), latents_nd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn row(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).view([1, -1])
    }

    /// The gradient at the latent from `g` at the code; the output has the code's value.
    fn back(passage: Passage, z: &[f64], e: &[f64], g: &[f64]) -> Vec<f64> {
        let (z, e) = (row(z).set_requires_grad(true), row(e));
        let output = passage.apply(&z, &e);
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
