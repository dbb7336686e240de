//! The model of a server: it lives on one thread, and sees samples of several requests in one tile.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};
use tessera_model::{OpenModel, OpenPrior};
use tessera_nn::prior::sample::{Filter, Request, Sampling};
use tessera_nn::to_device;
use tessera_serve::{Drawing, Wanted};

use crate::decode::shown_of;
use crate::input::codes_of;
use crate::sample::{draw_at_once, num_at_once};

/// An autoencoder, and a prior of its codes where there is one.
pub(super) struct Engine {
    pub(super) model: OpenModel,
    pub(super) prior: Option<OpenPrior>,
}

impl tessera_serve::Engine for Engine {
    fn encode(&mut self, samples: &[&[u8]]) -> Result<Vec<Vec<u32>>, String> {
        codes_of(&self.model, &samples.concat(), 0).map_err(|error| match error {
            crate::ApplyError::NotFinite { .. } => {
                "the model's latents of this sample are not finite".to_owned()
            }
            error => error.to_string(),
        })
    }

    fn decode(&mut self, tokens: &[&[u32]]) -> Result<Vec<Vec<u8>>, String> {
        let of_samples: Vec<Vec<u32>> = tokens.iter().map(|&codes| codes.to_vec()).collect();
        let raw = shown_of(&self.model, &of_samples);
        let bytes = |row: usize| {
            let of_sample = raw.get(row as i64).contiguous().reshape([-1]);
            let bytes = Vec::<u8>::try_from(of_sample.view_dtype(Kind::Uint8));
            bytes.map_err(|error| error.to_string())
        };
        (0..tokens.len()).map(bytes).collect()
    }

    fn draw(&mut self, drawing: &Drawing, wanted: &[Wanted]) -> Result<Vec<Vec<u32>>, String> {
        let prior = self.prior.as_ref().ok_or("there is no prior")?;
        let mut drawn = vec![Vec::new(); wanted.len()];
        let mut by_seed: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (place, wanted) in wanted.iter().enumerate() {
            by_seed.entry(wanted.seed).or_default().push(place);
        }
        for (seed, places) in by_seed {
            let of_seed: Vec<Wanted> = places.iter().map(|&place| wanted[place]).collect();
            let samples = draw(prior, &sampling(drawing), seed, &of_seed);
            for (place, sample) in places.into_iter().zip(samples) {
                drawn[place] = sample;
            }
        }
        Ok(drawn)
    }
}

fn sampling(drawing: &Drawing) -> Sampling {
    let Drawing { temperature, top_k, top_p } = *drawing;
    let filter = Filter {
        temperature,
        top_k: top_k.map_or(0, i64::from),
        top_p: top_p.unwrap_or(1.0),
        ..Filter::default()
    };
    Sampling { filter, ..Sampling::default() }
}

/// Draws samples of one seed. As many are drawn at once as `tessera sample` draws, so that a number of a seed is the same
/// sample there and here, whoever else asks.
fn draw(prior: &OpenPrior, sampling: &Sampling, seed: u64, wanted: &[Wanted]) -> Vec<Vec<u32>> {
    let num = num_at_once(prior.prior.device());
    let mut samples = Vec::new();
    for part in wanted.chunks(num) {
        let mut ids: Vec<u64> = part.iter().map(|wanted| wanted.number).collect();
        let mut classes: Vec<i64> =
            part.iter().map(|wanted| wanted.class.map_or(-1, i64::from)).collect();
        ids.resize(num, 0);
        classes.resize(num, -1);
        let classes_n = to_device(Tensor::from_slice(&classes), prior.prior.device());
        let request = Request { seed, ids: &ids, classes_n: Some(&classes_n), known_nt: None };
        let drawn = draw_at_once(prior, sampling, &request);
        samples.extend(drawn.into_iter().take(part.len()).map(|sample| sample.tokens));
    }
    samples
}

/// Where a server computes.
pub(super) fn name_of(device: Device) -> String {
    match device {
        Device::Cuda(number) => format!("GPU {number}"),
        _ => "the CPU".to_owned(),
    }
}
