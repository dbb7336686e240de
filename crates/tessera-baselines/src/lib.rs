//! The codecs of today that a trained tokenizer is measured against, and the table, the file of numbers
//! and the picture of a rate-distortion experiment.
//!
//! What a comparison is made of, in the order of its steps:
//!
//! 1. [`Picture`] and [`Sound`] are what all codecs code; [`Layout`] says how many pictures a file has.
//! 2. [`PictureCodec`] and [`SoundCodec`] are the [`Baseline`]s: PNG and JPEG in this process, WebP,
//!    JPEG XL, AVIF, Opus and Codec 2 by the programs of their makers.
//! 3. [`picture_figures`] and [`sound_figures`] say how far the decoded is from the original; a caller may
//!    bring a measure of its own.
//! 4. [`Report`] holds the [`Curve`]s of the model and of the baselines, and writes them as CSV, as a page
//!    and as a picture.
//!
//! The rules of the comparison are kept here, so that no caller can forget one: bytes are those of the
//! whole file and those of its payload; all codecs get the same items, whose hashes are listed; figures are
//! those of 8-bit values, of sounds of equal length; a baseline that is left out says why.
//!
//! The model is not here: its points are computed elsewhere and come in as a [`Curve`].
//!
//! ```no_run
//! use tessera_baselines::*;
//!
//! # fn reconstructed(_: usize) -> (u64, u64, Vec<Picture>) { unimplemented!() }
//! # fn experiment(pictures: &[Picture]) -> Result<(), BaselineError> {
//! let layout = Layout::Sheets { columns: 16, rows: 16 };
//! let columns = picture_figures(pictures, pictures)?.columns;
//! let what = format!("Fashion-MNIST, test; {}", layout.words());
//! let mut report = Report::of_pictures(&what, pictures, &columns);
//!
//! let mut points = Vec::new();
//! for levels in 1..=4 {
//!     let (file_bytes, payload_bytes, decoded) = reconstructed(levels);
//!     let figures = picture_figures(pictures, &decoded)?.values;
//!     points.push(Point { setting: format!("{levels} levels"), file_bytes, payload_bytes, figures });
//! }
//! let about = "residual codes, a prior; weights of 4.3 MB are not counted".to_owned();
//! report.add(Curve { name: "VQ-VAE".to_owned(), about, kind: Kind::Model, points })?;
//!
//! for codec in PictureCodec::ALL {
//!     match codec.obstacle(&layout.files(pictures)?[0]) {
//!         Some(reason) => report.leave_out(codec.name(), &reason),
//!         None => report.add(picture_curve(codec, pictures, layout, &columns, &picture_figures)?)?,
//!     }
//! }
//! report.write("docs/results/rate".as_ref())?;
//! # Ok(())
//! # }
//! ```

mod baseline;
mod codec;
mod curve;
mod error;
mod figures;
mod item;
mod payload;
mod report;
mod sheet;
mod tool;

pub use baseline::{Baseline, Coded, Judge, picture_curve, sound_curve};
pub use codec::{PictureCodec, PictureSetting, SoundCodec, SoundSetting};
pub use curve::{Amount, Column, Curve, Kind, Point};
pub use error::BaselineError;
pub use figures::{
    Figures, log_mel_distance, picture_figures, psnr, si_sdr, sound_figures, squared_error, ssim,
};
pub use item::{Picture, Sound};
pub use payload::{
    avif_payload, jpeg_payload, jpeg_xl_payload, ogg_payload, png_payload, webp_payload,
};
pub use report::{Comparison, Delta, EqualQuality, LeftOut, Match, Report, Winner, bd_rate};
pub use sheet::{Layout, cut, sheet};
