//! The gradient that passes back through the quantiser, which has none of its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// How the gradient at the codes becomes one at the latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// What a gradient at the outputs `[N, D]` goes back through to the latents.
#[derive(Debug)]
pub enum Path {
    /// A tensor `[N, D]` with the graph of the estimator; its values are its own business.
    Graph(Tensor),
    /// The latents, with graph, turned to their codes.
    Rotation {
        /// `[N, D]`.
        latents_nd: Tensor,
        /// `[N, D]`, without graph.
        codes_nd: Tensor,
    },
}

impl Passage {
    /// The path from codes `[N, D]` to the latents `[N, D]` that became them.
    ///
    /// With u = z/|z|, v = e/|e|, w = (u+v)/|u+v| and l = |e|/|z|, all held constant, "rotation"
    /// is e = l (I - 2ww' + 2vu') z, so a gradient g at the code gives l (g - 2w(w.g) + 2u(v.g))
    /// at the latent. Where z or e is zero, or u is opposite to v, there is no such rotation and
    /// the gradient stays as it is.
    pub fn path(self, latents_nd: &Tensor, codes_nd: &Tensor) -> Path {
        let latents_nd = latents_nd.shallow_clone();
        match self {
            Self::StraightThrough => Path::Graph(latents_nd),
            Self::Rotation => Path::Rotation { latents_nd, codes_nd: codes_nd.detach() },
        }
    }
}

impl Path {
    /// A scalar with the gradient that `gradient_nd` at the outputs has before the path.
    pub fn root(&self, gradient_nd: &Tensor) -> Tensor {
        let (to_nd, gradient_nd) = match self {
            Self::Graph(path_nd) => (path_nd, gradient_nd.shallow_clone()),
            Self::Rotation { latents_nd, codes_nd } => {
                let turn = Turn::new(&latents_nd.detach(), codes_nd);
                (latents_nd, turn.back(gradient_nd))
            }
        };
        to_nd.flatten(0, -1).dot(&gradient_nd.flatten(0, -1))
    }

    /// The path as a tensor, for whoever goes on from it. [`Path::root`] is a third of the work of
    /// a rotation's graph.
    pub fn graph(&self) -> Tensor {
        match self {
            Self::Graph(path_nd) => path_nd.shallow_clone(),
            Self::Rotation { latents_nd, codes_nd } => {
                Turn::new(&latents_nd.detach(), codes_nd).of(latents_nd)
            }
        }
    }
}

/// The turn of each latent to its code.
struct Turn {
    /// Directions of latents and codes, `[N, D]`.
    u_nd: Tensor,
    v_nd: Tensor,
    /// l, `[N, 1]`; 1 where there is no rotation.
    scale: Tensor,
    /// 2 / |u+v|^2, which is 1 / (1 + u.v); 0 where there is no rotation.
    middle: Tensor,
    /// 2; 0 where there is no rotation.
    twice: Tensor,
}

impl Turn {
    fn new(latents_nd: &Tensor, codes_nd: &Tensor) -> Self {
        let length = |rows_nd: &Tensor| rows_nd.norm_scalaropt_dim(2, [1i64], true);
        let (latent_length, code_length) = (length(latents_nd), length(codes_nd));
        let (u_nd, v_nd) =
            (latents_nd / latent_length.clamp_min(TINY), codes_nd / code_length.clamp_min(TINY));
        let opposite = dot(&u_nd, &v_nd) + 1.0;
        let has_direction = latent_length.minimum(&code_length).gt(TINY);
        let turns = has_direction.logical_and(&opposite.gt(OPPOSITE));
        let (one, zero) = (latent_length.ones_like(), latent_length.zeros_like());
        let scale = code_length / latent_length;
        Self {
            scale: scale.where_self(&turns, &one),
            middle: opposite.reciprocal().where_self(&turns, &zero),
            twice: turns.to_kind(one.kind()) * 2.0,
            u_nd,
            v_nd,
        }
    }

    /// l (I - 2ww' + 2vu') x.
    fn of(&self, x_nd: &Tensor) -> Tensor {
        self.turned(x_nd, &self.u_nd, &self.v_nd)
    }

    /// The transpose, l (I - 2ww' + 2uv') x: the same turn from v to u.
    fn back(&self, x_nd: &Tensor) -> Tensor {
        self.turned(x_nd, &self.v_nd, &self.u_nd)
    }

    fn turned(&self, x_nd: &Tensor, from_nd: &Tensor, to_nd: &Tensor) -> Tensor {
        let Self { scale, middle, twice, .. } = self;
        let (from_x, to_x) = (dot(from_nd, x_nd), dot(to_nd, x_nd));
        let of_both = (&from_x + to_x) * middle * -scale;
        let of_to = from_x * twice * scale + &of_both;
        (x_nd * scale).addcmul(from_nd, &of_both).addcmul(to_nd, &of_to)
    }
}

/// Products of rows, `[N, 1]`. Without graph, in one pass; the gradient of that form is slow.
fn dot(still_nd: &Tensor, x_nd: &Tensor) -> Tensor {
    if x_nd.requires_grad() {
        return (still_nd * x_nd).sum_dim_intlist([1i64].as_slice(), true, x_nd.kind());
    }
    still_nd.unsqueeze(1).bmm(&x_nd.unsqueeze(2)).squeeze_dim(2)
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
        let path = passage.path(&z, &e);
        let output = pass_through(&e, &path.graph());
        assert_eq!(output, e);
        let roots = [(output * row(g)).sum(Kind::Double), path.root(&row(g))];
        let [through_graph, found]: [Vec<f64>; 2] = roots.map(|root| {
            let gradients = Tensor::run_backward(&[root], &[&z], true, false);
            Vec::try_from(gradients[0].flatten(0, -1)).unwrap()
        });
        for (a, b) in found.iter().zip(&through_graph) {
            assert!((a - b).abs() < 1e-12, "{found:?} and {through_graph:?}");
        }
        found
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
