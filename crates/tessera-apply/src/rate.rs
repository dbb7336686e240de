//! The curve of rate and distortion of a model beside the codecs of today.
//!
//! Every point is of real files: the items are compressed as [`compress`](crate::compress()) does it, all of a point into one file, and
//! decompressed again; baselines code the same items ([`tessera_baselines`]), and one function judges both. A model has a point
//! for each number of levels that its quantiser can be cut to; models of one level, codebooks of several sizes, say, are
//! the points of one curve. With a prior there is a curve more.
//!
//! One process does it, since the codecs that it is measured against run on one machine.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::TempDir;
use tessera_baselines::{
    Baseline, BaselineError, Curve, Figures, Kind, Layout, Picture, PictureCodec, Point, Report,
    Sound, SoundCodec, picture_curve, picture_figures, sound_curve, sound_figures,
};
use tessera_comm::Communicator;
use tessera_data::{DataConfig, Draw, Modality, NativeFiles, SampleShape, source};
use tessera_model::OpenModel;
use tessera_model::media::{self, ImageShape};

use crate::compress::{
    Coding, CompressOptions, DecompressOptions, Stream, compress, decompress, sound_samples,
    unwritable,
};
use crate::encode::{check_data, usual_data};
use crate::error::ApplyError;
use crate::watch::Watch;

/// A model, and what its codes are coded with.
#[derive(Debug)]
pub struct RateModel {
    /// What it is called in tables.
    pub name: String,
    /// The model.
    pub model: OpenModel,
    /// By tables, where it has them.
    pub coding: Coding,
    /// By a prior, where one is given.
    pub by_prior: Option<Coding>,
}

/// What is coded, and what is written of it.
#[derive(Debug)]
pub struct RateOptions {
    /// A file or a folder of files.
    pub input: RateInput,
    /// Folder for the page, the table and the pictures.
    pub out: PathBuf,
    /// Items at most.
    pub limit: usize,
    /// Pictures across and down on a sheet that a baseline codes as one file; none: each is a file.
    pub sheet: Option<(u32, u32)>,
    /// Replace what is there.
    pub force: bool,
}

/// Where items come from.
#[derive(Debug)]
pub enum RateInput {
    /// A file, or a folder of files, at their own size.
    Files(PathBuf),
    /// Samples of a data set's split `test`.
    Data(Box<DataConfig>),
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Rated {
    /// Files that were written.
    pub files: Vec<PathBuf>,
    /// Items that were coded.
    pub num_items: usize,
    /// Names of the curves, the models' first.
    pub curves: Vec<String>,
    /// Baselines that were left out, and why.
    pub left_out: Vec<(String, String)>,
    /// Sentences on who wins, at each point of the first model's curve.
    pub verdicts: Vec<String>,
}

/// Items of one modality.
enum Items {
    Pictures(Vec<Picture>),
    Sounds(Vec<Sound>),
}

/// Measures models and baselines over the same items.
///
/// # Errors
///
/// [`ApplyError::BadInput`] where models are not of one modality, there is nothing to code, or it is of film;
/// those of compressing.
///
/// # Panics
///
/// If there are several ranks.
pub fn rate_distortion(
    comm: &dyn Communicator,
    models: &[RateModel],
    options: &RateOptions,
    watch: &Watch<'_>,
) -> Result<Rated, ApplyError> {
    assert_eq!(comm.world_size(), 1, "baselines run on one machine");
    let bad = |problem: String| ApplyError::BadInput(problem);
    let first = models.first().ok_or_else(|| bad("name a model".to_owned()))?;
    let shape = first.model.file.autoencoder().shape;
    for other in models {
        let found = other.model.file.autoencoder().shape;
        if (found.modality, found.channels) != (shape.modality, shape.channels) {
            return Err(bad(format!(
                "the models are compared over the same items: {} is for {found}, {} for {shape}",
                other.name, first.name
            )));
        }
    }
    check_out(options)?;
    let items = items(&first.model, options)?;
    let folder = TempDir::new().map_err(ApplyError::file("make", &std::env::temp_dir()))?;
    let input = folder.path().join("items");
    write_items(&items, &input)?;
    let judge = |decoded: &Items| items.judge(decoded).map_err(of_baseline);
    let own = judge(&items)?;
    let what = words(options, &items);
    let mut report = match &items {
        Items::Pictures(pictures) => Report::of_pictures(&what, pictures, &own.columns),
        Items::Sounds(sounds) => Report::of_sounds(&what, sounds, &own.columns),
    };
    let rating = Rating { comm, input: &input, folder: folder.path(), judge: &judge, watch };
    for curve in rating.curves(models)? {
        report.add(curve).map_err(of_baseline)?;
    }
    add_baselines(&mut report, &items, options, &own, watch)?;
    let files = report.write(&options.out).map_err(of_baseline)?;
    let verdicts = report.verdicts();
    Ok(Rated {
        files,
        num_items: items.len(),
        curves: report.curves.iter().map(|curve| curve.name.clone()).collect(),
        left_out: report
            .left_out
            .iter()
            .map(|left| (left.name.clone(), left.reason.clone()))
            .collect(),
        verdicts,
    })
}

/// Work on the models' curves.
struct Rating<'a> {
    comm: &'a dyn Communicator,
    /// Folder of the items as files.
    input: &'a Path,
    /// For what is in between.
    folder: &'a Path,
    judge: &'a dyn Fn(&Items) -> Result<Figures, ApplyError>,
    watch: &'a Watch<'a>,
}

