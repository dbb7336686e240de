//! Where pictures are filled: which pixels, and which of their codes are drawn anew.
//!
//! Of a mask the pixels are certain, and codes around them are drawn anew since the encoder saw some of the hole in them. Of
//! damage that was found codes are certain, and those around them count as damaged too, pixels and all.

use tessera_checkpoint::sha256_hex;

use super::out::{AboutMask, AboutPicture};
use super::places::Places;

/// The holes of pictures.
pub(super) struct Holes<'a> {
    places: &'a Places,
    /// Cells around what is certain.
    widen: usize,
    certain: Certain,
}

enum Certain {
    /// The same pixels of all pictures.
    Pixels(Vec<bool>),
    /// Codes of each picture.
    Codes(Vec<Found>),
}

/// What was found of a picture's codes.
struct Found {
    nats: Vec<f32>,
    is_damaged: Vec<bool>,
}

impl<'a> Holes<'a> {
    /// The hole of a mask, the same in all pictures.
    pub(super) fn of_mask(places: &'a Places, widen: usize, is_hole: Vec<bool>) -> Self {
        Self { places, widen, certain: Certain::Pixels(is_hole) }
    }

    /// Of each picture, codes whose nats are above a threshold.
    pub(super) fn found(
        places: &'a Places,
        widen: usize,
        nats: Vec<Vec<f32>>,
        threshold: f64,
    ) -> Self {
        let found = |nats: Vec<f32>| {
            let is_damaged = nats.iter().map(|&nats| f64::from(nats) > threshold).collect();
            Found { nats, is_damaged }
        };
        Self { places, widen, certain: Certain::Codes(nats.into_iter().map(found).collect()) }
    }

    /// The pixels of a picture that are filled.
    pub(super) fn pixels(&self, at: usize) -> Vec<bool> {
        match &self.certain {
            Certain::Pixels(is_hole) => is_hole.clone(),
            Certain::Codes(pictures) => {
                let certain = self.places.patches(&pictures[at].is_damaged);
                self.places.patches(&self.places.touched(&certain, self.widen))
            }
        }
    }

    /// The codes of a picture that are drawn anew.
    pub(super) fn drawn(&self, at: usize) -> Vec<bool> {
        let around = match self.certain {
            Certain::Pixels(_) => self.widen,
            Certain::Codes(_) => 0,
        };
        self.places.touched(&self.pixels(at), around)
    }

    /// What is told of a mask.
    pub(super) fn about_mask(&self) -> Option<AboutMask> {
        let Certain::Pixels(is_hole) = &self.certain else { return None };
        let bytes: Vec<u8> = is_hole.iter().map(|is_hole| u8::from(*is_hole)).collect();
        let num_pixels = bytes.iter().filter(|byte| **byte == 1).count();
        let drawn = self.places.by_level(&self.drawn(0));
        Some(AboutMask { sha256: sha256_hex(&bytes), num_pixels, drawn })
    }

    /// What is told of a picture of this number, name and hash.
    pub(super) fn about_picture(
        &self,
        at: usize,
        (number, name, sha256): (u64, String, String),
    ) -> AboutPicture {
        let is_drawn = self.drawn(at);
        let num_drawn = is_drawn.iter().filter(|is_drawn| **is_drawn).count();
        let num_given = is_drawn.len() - num_drawn;
        let found = match &self.certain {
            Certain::Pixels(_) => None,
            Certain::Codes(pictures) => Some(&pictures[at]),
        };
        AboutPicture {
            number,
            name,
            sha256,
            num_given,
            num_drawn,
            found: found.map(|found| self.places.by_level(&found.is_damaged)),
            median_nats: found.map(|found| part_of(&found.nats, 0.5)),
            largest_nats: found.map(|found| part_of(&found.nats, 1.0)),
        }
    }
}

/// The smallest number that this part of all are not above.
fn part_of(numbers: &[f32], part: f64) -> f32 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f32::total_cmp);
    sorted[((sorted.len() - 1) as f64 * part).floor() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8 x 8 pixels with 4 x 4 codes, so patches of 2 x 2.
    fn places() -> Places {
        Places { height: 8, width: 8, grids: vec![[4, 4]] }
    }

    fn num(is_meant: &[bool]) -> usize {
        is_meant.iter().filter(|is_meant| **is_meant).count()
    }

    /// By hand: a pixel of code 5 and eight codes around it, of which nothing but the pixel is filled.
    #[test]
    fn a_mask_is_filled_alone_and_codes_around_it_are_drawn() {
        let mut is_hole = vec![false; 64];
        is_hole[2 * 8 + 2] = true;
        let (places, at) = (places(), 0);
        let holes = Holes::of_mask(&places, 1, is_hole);
        assert_eq!((num(&holes.pixels(at)), num(&holes.drawn(at))), (1, 9));
        let about = holes.about_picture(at, (0, String::new(), String::new()));
        assert_eq!((about.num_given, about.num_drawn), (7, 9));
    }

    /// By hand: code 0 is in the corner, so with those around it there are 4, each with 4 pixels.
    #[test]
    fn what_was_found_is_filled_with_all_around_it() {
        let mut nats = vec![vec![0.5; 16], vec![1.0; 16]];
        nats[0][0] = 1.5;
        let places = places();
        let holes = Holes::found(&places, 1, nats, 1.0);
        assert_eq!((num(&holes.pixels(0)), num(&holes.drawn(0))), (16, 4));
        assert_eq!((num(&holes.pixels(1)), num(&holes.drawn(1))), (0, 0), "not above");
        let about = holes.about_picture(0, (0, String::new(), String::new()));
        assert_eq!(about.found, Some(vec![vec![0]]));
        assert_eq!((about.median_nats, about.largest_nats), (Some(0.5), Some(1.5)));
    }
}
