//! Priors: what has to hold of the losses of any of them. `priors/pytorch.rs` compares steps with PyTorch's,
//! `priors/sampling.rs` is about drawing samples, `priors/filters.rs` about drawing a code.

mod cases;
mod filters;
mod pytorch;
mod sampling;

use tch::{Device, Kind, Tensor};
use tessera_nn::Kinds;
use tessera_nn::parameters::Stage;
use tessera_nn::prior::{Codes, Level, Prior, PriorConfig, TokenBatch, TokenLosses, TrainingDraws};

use cases::{ALL, fill, gradients, ids, made, numbers, of, tokens};

fn step_sum(losses: &TokenLosses, weight: f64) -> f64 {
    losses.sum.double_value(&[]) / weight
}

/// The mean of the logarithms of the levels' numbers of codes, each with its tokens.
#[test]
fn the_first_loss_is_ln_k() {
    for case in ALL {
        let (config, codes) = of(case);
        let prior = made(&config, &codes, Kind::Double);
        let tokens_nt = tokens(&codes, 3);
        let batch = TokenBatch { tokens_nt: &tokens_nt, classes_n: None, ids: &ids(3) };
        let by = TrainingDraws { seed: 1, step: 0 };
        let losses = prior.losses(&batch, by);
        let of_level = |(level, num): (&Level, &u64)| (level.num_codes as f64).ln() * *num as f64;
        let wanted: f64 = codes.levels.iter().zip(&losses.num_l).map(of_level).sum();
        let weight: f64 = losses.num_l.iter().map(|num| *num as f64).sum();
        let found = step_sum(&losses, prior.weight(batch.ids, by));
        assert!((found - wanted / weight).abs() < 1e-12, "{case}: {found}");
        let nats = numbers(&losses.nats_l).iter().sum::<f64>();
        assert!((nats - wanted).abs() < 1e-9, "{case}: {nats}");
        if codes.levels.len() == 1 {
            let wanted = (codes.levels[0].num_codes as f64).ln();
            assert!((found - wanted).abs() < 1e-12, "{case}: {found}");
        }
    }
}

/// Which tokens may depend on which: those behind it in the order of the scheme, and all of them.
#[test]
fn a_token_changes_the_logits_of_all_that_follow_it_and_no_others() {
    for case in ALL.iter().filter(|case| !case.starts_with("masked")) {
        let (config, codes) = of(case);
        let prior = made(&config, &codes, Kind::Double);
        fill(&prior.parameters);
        let tokens_nt = tokens(&codes, 1);
        let nats_of = |tokens_nt: &Tensor| {
            numbers(&prior.nats(&TokenBatch { tokens_nt, classes_n: None, ids: &[0] }, 0))
        };
        let before = nats_of(&tokens_nt);
        let turns = turns(case, &codes);
        for (token, level) in levels_of_tokens(&codes).into_iter().enumerate() {
            let changed_nt = tokens_nt.copy();
            let mut place = changed_nt.select(1, token as i64);
            let other = (&place + 1).remainder(codes.levels[level].num_codes);
            place.copy_(&other);
            let after = nats_of(&changed_nt);
            for other in (0..before.len()).filter(|other| *other != token) {
                let changed = before[other] != after[other];
                let follows = turns[other] > turns[token];
                assert_eq!(changed, follows, "{case}: token {token} at {other}");
            }
        }
    }
}

fn levels_of_tokens(codes: &Codes) -> Vec<usize> {
    let of = |(level, of): (usize, &Level)| vec![level; of.num_positions() as usize];
    codes.levels.iter().enumerate().flat_map(of).collect()
}

/// At which turn each token is drawn: by hand, one after another, or all levels of a step at once.
fn turns(case: &str, codes: &Codes) -> Vec<i64> {
    let (num, mut turns) = (codes.levels.len() as i64, Vec::new());
    for (level, start) in (0..num).zip(codes.starts()) {
        for position in 0..codes.levels[level as usize].num_positions() {
            turns.push(match case.split(' ').next().unwrap() {
                "delay" => position + level,
                _ if codes.is_one_grid() => position * num + level,
                _ => start + position,
            });
        }
    }
    turns
}