impl Rating<'_> {
    /// The curves of all models, those of one level together.
    fn curves(&self, models: &[RateModel]) -> Result<Vec<Curve>, ApplyError> {
        let mut curves = Vec::new();
        let (mut single, mut single_by_prior) = (Vec::new(), Vec::new());
        for RateModel { name, model, coding, by_prior } in models {
            let num_levels = num_levels(model);
            let mut points = Vec::new();
            for levels in 1..=num_levels {
                let setting = match num_levels {
                    1 => setting_of(name, model),
                    _ => format!("{levels} of {num_levels} codes"),
                };
                let kept = (num_levels > 1).then_some(levels);
                points.push(self.point((model, coding), kept, setting)?);
            }
            let prior = by_prior.as_ref();
            let prior =
                prior.map(|coding| self.point((model, coding), None, setting_of(name, model)));
            single_by_prior.extend(prior.transpose()?);
            match num_levels {
                1 => single.extend(points.into_iter().map(|point| (name.as_str(), point))),
                _ => curves.push(curve(
                    name,
                    about(model, "by how many codes of a position are kept"),
                    points,
                )),
            }
        }
        if !single.is_empty() {
            let (names, points): (Vec<&str>, Vec<Point>) = single.into_iter().unzip();
            let (name, along) = match names.as_slice() {
                [alone] => (*alone, "all codes of a sample"),
                _ => ("models", "a point for each model"),
            };
            let singles =
                models.iter().map(|one| &one.model).filter(|model| num_levels(model) == 1);
            let largest = singles.max_by_key(|model| num_parameters(model));
            let largest = largest.unwrap_or(&models[0].model);
            curves.insert(0, curve(name, about(largest, along), points));
        }
        if !single_by_prior.is_empty() {
            let name = format!("{} by a prior", models[0].name);
            curves.push(curve(
                &name,
                about(&models[0].model, "coded by a prior, all codes"),
                single_by_prior,
            ));
        }
        Ok(curves)
    }

    /// All items in one file, and back.
    fn point(
        &self,
        (model, coding): (&OpenModel, &Coding),
        levels: Option<usize>,
        setting: String,
    ) -> Result<Point, ApplyError> {
        let (file, back) = (self.folder.join("point.tsc"), self.folder.join("back"));
        let stream = |path: &Path| Stream::Path(path.to_owned());
        let there = CompressOptions {
            input: stream(self.input),
            out: stream(&file),
            levels,
            stream: None,
            skips: false,
            force: true,
        };
        let done = compress(self.comm, model, coding, &there, self.watch)?;
        let here = DecompressOptions {
            input: stream(&file),
            out: stream(&back),
            salvage: false,
            force: true,
        };
        decompress(self.comm, model, coding, &here, self.watch)?;
        let decoded = read_items(model, &back, usize::MAX)?;
        fs::remove_dir_all(&back).map_err(ApplyError::file("remove", &back))?;
        let figures = (self.judge)(&decoded)?.values;
        (self.watch.say)(format!("{setting}: {} bytes", done.bytes));
        Ok(Point { setting, file_bytes: done.bytes, payload_bytes: done.payload, figures })
    }
}

