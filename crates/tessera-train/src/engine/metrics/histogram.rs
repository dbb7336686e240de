//! How numbers are spread: a histogram, ready for whoever writes it.

use tch::{Kind, Tensor};

/// Buckets of the values of a tensor.
const OF_VALUES: i64 = 64;
/// Buckets of counts at most.
const OF_COUNTS: usize = 1024;

/// Numbers in buckets.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// The series that it belongs to, such as `usage/level-0`.
    pub tag: String,
    /// Left edge, right edge and number of each bucket; the right edge belongs to the last one only.
    pub buckets: Vec<[f64; 3]>,
}

impl Histogram {
    /// How often each of many things was counted: a bucket from n to n + 1 for each, or for as many of them side by side as make it 1,024
    /// buckets at most.
    pub fn of_counts(tag: String, counts: &[f64]) -> Self {
        let width = counts.len().div_ceil(OF_COUNTS).max(1);
        let bucket = |(number, counts): (usize, &[f64])| {
            let left = number * width;
            [left as f64, (left + counts.len()) as f64, counts.iter().sum()]
        };
        Self { tag, buckets: counts.chunks(width).enumerate().map(bucket).collect() }
    }

    /// The finite elements of a tensor in 64 buckets of equal width; none where there are none.
    pub fn of_values(tag: String, values: &Tensor) -> Option<Self> {
        let values = values.detach().to_kind(Kind::Float);
        let finite = values.masked_select(&values.isfinite());
        if finite.numel() == 0 {
            return None;
        }
        let (least, most) = (finite.min().double_value(&[]), finite.max().double_value(&[]));
        if least == most {
            return Some(Self {
                tag,
                buckets: vec![[least - 0.5, least + 0.5, finite.numel() as f64]],
            });
        }
        let counts = finite.to_device(tch::Device::Cpu).histc(OF_VALUES).to_kind(Kind::Double);
        let counts: Vec<f64> = Vec::try_from(counts).expect("numbers");
        let edge = |number: usize| least + (most - least) * number as f64 / OF_VALUES as f64;
        let bucket = |(number, count)| [edge(number), edge(number + 1), count];
        Some(Self { tag, buckets: counts.into_iter().enumerate().map(bucket).collect() })
    }

    /// Bytes in memory.
    pub(super) fn num_bytes(&self) -> usize {
        self.tag.len() + size_of_val(self.buckets.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_a_bucket_each_or_share_one() {
        let few = Histogram::of_counts("few".into(), &[3.0, 0.0, 2.0]);
        assert_eq!(few.buckets, [[0.0, 1.0, 3.0], [1.0, 2.0, 0.0], [2.0, 3.0, 2.0]]);
        let many: Vec<f64> = (0..2049).map(f64::from).collect();
        let many = Histogram::of_counts("many".into(), &many);
        assert_eq!(many.buckets.len(), 683);
        assert_eq!(many.buckets[1], [3.0, 6.0, 3.0 + 4.0 + 5.0]);
        assert_eq!(many.buckets[682], [2046.0, 2049.0, 2046.0 + 2047.0 + 2048.0]);
    }

    #[test]
    fn values_are_spread_from_the_least_to_the_most_and_what_is_no_number_is_left_out() {
        let values = Tensor::from_slice(&[0.0f32, 1.0, 32.5, 64.0, f32::NAN, f32::INFINITY]);
        let spread = Histogram::of_values("spread".into(), &values).expect("there are some");
        assert_eq!(spread.buckets.len(), 64);
        let taken: Vec<_> = spread.buckets.iter().filter(|bucket| bucket[2] > 0.0).collect();
        let wanted = [[0.0, 1.0, 1.0], [1.0, 2.0, 1.0], [32.0, 33.0, 1.0], [63.0, 64.0, 1.0]];
        assert_eq!(taken, wanted.iter().collect::<Vec<_>>());

        let same = Histogram::of_values("same".into(), &Tensor::from_slice(&[2.0f32; 5]));
        assert_eq!(same.expect("there are some").buckets, [[1.5, 2.5, 5.0]]);
        assert_eq!(Histogram::of_values("none".into(), &Tensor::from(f32::NAN)), None);
    }
}
