//! The beginning that samples go on from: the first rows of the codes of a file, or of tokens.
//!
//! Rows are those of the first axis of the codes, so of film and sound it is time that is cut. Of levels with other grids,
//! a row of a coarser one is given where all of it lies within the rows of the finest that are given.

use std::path::PathBuf;

use serde::Serialize;
use tch::Tensor;
use tessera_checkpoint::sha256_hex;
use tessera_comm::{Communicator, broadcast_bytes};
use tessera_data::tokens::TokenLevel;
use tessera_model::{CodesFile, Level, OpenModel, OpenPrior};
use tessera_nn::prior::sample::{Request, Sampling};

use crate::agreement::agree_on;
use crate::decode::{TokenFile, shortened};
use crate::error::ApplyError;
use crate::input;

/// What samples begin with.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptOptions {
    /// A file as the autoencoder's data have it; or a token set, or a safetensors file of codes, that it made.
    pub path: PathBuf,
    /// Which split of a token set.
    pub split: String,
    /// Number of a sample among several; left out: the first.
    pub id: Option<u64>,
    /// How much of it is given.
    pub length: PromptLength,
}

/// How much of a prompt is given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PromptLength {
    /// This part of the rows, rounded to whole ones.
    Part(f64),
    /// So many rows of the finest level.
    Rows(u32),
}

impl PromptOptions {
    /// Whether the prompt is of codes already, so that no autoencoder is needed for it.
    pub fn is_tokens(&self) -> bool {
        let is_safetensors = self.path.extension().is_some_and(|end| end == "safetensors");
        is_safetensors || self.path.join("manifest.json").is_file()
    }
}

/// A prompt that has been read.
pub(crate) struct Prompt {
    /// Tokens in the order of the prior, `[T]`, -1: to be drawn.
    pub(crate) known_t: Vec<i64>,
    /// What is told of it.
    pub(crate) about: AboutPrompt,
}

/// What `samples.json` says of a prompt.
#[derive(Debug, Serialize)]
pub(crate) struct AboutPrompt {
    /// SHA-256 of the codes that are given, in the order of a token set, as uint32 in little endian.
    sha256: String,
    /// Rows of the finest level that are given.
    rows: u32,
    /// Codes that are given to each sample.
    pub(crate) num_given: usize,
}

/// Reads a prompt on rank 0, for all ranks. Collective.
///
/// # Errors
///
/// [`ApplyError`]; [`ApplyError::BadInput`] where the prior cannot go on from it.
pub(crate) fn prompt(
    comm: &dyn Communicator,
    prior: &OpenPrior,
    tokenizer: Option<&OpenModel>,
    options: &PromptOptions,
) -> Result<Prompt, ApplyError> {
    let codes = prior.codes();
    let rows = given_rows(&codes.levels, options.length).map_err(ApplyError::BadInput);
    let rows = agree_on(comm, rows)?;
    let read = match comm.rank() {
        0 => read(codes, tokenizer, options),
        _ => Ok(Vec::new()),
    };
    let bytes: Vec<u8> = agree_on(comm, read)?.iter().flat_map(|code| code.to_le_bytes()).collect();
    let bytes = broadcast_bytes(comm, &bytes)?;
    let (quads, _) = bytes.as_chunks::<4>();
    let is_given = first_rows(&codes.levels, rows);
    let tokens: Vec<u32> = quads.iter().map(|quad| u32::from_le_bytes(*quad)).collect();
    let known_t = known(codes, &tokens, &is_given);
    let known_nt = Tensor::from_slice(&known_t).view([1, -1]);
    let request = Request { seed: 0, ids: &[0], classes_n: None, known_nt: Some(&known_nt) };
    let checked = prior.prior.check_request(&Sampling::default(), &request);
    agree_on(comm, checked.map_err(ApplyError::BadInput))?;
    let given = quads.iter().zip(&is_given).filter(|(_, is_given)| **is_given);
    let given: Vec<u8> = given.flat_map(|(quad, _)| *quad).collect();
    let num_given = given.len() / 4;
    Ok(Prompt { known_t, about: AboutPrompt { sha256: sha256_hex(&given), rows, num_given } })
}

/// Codes of a token set's order in the order of the prior, those that are not given -1.
pub(crate) fn known(codes: &CodesFile, tokens: &[u32], is_given: &[bool]) -> Vec<i64> {
    let token = |place: i64| match is_given[place as usize] {
        true => i64::from(tokens[place as usize]),
        false => -1,
    };
    codes.order().into_iter().map(token).collect()
}