/// What is drawn for a sample (hidden class, noise, masks, dropped numbers) has its id for a key, not its place: parts of
/// a batch in another order add up to the whole, to rounding.
#[test]
fn parts_of_a_batch_in_any_order_add_up_to_the_whole() {
    for case in ALL {
        let (config, codes) = of(case);
        let prior = made(&config, &codes, Kind::Double);
        fill(&prior.parameters);
        let (tokens_nt, ids) = (tokens(&codes, 7), ids(7));
        let classes_n = Tensor::arange(7, (Kind::Int64, Device::Cpu)).remainder(4) - 1;
        let by = TrainingDraws { seed: 3, step: 11 };
        let run = |rows: &[i64]| {
            let at = Tensor::from_slice(rows);
            let ids: Vec<u64> = rows.iter().map(|row| ids[*row as usize]).collect();
            let (tokens_nt, classes_n) =
                (tokens_nt.index_select(0, &at), classes_n.index_select(0, &at));
            let batch =
                TokenBatch { tokens_nt: &tokens_nt, classes_n: Some(&classes_n), ids: &ids };
            let losses = prior.losses(&batch, by);
            let gradients = gradients(&prior.parameters, &losses);
            let all = [losses.sum.detach().view(1), losses.nats_l, gradients];
            let nats_nt = prior.nats(&batch, 3);
            (Tensor::cat(&all, 0), prior.weight(&ids, by), losses.num_l, nats_nt)
        };
        let whole = run(&[0, 1, 2, 3, 4, 5, 6]);
        let parts = [run(&[5, 0, 3]), run(&[6]), run(&[]), run(&[1, 4, 2])];
        let sum = parts.iter().map(|part| part.0.shallow_clone()).reduce(|sum, part| sum + part);
        let off = (sum.unwrap() - &whole.0).abs().max().double_value(&[]);
        assert!(off < 1e-11, "{case}: {off:e}");
        assert_eq!(parts.iter().map(|part| part.1).sum::<f64>(), whole.1, "{case}");
        let num = |at: usize| parts.iter().map(|part| part.2[at]).sum::<u64>();
        assert_eq!((0..codes.levels.len()).map(num).collect::<Vec<_>>(), whole.2, "{case}");
        let nats = whole.3.index_select(0, &Tensor::from_slice(&[5i64, 0, 3])) - &parts[0].3;
        assert!(nats.abs().max().double_value(&[]) < 1e-12, "{case}");
    }
}

/// Where attention and MLPs add nothing, a hidden token sees no other, and nothing of what it does not see may reach
/// the loss: a code that is seen is no target.
#[test]
fn a_code_that_is_seen_is_no_target_of_a_masked_prior() {
    let (config, codes) = of("masked");
    let prior = made(&config, &codes, Kind::Double);
    fill(&prior.parameters);
    for (name, mut view) in prior.parameters.named_views() {
        if name.ends_with("out_proj.weight") {
            let _ = view.zero_();
        }
    }
    let (tokens_nt, by) = (tokens(&codes, 4), TrainingDraws { seed: 2, step: 5 });
    let ids = ids(4);
    let sum_of = |tokens_nt: &Tensor| {
        let batch = TokenBatch { tokens_nt, classes_n: None, ids: &ids };
        prior.losses(&batch, by).sum.double_value(&[])
    };
    let before = sum_of(&tokens_nt);
    let mut num_targets = 0.0;
    for place in 0..tokens_nt.numel() as i64 {
        let changed_nt = tokens_nt.copy();
        let mut token = changed_nt.view([-1]).narrow(0, place, 1);
        let other = (&token + 1).remainder(codes.levels[0].num_codes);
        token.copy_(&other);
        num_targets += f64::from(u8::from(sum_of(&changed_nt) != before));
    }
    assert_eq!(num_targets, prior.weight(&ids, by));
}