fn curve(name: &str, about: String, points: Vec<Point>) -> Curve {
    Curve { name: name.to_owned(), about, kind: Kind::Model, points }
}

/// What a reader has to know of a model's curve.
fn about(model: &OpenModel, along: &str) -> String {
    let megabytes = 4.0 * num_parameters(model) as f64 / 1e6;
    format!(
        "{along}; one file of all items; weights of {megabytes:.1} MB, which whoever decodes has to have, are not counted"
    )
}

fn num_parameters(model: &OpenModel) -> usize {
    model.vqvae.parameters.flat().numel()
}

/// Levels that a file can keep.
fn num_levels(model: &OpenModel) -> usize {
    match model.vqvae.quantizers.as_slice() {
        [quantizer] => quantizer.num_residual_levels(),
        _ => 1,
    }
}

fn setting_of(name: &str, model: &OpenModel) -> String {
    let codes = model.vqvae.num_codes();
    let codes: Vec<String> = codes.iter().map(ToString::to_string).collect();
    format!("{name}, K {}", codes.join(" "))
}

fn add_baselines(
    report: &mut Report,
    items: &Items,
    options: &RateOptions,
    own: &Figures,
    watch: &Watch<'_>,
) -> Result<(), ApplyError> {
    let mut add =
        |name: &str, obstacle: Option<String>, curve: &dyn Fn() -> Result<Curve, BaselineError>| {
            match obstacle {
                Some(reason) => {
                    (watch.say)(format!("{name} is left out: {reason}"));
                    report.leave_out(name, &reason);
                    Ok(())
                }
                None => {
                    (watch.say)(name.to_owned());
                    curve().and_then(|curve| report.add(curve)).map_err(of_baseline)
                }
            }
        };
    match items {
        Items::Pictures(pictures) => {
            let layout = options
                .sheet
                .map_or(Layout::Single, |(columns, rows)| Layout::Sheets { columns, rows });
            let files = layout.files(pictures).map_err(of_baseline)?;
            for codec in PictureCodec::ALL {
                add(codec.name(), codec.obstacle(&files[0]), &|| {
                    picture_curve(codec, pictures, layout, &own.columns, &picture_figures)
                })?;
            }
        }
        Items::Sounds(sounds) => {
            for codec in SoundCodec::ALL {
                add(codec.name(), codec.obstacle(&sounds[0]), &|| {
                    sound_curve(codec, sounds, &own.columns, &sound_figures)
                })?;
            }
        }
    }
    Ok(())
}

fn of_baseline(error: BaselineError) -> ApplyError {
    ApplyError::Opened { code: tessera_control::ExitCode::Failed, message: error.to_string() }
}

impl Items {
    fn len(&self) -> usize {
        match self {
            Self::Pictures(pictures) => pictures.len(),
            Self::Sounds(sounds) => sounds.len(),
        }
    }

    fn judge(&self, decoded: &Self) -> Result<Figures, BaselineError> {
        match (self, decoded) {
            (Self::Pictures(originals), Self::Pictures(decoded)) => {
                picture_figures(originals, decoded)
            }
            (Self::Sounds(originals), Self::Sounds(decoded)) => sound_figures(originals, decoded),
            _ => unreachable!("a model is of one modality"),
        }
    }

    /// Another item; what its shape and bytes are.
    fn push(&mut self, shape: SampleShape, bytes: Vec<u8>) {
        match self {
            Self::Pictures(pictures) => {
                let SampleShape { height, width, channels, .. } = shape;
                pictures.push(Picture { height, width, channels, bytes });
            }
            Self::Sounds(sounds) => {
                let samples = sound_samples(&bytes);
                let channels = u16::try_from(shape.channels).unwrap_or(u16::MAX);
                sounds.push(Sound { rate: shape.sample_rate, channels, samples });
            }
        }
    }