/// Rows of the finest level that are given, of which there is one at least, and one left.
fn given_rows(levels: &[TokenLevel], length: PromptLength) -> Result<u32, String> {
    let finest = levels.iter().max_by_key(|level| level.axes[0]).expect("codes have levels");
    let of_all = finest.axes[0];
    let (option, rows, found) = match length {
        PromptLength::Rows(rows) => ("--prompt-rows", i64::from(rows), rows.to_string()),
        PromptLength::Part(part) => {
            ("--prompt-part", (part * f64::from(of_all)).round() as i64, part.to_string())
        }
    };
    if (1..i64::from(of_all)).contains(&rows) {
        return Ok(rows as u32);
    }
    let axes: Vec<String> = finest.axes.iter().map(u32::to_string).collect();
    Err(format!(
        "{option} should leave rows to be drawn and give one at least: the codes of a sample are {}, so {} rows at most, \
         found {found}",
        axes.join(" x "),
        of_all - 1
    ))
}

/// Of each code in the order of a token set, whether it is in the first `rows` of the finest level.
fn first_rows(levels: &[TokenLevel], rows: u32) -> Vec<bool> {
    let of_all = levels.iter().map(|level| level.axes[0]).max().unwrap_or(1);
    let mut is_given = Vec::new();
    for level in levels {
        let own_rows = u64::from(rows) * u64::from(level.axes[0]) / u64::from(of_all);
        let num = level.num_positions();
        let num_given = own_rows as usize * (num / level.axes[0] as usize);
        is_given.extend((0..num).map(|position| position < num_given));
    }
    is_given
}

/// The codes of a prompt, in the order of a token set.
fn read(
    codes: &CodesFile,
    tokenizer: Option<&OpenModel>,
    options: &PromptOptions,
) -> Result<Vec<u32>, ApplyError> {
    let path = &options.path;
    let refused = |problem: String| ApplyError::BadInput(format!("--prompt {problem}"));
    let missing = |id: u64, num: u64| {
        refused(format!("{} has no sample {id} among {num}: see --prompt-id", path.display()))
    };
    if options.is_tokens() {
        let levels = codes.levels.iter().map(|level| Level {
            axes: level.axes.iter().map(|&size| i64::from(size)).collect(),
            num_codes: vec![i64::from(level.num_codes)],
        });
        let file = TokenFile::open_of(path, &options.split, &levels.collect::<Vec<_>>())?;
        if file.tokenizer() != codes.tokenizer {
            let [theirs, ours] = [file.tokenizer(), codes.tokenizer.as_str()].map(shortened);
            return Err(refused(format!(
                "{} has codes of the model {theirs}, the prior is of those of {ours}: encode the prompt with that model",
                path.display()
            )));
        }
        let row = match options.id {
            None => Some(0).filter(|_| file.num_samples() > 0),
            Some(id) => file.row_of(id),
        };
        let row = row.ok_or_else(|| missing(options.id.unwrap_or(0), file.num_samples()))?;
        return file.codes(row);
    }
    let tokenizer = tokenizer.ok_or_else(|| {
        refused(format!(
            "{} has to be encoded, and the prior's tokeniser is not where its training left it: name it by --tokenizer",
            path.display()
        ))
    })?;
    let source = input::files(&tokenizer.file, path)?;
    let (id, num) = (options.id.unwrap_or(0), source.num_samples());
    if id >= num {
        return Err(missing(id, num));
    }
    let mut codes = input::codes_of(tokenizer, &input::read(&*source, id)?, id)?;
    Ok(codes.swap_remove(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(axes: &[u32]) -> TokenLevel {
        TokenLevel { num_codes: 8, axes: axes.to_vec() }
    }

    /// By hand: half of 7 rows is 3.5, rounded up; 3 of 4 rows of the finest level hold 1 whole row of 2.
    #[test]
    fn whole_rows_are_given() {
        let one = [level(&[7, 2])];
        assert_eq!(given_rows(&one, PromptLength::Part(0.5)), Ok(4));
        assert_eq!(first_rows(&one, 4), [[true; 8].as_slice(), &[false; 6]].concat());
        let two = [level(&[4, 1]), level(&[2, 1])];
        assert_eq!(given_rows(&two, PromptLength::Rows(3)), Ok(3));
        assert_eq!(first_rows(&two, 3), [true, true, true, false, true, false]);
    }

    #[test]
    fn a_prompt_leaves_something_to_be_drawn() {
        let levels = [level(&[7, 2])];
        let outside = [
            PromptLength::Rows(0),
            PromptLength::Rows(7),
            PromptLength::Rows(90),
            PromptLength::Part(0.05),
            PromptLength::Part(f64::NAN),
        ];
        for length in outside {
            let problem = given_rows(&levels, length).unwrap_err();
            assert!(problem.contains("the codes of a sample are 7 x 2, so 6 rows"), "{problem}");
        }
    }
}
