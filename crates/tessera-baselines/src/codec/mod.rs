//! The codecs of today.

mod align;
mod codec2;
mod inside;
mod opus;
mod pictures;
mod programs;
mod sounds;

pub use pictures::{PictureCodec, PictureSetting};
pub use sounds::{SoundCodec, SoundSetting};