    fn none(modality: Modality) -> Result<Self, ApplyError> {
        match modality {
            Modality::Image => Ok(Self::Pictures(Vec::new())),
            Modality::Audio => Ok(Self::Sounds(Vec::new())),
            Modality::Video | Modality::Tokens => Err(ApplyError::BadInput(
                "there are baselines for pictures and sound: film is measured by launch/bench/compressed.py".to_owned(),
            )),
        }
    }
}

fn items(model: &OpenModel, options: &RateOptions) -> Result<Items, ApplyError> {
    let items = match &options.input {
        RateInput::Files(path) => read_items(model, path, options.limit)?,
        RateInput::Data(data) => samples(model, data, options.limit)?,
    };
    match items.len() {
        0 => Err(ApplyError::BadInput("there is nothing to code".to_owned())),
        _ => Ok(items),
    }
}

/// Files at their own size, in the order of their names.
fn read_items(model: &OpenModel, path: &Path, limit: usize) -> Result<Items, ApplyError> {
    let mut data = usual_data(&model.file, true)?;
    data.path = path.to_owned();
    let mut items = Items::none(data.modality)?;
    let files = NativeFiles::open(&data)?;
    for number in 0..files.len().min(limit) {
        let native = files.read(number)?;
        let shape = native.shape().shape;
        let bytes = files.frames(number, &native, 0..u64::from(shape.frames))?;
        items.push(shape, bytes);
    }
    Ok(items)
}

/// Samples of a split, as they are.
fn samples(model: &OpenModel, data: &DataConfig, limit: usize) -> Result<Items, ApplyError> {
    let source = source::open(data, "test")?;
    let shape = source.shape();
    check_data(&model.file, shape)?;
    let mut items = Items::none(shape.modality)?;
    let num = source.num_samples().min(limit as u64);
    for number in 0..num {
        let mut bytes = vec![0; shape.num_bytes()];
        // Spread over the split: neighbours are often alike.
        let id = number * source.num_samples() / num;
        source.read(id, Draw::NONE, &mut bytes)?;
        items.push(shape, bytes);
    }
    Ok(items)
}

/// Items as files without loss, in the order of their numbers.
fn write_items(items: &Items, folder: &Path) -> Result<(), ApplyError> {
    fs::create_dir_all(folder).map_err(ApplyError::file("make", folder))?;
    let write = |number: usize, end: &str, bytes: Vec<u8>| {
        let path = folder.join(format!("{number:08}.{end}"));
        fs::write(&path, bytes).map_err(ApplyError::file("write", &path))
    };
    match items {
        Items::Pictures(pictures) => pictures.iter().enumerate().try_for_each(|(number, one)| {
            let [height, width, channels] =
                [one.height, one.width, one.channels].map(|n| n as usize);
            let shape = ImageShape { height, width, channels };
            let bytes =
                media::png(&one.bytes, shape).map_err(ApplyError::file("encode", folder))?;
            write(number, "png", bytes)
        }),
        Items::Sounds(sounds) => sounds.iter().enumerate().try_for_each(|(number, one)| {
            let wav = media::wav(&one.samples, one.channels, one.rate);
            write(number, "wav", wav.map_err(ApplyError::file("encode", folder))?)
        }),
    }
}

/// Makes the folder before anything is measured.
fn check_out(options: &RateOptions) -> Result<(), ApplyError> {
    let page = options.out.join("rate_distortion.md");
    if page.exists() && !options.force {
        return Err(ApplyError::BadInput(format!(
            "{} is there already: name another folder, or give --force to replace it",
            page.display()
        )));
    }
    fs::create_dir_all(&options.out).map_err(|error| unwritable(&options.out, &error))
}

fn words(options: &RateOptions, items: &Items) -> String {
    let from = match &options.input {
        RateInput::Files(path) => path.display().to_string(),
        RateInput::Data(data) => format!("{}, split test", data.path.display()),
    };
    let layout = match (items, options.sheet) {
        (Items::Pictures(_), Some((columns, rows))) => {
            format!("; for baselines {}", Layout::Sheets { columns, rows }.words())
        }
        _ => String::new(),
    };
    format!("{} items of {from}{layout}", items.len())
}
