//! Samples that go on from a beginning.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use tessera_apply::{PromptLength, PromptOptions, SampleOptions, Watch, sample};
use tessera_comm::{CommError, Threads};
use tessera_control::{Activity, ExitCode};

use super::{
    DEADLINE, SIDE, bytes, codes_of, options, picture, prior_of, sampled, tokenizer, tokens,
    write_picture,
};

/// Half of what is at a path.
fn prompt(path: &Path) -> PromptOptions {
    let split = "test".to_owned();
    PromptOptions { path: path.to_owned(), split, id: None, length: PromptLength::Part(0.5) }
}

fn prompted(out: &Path, num: u64, prompt: PromptOptions) -> SampleOptions {
    SampleOptions { prompt: Some(prompt), ..options(out, num) }
}

/// Of 4 x 4 codes on two levels, the first 8 of each level are given with half of the rows.
fn given(codes: &[u32]) -> [&[u32]; 2] {
    [&codes[..8], &codes[16..24]]
}

#[test]
fn samples_begin_with_the_prompts_codes_and_are_the_same_for_every_number_of_ranks() {
    for kind in ["autoregressive", "masked"] {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write_picture(&path("p.png"), &picture(1), SIDE, png::ColorType::Rgb);
        let out = |ranks: usize| path(&ranks.to_string());
        let told = sampled(kind, 1, &prompted(&out(1), 19, prompt(&path("p.png")))).unwrap();
        assert!(told.nats_per_token > 0.0);
        let one = bytes(&out(1));
        for ranks in [2, 3] {
            sampled(kind, ranks, &prompted(&out(ranks), 19, prompt(&path("p.png")))).unwrap();
            assert!(bytes(&out(ranks)) == one, "{kind}, {ranks} ranks");
        }
        let wanted = codes_of(&picture(1));
        let all = tokens(&out(1));
        assert!(all.iter().all(|sample| given(sample) == given(&wanted)), "{kind}");
        assert!(all.iter().any(|sample| sample[8..16] != all[0][8..16]), "{kind}: and then differ");

        let about: Value =
            serde_json::from_slice(&fs::read(out(1).join("samples.json")).unwrap()).unwrap();
        assert_eq!(
            (&about["prompt"]["num_given"], &about["prompt"]["rows"]),
            (&16.into(), &2.into())
        );
        let known: Vec<u8> =
            given(&wanted).concat().iter().flat_map(|code| code.to_le_bytes()).collect();
        assert_eq!(about["prompt"]["sha256"], tessera_checkpoint::sha256_hex(&known));

        // From tokens: those of the sixth sample, which are another picture's than the first.
        let id = Some(5);
        let from = PromptOptions {
            id,
            length: PromptLength::Rows(3),
            ..prompt(&out(1).join("tokens.safetensors"))
        };
        sampled(kind, 1, &prompted(&path("on"), 3, from)).unwrap();
        for sample in tokens(&path("on")) {
            assert_eq!(
                (&sample[..12], &sample[16..28]),
                (&all[5][..12], &all[5][16..28]),
                "{kind}"
            );
        }
    }
}

/// Whole rows of both levels of a hierarchy, of which the finer one comes first in a file and last in the prior. By hand:
/// 3 of 4 rows of the finest level hold one of 2.
#[test]
fn rows_of_a_hierarchy_are_a_beginning_for_a_masked_prior_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let codes: Vec<u8> = (0..16u32).flat_map(|code| code.to_le_bytes()).collect();
    let views = [("codes.0", vec![1, 16], &codes[..]), ("codes.1", vec![1, 4], &codes[..16])]
        .map(|(name, shape, codes)| (name, TensorView::new(Dtype::U32, shape, codes).unwrap()));
    let words = HashMap::from([("tokenizer".to_owned(), "a".repeat(64))]);
    fs::write(path("own.safetensors"), safetensors::serialize(views, Some(words)).unwrap())
        .unwrap();
    let drawn = |kind: &str| {
        let rows =
            PromptOptions { length: PromptLength::Rows(3), ..prompt(&path("own.safetensors")) };
        let options = SampleOptions { tokens_only: true, ..prompted(&path(kind), 3, rows) };
        tch::set_num_threads(1);
        let mut ranks = Threads::run(1, DEADLINE, |comm| {
            let prior = prior_of(kind, &"a".repeat(64), &[&[4, 4], &[2, 2]]);
            let activity = Activity::default();
            let watch = Watch { activity: &activity, stop: Arc::default(), say: &|_| () };
            Ok::<_, CommError>(sample(&comm, &prior, None, None, &options, &watch))
        });
        ranks.remove(0).unwrap()
    };
    drawn("masked").unwrap();
    for sample in tokens(&path("masked")) {
        assert_eq!(sample[..12], std::array::from_fn::<u32, 12, _>(|code| code as u32));
        assert_eq!(sample[16..18], [0, 1]);
    }
    let error = drawn("autoregressive").unwrap_err();
    assert_eq!(error.code(), ExitCode::BadInput);
    let wanted = "an autoregressive prior draws what follows given tokens: give the first ones alone, or take a masked prior";
    assert_eq!(error.to_string(), wanted);
}

/// Codes of another autoencoder are refused, and so is what no samples can go on from.
#[test]
fn a_prompt_that_does_not_fit_is_refused_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_picture(&path("p.png"), &picture(1), SIDE, png::ColorType::Rgb);
    let codes = [0u8; 4 * 16];
    let write = |name: &str, hash: &str| {
        let views = ["codes.0", "codes.1"]
            .map(|name| (name, TensorView::new(Dtype::U32, vec![1, 16], &codes).unwrap()));
        let words = HashMap::from([("tokenizer".to_owned(), hash.to_owned())]);
        fs::write(path(name), safetensors::serialize(views, Some(words)).unwrap()).unwrap();
    };
    write("own.safetensors", &tokenizer().file.hash);
    write("foreign.safetensors", &"0".repeat(64));
    let refused = |prompt: PromptOptions| {
        let error = sampled("autoregressive", 2, &prompted(&path("out"), 4, prompt)).unwrap_err();
        assert_eq!(error.code(), ExitCode::BadInput, "{error}");
        assert!(!path("out").exists() && !error.to_string().contains('\n'), "{error}");
        error.to_string()
    };
    let rows =
        |rows: u32| PromptOptions { length: PromptLength::Rows(rows), ..prompt(&path("p.png")) };
    for too_many in [4, 5, 1000] {
        let words = refused(rows(too_many));
        assert!(words.contains("are 4 x 4, so 3 rows at most, found"), "{words}");
    }
    let words = refused(prompt(&path("foreign.safetensors")));
    assert!(
        words.contains("has codes of the model 000000000000, the prior is of those of"),
        "{words}"
    );
    let words = refused(PromptOptions { id: Some(1), ..prompt(&path("own.safetensors")) });
    assert!(words.contains("has no sample 1 among 1"), "{words}");
    refused(prompt(&path("nowhere.png")));
    // Of a whole prompt that is there, and a model that is not told of: nothing to encode it by.
    sampled("autoregressive", 1, &prompted(&path("fits"), 1, prompt(&path("own.safetensors"))))
        .unwrap();
    assert_eq!(tokens(&path("fits"))[0][..8], [0; 8]);
}
