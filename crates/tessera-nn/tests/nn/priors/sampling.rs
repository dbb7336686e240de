//! Drawing whole samples.

use tch::{Device, Kind, Tensor};
use tessera_nn::prior::sample::{Choice, Filter, Guidance, Request, Samples, Sampling, Walk};
use tessera_nn::prior::{Codes, Prior, PriorConfig, TokenBatch, TrainingDraws};

use crate::priors::cases::{ALL, codes, config, fill, gradients, ids, made, numbers, of, tokens};

fn drawn(prior: &Prior, sampling: &Sampling, ids: &[u64], known_nt: Option<&Tensor>) -> Samples {
    let classes: Vec<i64> = ids.iter().map(|id| (*id % 4) as i64 - 1).collect();
    let classes_n = Tensor::from_slice(&classes);
    let request = Request { seed: 9, ids, classes_n: Some(&classes_n), known_nt };
    prior.check_request(sampling, &request).unwrap();
    prior.sample(sampling, &request)
}

fn filled(case: &str, kind: Kind) -> (Prior, Codes) {
    let (config, codes) = of(case);
    let prior = made(&config, &codes, kind);
    fill(&prior.parameters);
    (prior, codes)
}

/// -ln p of each token, drawn one by one with keys and values kept, against all of them at once. Logits are of size 1, and
/// there are up to 13 tokens.
#[test]
fn logits_with_a_cache_are_those_without() {
    for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 1e-5)] {
        for case in ALL.iter().filter(|case| !case.starts_with("masked")) {
            let (prior, _) = filled(case, kind);
            for num in [1, 3, 16] {
                let ids = ids(num);
                let samples = drawn(&prior, &Sampling::default(), &ids, None);
                let classes: Vec<i64> = ids.iter().map(|id| (*id % 4) as i64 - 1).collect();
                let batch = TokenBatch {
                    tokens_nt: &samples.tokens_nt,
                    classes_n: Some(&Tensor::from_slice(&classes)),
                    ids: &ids,
                };
                let off = (prior.nats(&batch, 0) - &samples.nats_nt).abs().max();
                let off = off.double_value(&[]);
                assert!(off < tolerance, "{case}, {num} of {kind:?}: {off:e}");
                let least = samples.nats_nt.min().double_value(&[]);
                assert!(least > 0.0, "{case}: all were drawn");
            }
        }
    }
}

/// Going through given tokens shows the logits by which they were drawn, and who reads the same values gets the same tokens by the
/// same logits, bit for bit: in float32, on one thread.
#[test]
fn a_walk_shows_the_logits_of_all_values_and_takes_what_is_said() {
    tch::set_num_threads(1);
    for case in ALL.iter().filter(|case| !case.starts_with("masked")) {
        let (prior, codes) = filled(case, Kind::Float);
        let (ids, tokens_nt) = (ids(16), tokens(&codes, 16));
        let request = |known_nt| Request { seed: 0, ids: &ids, classes_n: None, known_nt };
        let (mut values, mut seen, mut nats) = (Vec::new(), Vec::new(), 0.0);
        let mut write = |choice: Choice<'_>| {
            let value = choice.given.unwrap();
            let total: f64 = choice.logits.iter().map(|logit| logit.exp()).sum();
            nats -= choice.logits[value] - total.ln();
            values.push((choice.row, value));
            seen.extend_from_slice(choice.logits);
            value
        };
        let walk = Walk { choose: &mut write, steps: None };
        assert_eq!(prior.walk(&request(Some(&tokens_nt)), walk).unwrap(), tokens_nt, "{case}");
        let none = Tensor::full([16], -1, (Kind::Int64, Device::Cpu));
        let batch = TokenBatch { tokens_nt: &tokens_nt, classes_n: Some(&none), ids: &ids };
        let expected = prior.nats(&batch, 0).sum(Kind::Double).double_value(&[]);
        assert!((nats - expected).abs() < 1e-4 * expected, "{case}: {nats} {expected}");

        let (mut next, mut again) = (values.iter(), Vec::new());
        let mut read = |choice: Choice<'_>| {
            assert_eq!(choice.given, None);
            again.extend_from_slice(choice.logits);
            let (row, value) = next.next().unwrap();
            assert_eq!(choice.row, *row);
            *value
        };
        let walk = Walk { choose: &mut read, steps: None };
        assert_eq!(prior.walk(&request(None), walk).unwrap(), tokens_nt, "{case}");
        assert!(again == seen, "{case}: the same logits");
        let mut count = 0;
        let mut first = |_: Choice<'_>| {
            count += 1;
            0
        };
        drop(prior.walk(&request(None), Walk { choose: &mut first, steps: Some(1) }));
        assert!(count > 0 && count <= values.len() / 4, "{case}: {count} of the first step");
    }
    let (masked, _) = filled("masked", Kind::Float);
    let request = Request { seed: 0, ids: &ids(2), classes_n: None, known_nt: None };
    let mut never = |_: Choice<'_>| unreachable!("it has no order");
    assert!(masked.walk(&request, Walk { choose: &mut never, steps: None }).is_none());
}

