//! Filters against their definitions, and draws against their distribution.

use tessera_nn::prior::sample::{
    Filter, Guidance, GuidanceSchedule, Sampling, pick, tokens_revealed,
};
use tessera_nn::random::{Purpose, draws};

/// Each filter as it is defined, over a list of codes in order of their probability, the lower index first.
fn by_definition(filter: &Filter, logits: &[f64], is_used: &[bool]) -> Vec<f64> {
    let penalised = |(&logit, &is_used): (&f64, &bool)| match (is_used, logit < 0.0) {
        (false, _) => logit,
        (true, true) => logit * filter.repetition,
        (true, false) => logit / filter.repetition,
    };
    let logits: Vec<f64> = logits.iter().zip(is_used).map(penalised).collect();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&one, &other| logits[other].total_cmp(&logits[one])); // stable
    if filter.temperature == 0.0 {
        order.truncate(1);
        return (0..logits.len()).map(|code| f64::from(u8::from(order[0] == code))).collect();
    }
    let softmax = |order: &[usize]| {
        let mut p = vec![0.0; logits.len()];
        order.iter().for_each(|&code| p[code] = (logits[code] / filter.temperature).exp());
        let sum: f64 = p.iter().sum();
        p.iter().map(|p| p / sum).collect::<Vec<f64>>()
    };
    if filter.top_k > 0 {
        order.truncate(filter.top_k as usize);
    }
    let p = softmax(&order);
    let mut before = 0.0;
    let nucleus: Vec<usize> = order
        .into_iter()
        .filter(|&code| {
            let is_left = before < filter.top_p;
            before += p[code];
            is_left
        })
        .collect();
    let p = softmax(&nucleus);
    let most = p.iter().copied().fold(0.0, f64::max);
    let left: Vec<usize> =
        nucleus.into_iter().filter(|&code| p[code] >= filter.min_p * most).collect();
    softmax(&left)
}

/// Logits are multiples of 1/2 from -2 to 2, so that many are equal; parts of 0.37 and 0.11 are no sums of theirs.
#[test]
fn filters_are_what_they_are_defined_to_be_with_ties_too() {
    let filters = [
        Filter::default(),
        Filter { temperature: 0.7, ..Filter::default() },
        Filter { temperature: 0.0, top_k: 3, ..Filter::default() },
        Filter { top_k: 1, ..Filter::default() },
        Filter { top_k: 5, ..Filter::default() },
        Filter { top_k: 99, ..Filter::default() },
        Filter { top_p: 0.37, ..Filter::default() },
        Filter { top_p: 1e-9, ..Filter::default() },
        Filter { min_p: 0.11, ..Filter::default() },
        Filter { min_p: 1.0, ..Filter::default() },
        Filter { repetition: 1.3, top_k: 4, ..Filter::default() },
        Filter { temperature: 1.3, top_k: 9, top_p: 0.83, min_p: 0.11, repetition: 0.8 },
    ];
    for case in 0..200 {
        let mut drawn = draws(case, Purpose::PriorSample, 0, 0);
        let num = 1 + drawn.below(20) as usize;
        let logits: Vec<f64> = (0..num).map(|_| drawn.below(9) as f64 / 2.0 - 2.0).collect();
        let is_used: Vec<bool> = (0..num).map(|_| drawn.below(3) == 0).collect();
        for filter in filters {
            filter.validate().unwrap();
            let found = filter.weights(&logits, Some(&is_used));
            let sum: f64 = found.iter().sum();
            let wanted = by_definition(&filter, &logits, &is_used);
            for (found, wanted) in found.iter().zip(wanted) {
                assert!((found / sum - wanted).abs() < 1e-12, "{filter:?} of {logits:?}");
            }
        }
    }
    let exactly = Filter { top_k: 2, ..Filter::default() };
    assert_eq!(exactly.weights(&[0.0, 1.0, 1.0, 1.0], None), [0.0, 1.0, 1.0, 0.0]);
}

