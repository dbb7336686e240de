//! Whole numbers of JSON. JSON knows one kind of number, and JSON Schema calls `1.0` an integer, so it is one here too.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Above, floating point skips whole numbers.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;

/// A whole number from 0 that fits into `T`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole<T>(pub(crate) T);

/// The whole number that a floating-point one is; `None`: it is none, or too large to tell.
pub(crate) fn of_float(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() <= MOST_EXACT).then_some(value as i64)
}

struct Seen<T>(PhantomData<T>);

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Seen(PhantomData)).map(Self)
    }
}

impl<T: TryFrom<u64>> Visitor<'_> for Seen<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number from 0")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        T::try_from(value).map_err(|_| E::custom(format_args!("{value} is too large")))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        let negative = |_| E::custom(format_args!("expected a number from 0, got {value}"));
        self.visit_u64(u64::try_from(value).map_err(negative)?)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        let broken = || E::custom(format_args!("expected a whole number, got {value}"));
        self.visit_i64(of_float(value).ok_or_else(broken)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        for (text, expected) in [("7", 7), ("7.0", 7), ("-0.0", 0), ("1e3", 1000)] {
            assert_eq!(serde_json::from_str::<Whole<u32>>(text).unwrap().0, expected, "{text}");
        }
        for wrong in ["7.5", "-1", "-1.0", "4294967296", "1e300", "\"7\"", "null", "true"] {
            assert!(serde_json::from_str::<Whole<u32>>(wrong).is_err(), "{wrong}");
        }
    }
}