/// The same 16 ids in another order, and beside others; in float32, whose rounding would show. One thread: among more,
/// MKL divides products as it likes.
#[test]
fn a_sample_does_not_depend_on_those_beside_it() {
    tch::set_num_threads(1);
    let guided = Guidance { scale: 1.5, ..Guidance::default() };
    for case in ALL {
        let (prior, codes) = filled(case, Kind::Float);
        for guidance in [Guidance::default(), guided] {
            let sampling = Sampling { guidance, steps: 4, ..Sampling::default() };
            let ids = ids(16);
            let samples = drawn(&prior, &sampling, &ids, None);
            let reversed: Vec<u64> = ids.iter().rev().copied().collect();
            let again = drawn(&prior, &sampling, &reversed, None);
            assert_eq!(samples.tokens_nt, again.tokens_nt.flip([0]), "{case}");
            assert_eq!(samples.nats_nt, again.nats_nt.flip([0]), "{case}");
            let mut others: Vec<u64> = (500..516).collect();
            others[5] = ids[2];
            // Some of the others have tokens given.
            let known_nt =
                Tensor::full([16, codes.num_tokens()], -1i64, (Kind::Int64, Device::Cpu));
            known_nt.narrow(0, 8, 4).copy_(&tokens(&codes, 4));
            let beside = drawn(&prior, &sampling, &others, Some(&known_nt));
            assert_eq!(samples.tokens_nt.get(2), beside.tokens_nt.get(5), "{case}");
        }
    }
}

/// A prompt of whole positions is given, or, to a masked prior, every third token.
#[test]
fn tokens_that_are_given_stay_and_the_others_are_codes() {
    for case in ALL {
        let (prior, codes) = filled(case, Kind::Float);
        let (given_nt, starts) = (tokens(&codes, 5), codes.starts());
        let (mut known, mut of_level) = (numbers(&given_nt), Vec::new());
        for (level, start) in codes.levels.iter().zip(starts) {
            let prompt =
                if codes.is_one_grid() { 2 } else { level.num_positions() * i64::from(start == 0) };
            of_level.extend(
                (0..level.num_positions()).map(|position| (position < prompt, level.num_codes)),
            );
        }
        for (place, token) in known.iter_mut().enumerate() {
            let token_of_sample = place % of_level.len();
            let is_given = match case.starts_with("masked") {
                true => token_of_sample.is_multiple_of(3),
                false => of_level[token_of_sample].0,
            };
            *token = if is_given { *token } else { -1.0 };
        }
        let known_nt = Tensor::from_slice(&known).to_kind(Kind::Int64).view_as(&given_nt);
        let samples = drawn(&prior, &Sampling::default(), &ids(5), Some(&known_nt));
        let (tokens, nats) = (numbers(&samples.tokens_nt), numbers(&samples.nats_nt));
        for (place, known) in known.iter().enumerate() {
            let num_codes = of_level[place % of_level.len()].1 as f64;
            assert!((0.0..num_codes).contains(&tokens[place]), "{case}");
            assert_eq!(*known >= 0.0, nats[place] == 0.0, "{case}");
            assert!(*known < 0.0 || *known == tokens[place], "{case}");
        }
        let everything = drawn(&prior, &Sampling::default(), &ids(5), Some(&given_nt));
        assert_eq!(everything.tokens_nt, given_nt, "{case}");
    }
}

/// One pass a token, and any noise: a token is revealed in each pass, and all of them at the end.
#[test]
fn a_masked_prior_ends_without_hidden_tokens() {
    for case in ["masked", "masked hierarchy"] {
        let (prior, codes) = filled(case, Kind::Float);
        for choice in [0.0, 1e9] {
            for steps in [1, 2, codes.num_tokens(), 40] {
                let sampling = Sampling { choice, steps, ..Sampling::default() };
                let samples = drawn(&prior, &sampling, &ids(3), None);
                assert!(samples.tokens_nt.min().int64_value(&[]) >= 0, "{case}: {steps}");
            }
        }
    }
}