#[test]
fn a_filter_that_makes_no_sense_is_refused() {
    for (filter, key) in [
        (Filter { temperature: -1.0, ..Filter::default() }, "temperature"),
        (Filter { temperature: f64::NAN, ..Filter::default() }, "temperature"),
        (Filter { top_k: -1, ..Filter::default() }, "top_k"),
        (Filter { top_p: 0.0, ..Filter::default() }, "top_p"),
        (Filter { min_p: 1.5, ..Filter::default() }, "min_p"),
        (Filter { repetition: 0.0, ..Filter::default() }, "repetition"),
    ] {
        assert!(filter.validate().unwrap_err().starts_with(key), "{filter:?}");
    }
}

/// The first whose cumulative weight is more than the number times the sum: by hand, of a sum of 4.
#[test]
fn a_code_is_picked_by_where_a_uniform_number_falls() {
    let weights = [0.0, 1.0, 0.0, 2.0, 1.0, 0.0];
    for (unit, wanted) in [(0.0, 1), (0.249, 1), (0.25, 3), (0.749, 3), (0.75, 4), (0.9999, 4)] {
        assert_eq!(pick(&weights, unit), wanted, "{unit}");
    }
    let largest = 1.0 - f64::EPSILON / 2.0;
    for sum in [1.0, 1.25, 3.0, 1e300, 1e-300] {
        assert_eq!(pick(&[sum, 0.0], largest), 0);
    }
}

/// Chi square with 15 degrees of freedom is below 37.7 in 999 of 1000 cases; this seed's is a fixed number.
#[test]
fn keyed_draws_have_their_distribution() {
    let logits: Vec<f64> = (0..16).map(|code| (code as f64 * 1.7).sin() * 2.0).collect();
    let weights = Filter::default().weights(&logits, None);
    let (sum, num) = (weights.iter().sum::<f64>(), 100_000);
    let mut counts = [0.0; 16];
    for sample in 0..1000 {
        for token in 0..num / 1000 {
            let unit = draws(7, Purpose::PriorSample, token, sample).unit();
            counts[pick(&weights, unit)] += 1.0;
        }
    }
    let part = |(count, weight): (&f64, &f64)| {
        let expected = weight / sum * num as f64;
        (count - expected).powi(2) / expected
    };
    let chi_square: f64 = counts.iter().zip(&weights).map(part).sum();
    assert!(chi_square < 37.7, "{chi_square}");
}

#[test]
fn a_masked_prior_reveals_tokens_by_the_cosine() {
    assert_eq!(tokens_revealed(49, 8), [1, 3, 5, 6, 7, 9, 9, 9]);
    assert_eq!(tokens_revealed(49, 12), [1, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6]);
    assert_eq!(tokens_revealed(256, 12), [3, 6, 11, 15, 18, 22, 26, 27, 31, 31, 33, 33]);
    assert_eq!(tokens_revealed(5, 5), [1; 5]);
    assert_eq!(tokens_revealed(5, 1), [5]);
    assert_eq!(tokens_revealed(0, 3), [0; 3]);
    assert_eq!(tokens_revealed(2, 4), [1, 0, 0, 1]);
}

/// By hand: at the middle of five steps, and 1 + (s - 1) (1 - cos(pi / 2)) / 2 at half the way to the power of 1.
#[test]
fn guidance_follows_its_schedule() {
    let at = |schedule, first, at, num| {
        let guidance = Guidance { scale: 3.0, schedule, power: 1.0, first };
        guidance.at(at, num)
    };
    assert_eq!(at(GuidanceSchedule::Constant, 0, 4, 5), 3.0);
    assert_eq!([0, 1, 2].map(|step| at(GuidanceSchedule::Constant, 2, step, 5)), [3.0, 3.0, 1.0]);
    assert_eq!([0, 2, 4].map(|step| at(GuidanceSchedule::Linear, 0, step, 5)), [1.0, 2.0, 3.0]);
    assert_eq!(at(GuidanceSchedule::Linear, 0, 0, 1), 3.0);
    assert!((at(GuidanceSchedule::Power, 0, 2, 4) - 2.0).abs() < 1e-12);
    assert!(!Sampling::default().guidance.is_on());
}