/// By hand: 851,968 of four blocks, 1,152 of nine norms, 256 x 128 of codes and as many of the head, 11 x 128 of classes,
/// 50 x 128 of positions; a masked prior has a vector more, for what is hidden.
#[test]
fn the_default_prior_of_pictures_has_926464_parameters() {
    let level = Level { axes: vec![7, 7], num_codes: 256 };
    let codes = Codes { levels: vec![level], num_classes: 10 };
    for (text, wanted) in [("kind = \"autoregressive\"", 926_464), ("kind = \"masked\"", 926_592)] {
        let config: PriorConfig = toml::from_str(text).unwrap();
        let prior = made(&config, &codes, Kind::Float);
        assert_eq!(prior.parameters.num_trainable(), wanted);
        assert_eq!(prior.parameters.num_of(Stage::Prior), wanted);
        assert!(prior.cost().flops > 2 * 49 * 850_000, "{:?}", prior.cost());
    }
}

/// bfloat16 has 8 bits of mantissa, so nats are off by some thousandths.
#[test]
fn layers_may_compute_in_bfloat16() {
    for case in ["flatten", "depth", "masked"] {
        let (config, codes) = of(case);
        let kinds = Kinds { master: Kind::Float, compute: Kind::BFloat16 };
        let coarse = Prior::new(&config, &codes, 0, kinds, Device::Cpu);
        let fine = made(&config, &codes, Kind::Float);
        for prior in [&coarse, &fine] {
            fill(&prior.parameters);
        }
        let (tokens_nt, ids) = (tokens(&codes, 8), ids(8));
        let batch = TokenBatch { tokens_nt: &tokens_nt, classes_n: None, ids: &ids };
        let by = TrainingDraws { seed: 0, step: 0 };
        let [coarse, fine] = [&coarse, &fine].map(|prior| prior.losses(&batch, by));
        assert_eq!(coarse.sum.kind(), Kind::Float);
        let [coarse, fine] = [coarse, fine].map(|losses| losses.sum.double_value(&[]));
        assert!((coarse / fine - 1.0).abs() < 0.02, "{case}: {coarse} and {fine}");
    }
}

/// 1 is libtorch's fused kernel, 0 the scores in memory.
#[test]
fn attention_takes_the_fused_kernel() {
    let heads = Tensor::zeros([2, 4, 49, 32], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    for is_causal in [false, true] {
        let choice = Tensor::internal_fused_sdp_choice(
            &heads,
            &heads,
            &heads,
            None::<Tensor>,
            0.0,
            is_causal,
            None,
            false,
        );
        assert_eq!(choice, 1);
    }
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_by_its_key() {
    for (text, codes, wanted) in [
        ("network.width = 0", "flatten", "prior.network.width should be from 1 to 8192"),
        ("network.heads = 5", "flatten", "prior.network.heads should divide"),
        ("network.dropout = 1.0", "flatten", "prior.network.dropout should be at least 0"),
        ("network = { positions = \"rotary\", width = 8 }", "flatten", "needs heads of an even"),
        ("levels = \"delay\"", "flatten hierarchy", "prior.levels should be \"flatten\""),
        ("prefix = 9", "flatten", "prior.prefix should be 0 to 8"),
        ("keep_input = 0.0", "flatten", "prior.keep_input should be above 0"),
        ("hide_class = 2.0", "flatten", "prior.hide_class should be from 0 to 1"),
        ("label_smoothing = 1.0", "flatten", "prior.label_smoothing should be at least 0"),
        ("factors = [3]", "flatten", "prior.factors should be empty, or two or more"),
        ("factors = [2, 4]", "flatten factors", "prior.factors are 6 bits together"),
        ("factors = [1, 1]\nlevels = \"delay\"", "delay", "prior.factors should be empty with"),
        ("inner_layers = 0", "flatten", "prior.inner_layers should be from 1 to 96"),
    ] {
        let config: PriorConfig =
            toml::from_str(&format!("kind = \"autoregressive\"\n{text}")).unwrap();
        let found = config.validate(&of(codes).1).unwrap_err();
        assert!(found.contains(wanted), "{text}: {found}");
        assert!(!found.contains('\n'), "{found}");
    }
    assert!(toml::from_str::<PriorConfig>("kind = \"masked\"\nprefix = 1").is_err());
    let none = Codes { levels: Vec::new(), num_classes: 0 };
    assert!(PriorConfig::default().validate(&none).is_err());
}