/// Guidance of 1 computes nothing else; 0 is u + 0 (c - u), in float64 with other rounding of the batch at most.
#[test]
fn guidance_of_one_is_none_and_of_zero_is_without_class() {
    for case in ALL {
        let (prior, _) = filled(case, Kind::Double);
        let with = |scale: f64, classes_n: Option<&Tensor>| {
            let guidance = Guidance { scale, ..Guidance::default() };
            let request = Request { seed: 4, ids: &ids(4), classes_n, known_nt: None };
            prior.sample(&Sampling { guidance, ..Sampling::default() }, &request)
        };
        let classes_n = Tensor::from_slice(&[2i64, 0, 1, 1]);
        let plain = with(1.0, Some(&classes_n));
        let without = with(1.0, None);
        let zero = with(0.0, Some(&classes_n));
        assert_eq!(zero.tokens_nt, without.tokens_nt, "{case}");
        assert!(zero.nats_nt.allclose(&without.nats_nt, 0.0, 1e-11, false), "{case}");
        assert_ne!(plain.tokens_nt, without.tokens_nt, "{case}: the class counts");
        let nearly = with(1.0 + 1e-12, Some(&classes_n));
        assert_eq!(nearly.tokens_nt, plain.tokens_nt, "{case}");
    }
}

/// A pass that draws all hidden tokens says -ln p of each; of the same tokens and the same ones hidden it is the same. Two
/// programs for one sum, in float64.
#[test]
fn hidden_tokens_are_as_likely_as_when_they_are_drawn() {
    for case in ["masked", "masked hierarchy"] {
        let (prior, codes) = filled(case, Kind::Double);
        let given_nt = tokens(&codes, 3);
        let is_hidden: Vec<bool> = (0..given_nt.numel()).map(|at| at % 3 != 1).collect();
        let is_hidden_nt = Tensor::from_slice(&is_hidden).view_as(&given_nt);
        let known_nt = given_nt.masked_fill(&is_hidden_nt, -1);
        let sampling = Sampling { steps: 1, ..Sampling::default() };
        let samples = drawn(&prior, &sampling, &ids(3), Some(&known_nt));
        let classes: Vec<i64> = ids(3).iter().map(|id| (*id % 4) as i64 - 1).collect();
        let classes_n = Tensor::from_slice(&classes);
        let (tokens_nt, classes_n) = (&samples.tokens_nt, Some(&classes_n));
        let batch = TokenBatch { tokens_nt, classes_n, ids: &ids(3) };
        let nats_nt = prior.nats_of_hidden(&batch, &is_hidden_nt).unwrap();
        let off = (&nats_nt - &samples.nats_nt).abs().max().double_value(&[]);
        assert!(off < 1e-12, "{case}: {off:e}");
        let hidden = numbers(&nats_nt).into_iter().zip(is_hidden);
        assert!(hidden.into_iter().all(|(nats, is_hidden)| (nats > 0.0) == is_hidden), "{case}");
    }
    let (prior, codes) = filled("flatten", Kind::Double);
    let tokens_nt = &tokens(&codes, 1);
    let batch = TokenBatch { tokens_nt, classes_n: None, ids: &[0] };
    assert!(prior.nats_of_hidden(&batch, &tokens_nt.ge(0)).is_none());
}

