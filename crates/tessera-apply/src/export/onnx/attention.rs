//! Attention and rotary positions in operators of ONNX, of any number of positions.

use tch::Tensor;
use tessera_nn::graph::Sight;

use super::{DOUBLE, FLOAT, Writer, int, ints};

impl Writer {
    /// Attention of queries, keys and values `[N, C, ..]`.
    pub(super) fn attention(
        &mut self,
        of: &[&str],
        [heads, head_dim]: [i64; 2],
        sight: Sight,
        out: &str,
    ) {
        let shape = self.node("Shape", &[of[0]], vec![]);
        // 0: as many samples as there are.
        let apart = self.ints(&[0, heads, head_dim, -1]);
        let apart: Vec<String> =
            of.iter().map(|value| self.node("Reshape", &[value, &apart], vec![])).collect();
        let turned = || vec![ints("perm", &[0, 1, 3, 2])];
        let query = self.node("Transpose", &[&apart[0]], turned());
        let scores = self.node("MatMul", &[&query, &apart[1]], vec![]);
        let root = self.float((head_dim as f64).sqrt());
        let mut scores = self.node("Div", &[&scores, &root], vec![]);
        if sight != Sight::ALL {
            scores = self.masked(&scores, sight);
        }
        let weights = self.node("Softmax", &[&scores], vec![int("axis", -1)]);
        let value = self.node("Transpose", &[&apart[2]], turned());
        let seen = self.node("MatMul", &[&weights, &value], vec![]);
        let seen = self.node("Transpose", &[&seen], turned());
        self.named("Reshape", &[&seen, &shape], vec![], out);
    }

    /// Scores `[N, heads, L, L]`, minus infinity where a position is not seen.
    fn masked(&mut self, scores: &str, sight: Sight) -> String {
        let places = self.places(scores, 3);
        let [row, column] = [0, 1].map(|axis| {
            let axis = self.ints(&[axis]);
            self.node("Unsqueeze", &[&places, &axis], vec![])
        });
        // How far behind the position that looks the other one is.
        let distance = self.node("Sub", &[&row, &column], vec![]);
        let nowhere = self.float(f64::NEG_INFINITY);
        let mut masked = scores.to_owned();
        for (op, limit) in
            [("LessOrEqual", sight.behind), ("GreaterOrEqual", sight.before.map(|before| -before))]
        {
            let Some(limit) = limit else { continue };
            let limit = self.int(limit);
            let is_seen = self.node(op, &[&distance, &limit], vec![]);
            masked = self.node("Where", &[&is_seen, &masked, &nowhere], vec![]);
        }
        masked
    }

    /// The whole numbers from 0 on, as many as a value has places along an axis.
    fn places(&mut self, of: &str, axis: i64) -> String {
        let len = self.sizes(of, &[axis]);
        let axes = self.ints(&[0]);
        let len = self.node("Squeeze", &[&len, &axes], vec![]);
        let [start, step] = [0, 1].map(|value| self.int(value));
        self.node("Range", &[&start, &len, &step], vec![])
    }

    /// `[N, C, L]` turned by position, with angles in float64.
    pub(super) fn rotary(&mut self, of: &str, heads: i64, frequencies: &Tensor, out: &str) {
        let shape = self.node("Shape", &[of], vec![]);
        let pairs = self.ints(&[0, heads, frequencies.size()[0], 2, -1]);
        let pairs = self.node("Reshape", &[of, &pairs], vec![]);
        let places = self.places(of, 2);
        let places = self.node("Cast", &[&places], vec![int("to", i64::from(DOUBLE))]);
        let frequencies = self.doubles(&frequencies.unsqueeze(1));
        let angles = self.node("Mul", &[&frequencies, &places], vec![]);
        let [cos, sin] = ["Cos", "Sin"].map(|op| {
            let values = self.node(op, &[&angles], vec![]);
            self.node("Cast", &[&values], vec![int("to", i64::from(FLOAT))])
        });
        let [real, imaginary] = [0, 1].map(|which| {
            let which = self.int(which);
            self.node("Gather", &[&pairs, &which], vec![int("axis", 3)])
        });
        let product =
            |writer: &mut Self, part: &str, turn: &str| writer.node("Mul", &[part, turn], vec![]);
        let of_real = [product(self, &real, &cos), product(self, &imaginary, &sin)];
        let of_imaginary = [product(self, &real, &sin), product(self, &imaginary, &cos)];
        let real = self.node("Sub", &[&of_real[0], &of_real[1]], vec![]);
        let imaginary = self.node("Add", &[&of_imaginary[0], &of_imaginary[1]], vec![]);
        let axes = self.ints(&[3]);
        let [real, imaginary] =
            [real, imaginary].map(|part| self.node("Unsqueeze", &[&part, &axes], vec![]));
        let turned = self.node("Concat", &[&real, &imaginary], vec![int("axis", 3)]);
        self.named("Reshape", &[&turned, &shape], vec![], out);
    }
}
