//! `tessera compress`, `decompress`, `tables` and `reconstruct`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tessera_apply::{
    ApplyError, Coding, Compressed, Counted, Decompressed, PriorCoder, Reconstructed, Stream,
    Watch, agree_on,
};
use tessera_control::ExitCode;
use tessera_model::{ModelPath, OpenModel};

use crate::apply::{self, data_of, place_of, told};
use crate::arguments::apply::ModelArguments;
use crate::arguments::compress::{
    CompressArguments, DecompressArguments, ReconstructArguments, TablesArguments,
};
use crate::session::Session;

/// Compresses a file, or a folder.
pub(crate) fn run_compress(arguments: &CompressArguments, stop: Arc<AtomicBool>) -> ExitCode {
    apply::run(&arguments.compute, stop, |session, watch| {
        let (model, coding) = opened(session, &arguments.model, arguments.prior.as_deref())?;
        let options = arguments.options();
        let done = tessera_apply::compress(session.comm(), &model, &coding, &options, watch)?;
        let text = told(arguments.compute.json, &done, &of_compressed(&done));
        Ok(Some(answer(&options.out, text, watch)))
    })
}

/// Decompresses a file.
pub(crate) fn run_decompress(arguments: &DecompressArguments, stop: Arc<AtomicBool>) -> ExitCode {
    apply::run(&arguments.compute, stop, |session, watch| {
        let (model, coding) = opened(session, &arguments.model, arguments.prior.as_deref())?;
        let options = arguments.options();
        let done = tessera_apply::decompress(session.comm(), &model, &coding, &options, watch)?;
        let text = told(arguments.compute.json, &done, &of_decompressed(&done));
        Ok(Some(answer(&options.out, text, watch)))
    })
}

/// Counts codes for tables.
pub(crate) fn run_tables(arguments: &TablesArguments, stop: Arc<AtomicBool>) -> ExitCode {
    apply::run(&arguments.compute, stop, |session, watch| {
        let model = tessera_apply::open(session.comm(), &arguments.model.path(), session.device())?;
        let data = agree_on(session.comm(), data_of(&arguments.data, &model, []))?;
        let options = arguments.options();
        let counted = tessera_apply::count_tables(session.comm(), &model, &data, &options, watch)?;
        Ok(Some(told(arguments.compute.json, &counted, &of_counted(&counted))))
    })
}

/// Makes files as a model reconstructs them.
pub(crate) fn run_reconstruct(arguments: &ReconstructArguments, stop: Arc<AtomicBool>) -> ExitCode {
    apply::run(&arguments.compute, stop, |session, watch| {
        let model = tessera_apply::open(session.comm(), &arguments.model.path(), session.device())?;
        let options = arguments.options();
        let done = tessera_apply::reconstruct(session.comm(), &model, &options, watch)?;
        let text = told(arguments.compute.json, &done, &of_reconstructed(&done));
        Ok(Some(answer(&options.out, text, watch)))
    })
}

fn of_reconstructed(done: &Reconstructed) -> String {
    let path = place(done.path.as_deref());
    let seam = done.seam.map_or(String::new(), |seam| {
        format!("; across borders of tiles the error changes {seam:.2} times as much as elsewhere")
    });
    format!("{path}  {} files, {:.2} dB{seam}\n", done.num_files, done.psnr)
}

/// The model, and what its codes may be coded with.
fn opened(
    session: &Session,
    model: &ModelArguments,
    prior: Option<&Path>,
) -> Result<(OpenModel, Coding), ApplyError> {
    let place = model.path();
    let model = tessera_apply::open(session.comm(), &place, session.device())?;
    let coding = coding_of(session, &model, &place)?;
    let Some(path) = prior else { return Ok((model, coding)) };
    let coder = prior_coder(session, path, &model)?;
    Ok((model, coding.by(coder)))
}

/// What a model's codes may be coded with, by what lies beside it.
pub(crate) fn coding_of(
    session: &Session,
    model: &OpenModel,
    place: &ModelPath,
) -> Result<Coding, ApplyError> {
    agree_on(session.comm(), Coding::of(model, &place.tables_folder()))
}

/// The prior of a run folder or a model folder as the coder of a model's codes.
pub(crate) fn prior_coder(
    session: &Session,
    path: &Path,
    model: &OpenModel,
) -> Result<PriorCoder, ApplyError> {
    let prior = tessera_apply::open_prior(session.comm(), &place_of(path), session.device())?;
    agree_on(session.comm(), PriorCoder::new(prior, model))
}

/// What is said on standard output; nothing there that goes there itself.
fn answer(out: &Stream, text: String, watch: &Watch<'_>) -> String {
    match out {
        Stream::Path(_) => text,
        Stream::Pipe => {
            text.lines().for_each(|line| (watch.say)(line.to_owned()));
            String::new()
        }
    }
}

/// Where something went.
fn place(path: Option<&Path>) -> String {
    path.map_or("standard output".to_owned(), |path| path.display().to_string())
}

fn of_compressed(done: &Compressed) -> String {
    let Compressed { num_files, num_codes, bytes, payload, bits_per_code, raw_bytes, .. } = done;
    let path = place(done.path.as_deref());
    let stored =
        done.stored_bytes.map_or(String::new(), |bytes| format!(", {bytes} as they were stored"));
    let hint = match done.has_tables {
        true => "",
        false => {
            "the model has no tables of its codes, so each takes as many bits as any: `tessera tables` counts them\n"
        }
    };
    format!(
        "{path}  {bytes} bytes of {num_files} files: {raw_bytes} decoded{stored}\n\
         {num_codes} codes of {bits_per_code:.3} bits, {} bytes beside them\n{hint}",
        bytes - payload
    )
}

fn of_decompressed(done: &Decompressed) -> String {
    let path = place(done.path.as_deref());
    let mut text = format!("{path}  {} files\n", done.num_files);
    for lost in &done.lost {
        let files = lost.files.join(", ");
        text.push_str(&format!("lost: {} samples from {} on, of {files}\n", lost.num, lost.first));
    }
    text
}

fn of_counted(counted: &Counted) -> String {
    let Counted { path, num_samples, levels, .. } = counted;
    let mut text = format!("{}  codes of {num_samples} samples\n", path.display());
    for (number, level) in levels.iter().enumerate() {
        let tables = match level.num_tables {
            1 => "one table".to_owned(),
            num => format!("{num} tables, one for each position"),
        };
        text.push_str(&format!(
            "level {number}  {:.3} bits a code, {:.3} where all are equally likely; {tables}\n",
            level.bits, level.uniform_bits
        ));
    }
    text
}