#[test]
fn a_request_that_makes_no_sense_is_refused() {
    let (prior, codes) = filled("flatten", Kind::Float);
    let ids = ids(2);
    let refused = |sampling: Sampling, classes: &[i64], known_nt: Option<&Tensor>| {
        let classes_n = Tensor::from_slice(classes);
        let request = Request { seed: 0, ids: &ids, classes_n: Some(&classes_n), known_nt };
        prior.check_request(&sampling, &request).unwrap_err()
    };
    let good = Sampling::default();
    let filter = Filter { top_k: -3, ..Filter::default() };
    assert!(refused(Sampling { filter, ..good }, &[0, 0], None).starts_with("top_k"));
    assert!(refused(Sampling { steps: 0, ..good }, &[0, 0], None).starts_with("steps"));
    assert!(refused(Sampling { choice: -1.0, ..good }, &[0, 0], None).starts_with("choice"));
    let guidance = Guidance { power: 0.0, ..Guidance::default() };
    assert!(refused(Sampling { guidance, ..good }, &[0, 0], None).starts_with("guidance"));
    for classes in [&[0, 3][..], &[0], &[-2, 0]] {
        assert!(refused(good, classes, None).contains("-1 (none) to 2"));
    }
    let known_nt = tokens(&codes, 2);
    known_nt.get(0).get(3).copy_(&Tensor::from(-1i64));
    assert!(refused(good, &[0, 0], Some(&known_nt)).contains("give the first ones alone"));
    known_nt.get(0).get(3).copy_(&Tensor::from(7i64));
    assert!(refused(good, &[0, 0], Some(&known_nt)).contains("to 6, found 7"));
    assert!(refused(good, &[0, 0], Some(&known_nt.narrow(1, 0, 3))).contains("[2, 9]"));
    let (parts, _) = filled("flatten factors", Kind::Float);
    let filter = Filter { repetition: 1.5, ..Filter::default() };
    let request = Request { seed: 0, ids: &ids, classes_n: None, known_nt: None };
    let found = parts.check_request(&Sampling { filter, ..good }, &request).unwrap_err();
    assert!(found.starts_with("repetition"), "{found}");
}

/// Adam without decay, over the flat buffer.
fn train(prior: &Prior, tokens_nt: &Tensor, classes_n: &Tensor, steps: u64) -> f64 {
    let flat = prior.parameters.flat().shallow_clone();
    let (mut first, mut second) = (flat.zeros_like(), flat.zeros_like());
    let ids = ids(tokens_nt.size()[0] as u64);
    let batch = TokenBatch { tokens_nt, classes_n: Some(classes_n), ids: &ids };
    for step in 0..steps {
        let by = TrainingDraws { seed: 1, step };
        let losses = prior.losses(&batch, by);
        let gradient = gradients(&prior.parameters, &losses) / prior.weight(&ids, by);
        first = first * 0.9 + &gradient * 0.1;
        second = second * 0.99 + gradient.square() * 0.01;
        let [by_first, by_second] = [0.9f64, 0.99].map(|beta| 1.0 - beta.powi(step as i32 + 1));
        let rate = 3e-3 * (step as f64 / 20.0).min(1.0);
        let change = &first / by_first * rate / ((&second / by_second).sqrt() + 1e-8);
        tch::no_grad(|| drop(flat.shallow_clone().f_sub_(&change).unwrap()));
        prior.parameters.refresh();
    }
    numbers(&prior.nats(&batch, 0)).iter().sum::<f64>() / batch.tokens_nt.numel() as f64
}

/// Eight samples, a class each, by heart: below 0.01 nats a token, and the likeliest codes of a class are its sample's.
#[test]
fn eight_samples_are_learned_by_heart_and_drawn_again() {
    let network =
        "network = { width = 32, layers = 2, heads = 2, dropout = 0.0 }\nhide_class = 0.0\n";
    for (kind, more, factors, steps) in [
        ("autoregressive", "levels = \"flatten\"", false, 300),
        ("autoregressive", "levels = \"delay\"", false, 300),
        ("autoregressive", "levels = \"depth\"", false, 300),
        ("autoregressive", "factors = [2, 2]", true, 300),
        ("masked", "label_smoothing = 0.0", false, 800),
    ] {
        let config: PriorConfig = config(&format!("kind = \"{kind}\"\n{network}{more}"));
        let levels: &[(&[i64], i64)] =
            if factors { &[(&[3, 2], 16)] } else { &[(&[3, 2], 12), (&[3, 2], 10)] };
        let codes = codes(levels, 8);
        config.validate(&codes).unwrap();
        let prior = made(&config, &codes, Kind::Float);
        let (tokens_nt, classes_n) =
            (tokens(&codes, 8), Tensor::arange(8, (Kind::Int64, Device::Cpu)));
        let nats = train(&prior, &tokens_nt, &classes_n, steps);
        assert!(nats < 0.01, "{kind}, {more}: {nats}");
        let filter = Filter { temperature: 0.0, ..Filter::default() };
        let sampling = Sampling { filter, choice: 0.0, ..Sampling::default() };
        let request =
            Request { seed: 0, ids: &ids(8), classes_n: Some(&classes_n), known_nt: None };
        let samples = prior.sample(&sampling, &request);
        assert_eq!(samples.tokens_nt, tokens_nt, "{kind}, {more}");
    }
}
