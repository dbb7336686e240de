//! A curve of any length in bounded memory, whose spikes stay.
//!
//! Rows go into buckets of equally many rows. When there are too many buckets, each pair becomes one, so a
//! bucket knows the least and the largest of its values and where they are, whatever their number.

/// Buckets that are kept at most; half of it after two have become one.
pub(crate) const MOST: usize = 1024;

/// Some rows one after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bucket {
    /// Step of the first and of the last row.
    pub(crate) steps: (u64, u64),
    /// Values that are finite.
    pub(crate) num: u64,
    /// Their sum.
    pub(crate) sum: f64,
    /// The least, and its step.
    pub(crate) low: (f64, u64),
    /// The largest, and its step.
    pub(crate) high: (f64, u64),
}

impl Bucket {
    fn of(step: u64, value: Option<f64>) -> Self {
        let value = value.filter(|value| value.is_finite());
        let (low, high) = (value.unwrap_or(f64::INFINITY), value.unwrap_or(f64::NEG_INFINITY));
        Self {
            steps: (step, step),
            num: u64::from(value.is_some()),
            sum: value.unwrap_or(0.0),
            low: (low, step),
            high: (high, step),
        }
    }

    fn join(&mut self, next: Self) {
        self.steps.1 = next.steps.1;
        self.num += next.num;
        self.sum += next.sum;
        if next.low.0 < self.low.0 {
            self.low = next.low;
        }
        if next.high.0 > self.high.0 {
            self.high = next.high;
        }
    }

    /// The mean of its values; none where no value is finite.
    pub(crate) fn mean(&self) -> Option<f64> {
        match self.num {
            0 => None,
            1 => Some(self.low.0),
            num => Some(self.sum / num as f64),
        }
    }
}

/// A curve.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Buckets {
    /// The buckets, in the order of steps.
    pub(crate) all: Vec<Bucket>,
    /// Rows of each, but of the last.
    pub(crate) width: u64,
    in_last: u64,
    /// The last value, whether or not it is finite.
    pub(crate) last: Option<f64>,
}

impl Buckets {
    /// Adds a row; `None` stands for a value that is not finite.
    pub(crate) fn push(&mut self, step: u64, value: Option<f64>) {
        let bucket = Bucket::of(step, value);
        self.last = value;
        self.width = self.width.max(1);
        match self.all.last_mut().filter(|_| self.in_last < self.width) {
            Some(last) => last.join(bucket),
            None => {
                if self.all.len() == MOST {
                    self.all = join(&self.all, 2);
                    self.width *= 2;
                }
                self.all.push(bucket);
                self.in_last = 0;
            }
        }
        self.in_last += 1;
    }

    /// The bucket with the least value, and that with the largest.
    pub(crate) fn ends(&self) -> Option<(Bucket, Bucket)> {
        let finite = || self.all.iter().filter(|bucket| bucket.num > 0);
        let low = finite().min_by(|a, b| a.low.0.total_cmp(&b.low.0))?;
        let high = finite().max_by(|a, b| a.high.0.total_cmp(&b.high.0))?;
        Some((*low, *high))
    }
}

/// Buckets of `by` buckets each.
pub(crate) fn join(all: &[Bucket], by: usize) -> Vec<Bucket> {
    let one = |part: &[Bucket]| {
        let mut whole = part[0];
        part[1..].iter().for_each(|next| whole.join(*next));
        whole
    };
    all.chunks(by).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: of 5,000 rows 1,024 buckets become 512 of 2 rows at row 1,024, of 4 at 2,048, of 8 at 4,096; so there
    /// are 625 of 8 rows. The spike of one row is in the bucket from row 3,696 on, with its own step.
    #[test]
    fn a_spike_of_one_row_in_thousands_stays_with_its_step() {
        let mut curve = Buckets::default();
        for row in 0..5000u64 {
            curve.push(10 * row, Some(if row == 3700 { 99.0 } else { 1.0 }));
        }
        assert_eq!((curve.width, curve.all.len()), (8, 625));
        assert_eq!(curve.ends().unwrap().1.high, (99.0, 37_000));
        let bucket = curve.all[3696 / 8];
        assert_eq!((bucket.steps, bucket.num), ((36_960, 37_030), 8));
        assert_eq!(bucket.mean(), Some((7.0 + 99.0) / 8.0));
        let few = join(&curve.all, 7);
        assert_eq!(few.len(), 90, "625 in sevens");
        assert!(few.iter().any(|bucket| bucket.high == (99.0, 37_000)));
    }

    #[test]
    fn what_is_not_finite_is_a_hole_and_short_curves_are_exact() {
        let mut curve = Buckets::default();
        for (step, value) in [(10, Some(0.5)), (20, None), (30, Some(f64::NAN)), (40, Some(0.25))] {
            curve.push(step, value);
        }
        let means: Vec<Option<f64>> = curve.all.iter().map(Bucket::mean).collect();
        assert_eq!(means, [Some(0.5), None, None, Some(0.25)]);
        assert_eq!(curve.last, Some(0.25));
    }
}
