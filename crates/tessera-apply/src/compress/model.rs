//! A trained prior as the model of an entropy coder.
//!
//! Codes of a block are coded in the order in which the prior draws them, each by the probabilities that it gives given those before. All
//! samples of a block go through the prior together, so a block is a [tile](crate::tile) of them. Probabilities come from floats: who decodes has to
//! compute the very same bits. So a file names a hash of what the prior computes of a fixed sample, another machine is refused, and each
//! block is decoded before it is written.

use tch::{Device, Kind, Tensor};
use tessera_codec::coder::{StreamDecoder, StreamEncoder};
use tessera_codec::{PriorCoding, table};
use tessera_model::{OpenModel, OpenPrior};
use tessera_nn::prior::sample::{Choice, Request, Walk};
use tessera_nn::to_device;

use crate::decode::shortened;
use crate::error::ApplyError;
use crate::tile;

/// Steps of the prior whose logits are hashed.
const PROBED: i64 = 8;

/// A prior that codes are coded by.
#[derive(Debug)]
pub struct PriorCoder {
    prior: OpenPrior,
    /// Where each token of the prior stands in a sample of a token set.
    order: Vec<i64>,
    numerics: String,
}

impl PriorCoder {
    /// A prior of the codes of this model.
    ///
    /// # Errors
    ///
    /// [`ApplyError::BadInput`] if it is of other codes, or has no order.
    pub fn new(prior: OpenPrior, model: &OpenModel) -> Result<Self, ApplyError> {
        let (ours, theirs) = (&model.file.hash, &prior.codes().tokenizer);
        if ours != theirs {
            let [ours, theirs] = [ours, theirs].map(|hash| shortened(hash));
            return Err(ApplyError::BadInput(format!(
                "the prior is of the codes of the model {theirs}, this one is {ours}: name the prior that was trained on its codes"
            )));
        }
        let order = prior.codes().order();
        let mut coder = Self { prior, order, numerics: String::new() };
        coder.numerics = coder.probe()?;
        Ok(coder)
    }

    /// What a file says of it.
    pub(super) fn named(&self) -> PriorCoding {
        PriorCoding { prior: self.prior.file.hash.clone(), numerics: self.numerics.clone() }
    }

    /// Refuses a file that was coded by another prior, or with another arithmetic.
    pub(super) fn check(&self, file: &PriorCoding) -> Result<(), ApplyError> {
        let PriorCoding { prior, numerics } = self.named();
        if file.prior != prior {
            let [theirs, ours] = [&file.prior, &prior].map(|hash| shortened(hash));
            return Err(ApplyError::BadInput(format!(
                "this file was coded by the prior {theirs}, this one is {ours}: name that one with --prior"
            )));
        }
        if file.numerics != numerics {
            return Err(ApplyError::BadInput(
                "this file was coded where the prior computes other bits than here: decompress it with the same build, on the same \
                 kind of processor and with the same number of threads, or compress it without --prior"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Hash of logits of a fixed sample, in batches of both sizes.
    fn probe(&self) -> Result<String, ApplyError> {
        let mut bytes = Vec::new();
        for num in [tile::LEAST, tile::MOST] {
            let mut see = |choice: Choice<'_>| {
                bytes.extend(choice.logits.iter().flat_map(|logit| logit.to_le_bytes()));
                choice.logits.len() / 2
            };
            drop(self.walk(num, None, Walk { choose: &mut see, steps: Some(PROBED) })?);
        }
        Ok(tessera_checkpoint::sha256_hex(&bytes))
    }

    /// Goes through so many samples without class, whose tokens may be given.
    fn walk(
        &self,
        num: usize,
        known_nt: Option<&Tensor>,
        walk: Walk<'_>,
    ) -> Result<Tensor, ApplyError> {
        let ids: Vec<u64> = (0..num as u64).collect();
        let none = Tensor::full([num as i64], -1, (Kind::Int64, Device::Cpu));
        let classes_n = to_device(none, self.prior.prior.device());
        let request = Request { seed: 0, ids: &ids, classes_n: Some(&classes_n), known_nt };
        self.prior.prior.walk(&request, walk).ok_or_else(|| {
            let problem = "a masked prior has no order that codes could be coded in: name an autoregressive one";
            ApplyError::BadInput(problem.to_owned())
        })
    }

    /// The bytes of a block of up to a tile of samples, whose codes lie level after level.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Opened`] if they do not decode to the same codes here.
    pub(super) fn encode(&self, samples: &[Vec<u32>]) -> Result<Vec<u8>, ApplyError> {
        let rows = rows_of(samples.len());
        let num_tokens = self.order.len();
        let mut known = vec![0i64; rows * num_tokens];
        for (row, sample) in known.chunks_exact_mut(num_tokens).zip(samples) {
            for (token, &place) in row.iter_mut().zip(&self.order) {
                *token = i64::from(sample[place as usize]);
            }
        }
        let known_nt = Tensor::from_slice(&known).view([rows as i64, num_tokens as i64]);
        let (mut stream, mut wrong) = (StreamEncoder::default(), None);
        let mut write = |choice: Choice<'_>| {
            let value = choice.given.expect("all tokens are given");
            if choice.row < samples.len() {
                let written = stream.write(value, &table::of_logits(choice.logits));
                wrong = wrong.take().or(written.err());
            }
            value
        };
        drop(self.walk(rows, Some(&known_nt), Walk { choose: &mut write, steps: None })?);
        if let Some(error) = wrong {
            return Err(error.into());
        }
        let bytes = stream.finish();
        match self.decode(&bytes, samples.len()).is_some_and(|found| found == samples) {
            true => Ok(bytes),
            false => Err(ApplyError::Opened {
                code: tessera_control::ExitCode::Numeric,
                message: "the prior does not compute the same bits twice here, so nothing was written: compress without --prior, or \
                          without --fast"
                    .to_owned(),
            }),
        }
    }

    /// The codes of a block's samples, level after level; `None` if the bytes are no such block.
    pub(super) fn decode(&self, bytes: &[u8], num: usize) -> Option<Vec<Vec<u32>>> {
        if num > tile::MOST {
            return None;
        }
        let (mut stream, mut is_good) = (StreamDecoder::new(bytes)?, true);
        let mut read = |choice: Choice<'_>| {
            if choice.row >= num || !is_good {
                return 0;
            }
            stream.read(&table::of_logits(choice.logits)).unwrap_or_else(|| {
                is_good = false;
                0
            })
        };
        let walk = Walk { choose: &mut read, steps: None };
        let tokens_nt = self.walk(rows_of(num), None, walk).ok()?;
        if !is_good || !stream.is_at_end() {
            return None;
        }
        let sample = |row: usize| {
            let tokens = Vec::<i64>::try_from(tokens_nt.get(row as i64)).ok()?;
            let mut codes = vec![0; tokens.len()];
            for (&place, token) in self.order.iter().zip(tokens) {
                codes[place as usize] = token as u32;
            }
            Some(codes)
        };
        (0..num).map(sample).collect()
    }
}

/// Rows that the prior computes for so many samples: other sizes of batch are other bits, so there are two.
fn rows_of(num: usize) -> usize {
    if num <= tile::LEAST { tile::LEAST } else { tile::MOST }
}
