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

impl Passage {
    /// The gradient at the latents, `[N, D]`, from that at the codes, without the commitment's.
    ///
    /// With u = z/|z|, v = e/|e|, w = (u+v)/|u+v| and l = |e|/|z|, all held constant, the forward
    /// map of "rotation" is e = l (I - 2ww' + 2vu') z, so its transpose gives
    /// l (g - 2w(w.g) + 2u(v.g)). Where z or e is zero, or u is opposite to v, there is no such
    /// rotation and the gradient stays as it is.
    pub fn to_latents(
        self,
        latents_nd: &Tensor,
        codes_nd: &Tensor,
        gradient_nd: &Tensor,
    ) -> Tensor {
        match self {
            Self::StraightThrough => gradient_nd.shallow_clone(),
            Self::Rotation => rotate_back(latents_nd, codes_nd, gradient_nd),
        }
    }
}

fn rotate_back(latents_nd: &Tensor, codes_nd: &Tensor, gradient_nd: &Tensor) -> Tensor {
    let kind = latents_nd.kind();
    let dot = |a: &Tensor, b: &Tensor| (a * b).sum_dim_intlist([1i64].as_slice(), true, kind);
    let length = |a: &Tensor| dot(a, a).sqrt();
    let (latent_length, code_length) = (length(latents_nd), length(codes_nd));
    let u_nd = latents_nd / latent_length.clamp_min(TINY);
    let v_nd = codes_nd / code_length.clamp_min(TINY);
    let middle_nd = &u_nd + &v_nd;
    let middle_length = length(&middle_nd);
    let w_nd = middle_nd / middle_length.clamp_min(TINY);
    let scale = &code_length / latent_length.clamp_min(TINY);

    let along_w_nd = &w_nd * (dot(&w_nd, gradient_nd) * 2.0);
    let along_u_nd = &u_nd * (dot(&v_nd, gradient_nd) * 2.0);
    let rotated_nd = (gradient_nd - along_w_nd + along_u_nd) * scale;
    let shortest = latent_length.minimum(&code_length).minimum(&middle_length);
    rotated_nd.where_self(&shortest.gt(TINY).to_kind(Kind::Bool), gradient_nd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn row(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).view([1, -1])
    }

    /// By hand, in the plane: z = (2, 0) and e = (0, 1), a quarter turn and half the length. The
    /// forward map is e = 1/2 [[0, -1], [1, 0]] z, so g = (3, 5) comes back as 1/2 (5, -3).
    #[test]
    fn a_quarter_turn_is_turned_back() {
        let back =
            Passage::Rotation.to_latents(&row(&[2.0, 0.0]), &row(&[0.0, 1.0]), &row(&[3.0, 5.0]));
        let back: Vec<f64> = Vec::try_from(back.flatten(0, -1)).unwrap();
        assert!((back[0] - 2.5).abs() < 1e-12 && (back[1] + 1.5).abs() < 1e-12, "{back:?}");
    }

    /// The transpose of the forward map, checked with libtorch's derivative of that map in five
    /// dimensions, its coefficients held constant as the paper says.
    #[test]
    fn it_is_the_derivative_of_the_rotation() {
        let z = row(&[0.3, -1.2, 0.5, 2.0, -0.1]).set_requires_grad(true);
        let e = row(&[-0.7, -0.4, 1.1, 1.5, 0.2]);
        let g = row(&[1.0, 2.0, -3.0, 0.5, 4.0]);
        let unit = |a: &Tensor| (a / a.norm()).detach();
        let (u, v) = (unit(&z), unit(&e));
        let w = unit(&(&u + &v));
        let eye = Tensor::eye(5, (Kind::Double, Device::Cpu));
        let map = (eye - w.tr().matmul(&w) * 2.0 + v.tr().matmul(&u) * 2.0)
            * (e.norm() / z.norm()).detach();
        let forward = z.matmul(&map.tr());
        assert!(forward.allclose(&e, 0.0, 1e-12, false));
        let expected =
            Tensor::run_backward(&[(forward * &g).sum(Kind::Double)], &[&z], false, false);
        let found = Passage::Rotation.to_latents(&z.detach(), &e, &g);
        assert!(found.allclose(&expected[0], 0.0, 1e-12, false));
    }

    #[test]
    fn without_a_direction_the_gradient_stays() {
        let g = row(&[3.0, 5.0]);
        for (z, e) in
            [([0.0, 0.0], [1.0, 0.0]), ([1.0, 0.0], [0.0, 0.0]), ([1.0, 0.0], [-1.0, 0.0])]
        {
            let found = Passage::Rotation.to_latents(&row(&z), &row(&e), &g);
            assert_eq!(found, g);
        }
    }
}
