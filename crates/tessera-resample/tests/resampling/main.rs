//! Pictures at another size and sound at another rate, against arithmetic by hand and sox. Beside the crate and not in
//! it, since its libraries would be compiled once more.

mod picture;
mod sound;
