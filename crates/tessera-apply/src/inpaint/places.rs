//! Where codes lie in a picture: which of them a hole touches, and which pixels are those of a code.
//!
//! A code's patch is the part of the picture that its place in the grid covers. What an encoder saw of it reaches further:
//! codes beside a hole know of it too, and whoever asks for the codes of a hole says how many around it are meant.

use std::ops::Range;

use tessera_model::CodesFile;

/// Grids of codes over a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) height: usize,
    pub(super) width: usize,
    /// Rows and columns of each level, in the order of a token set.
    pub(super) grids: Vec<[usize; 2]>,
}

impl Places {
    /// Those of a picture's codes; the error is why they have none.
    pub(super) fn of(codes: &CodesFile) -> Result<Self, String> {
        let mut grids = Vec::new();
        for level in &codes.levels {
            let &[rows, columns] = level.axes.as_slice() else {
                return Err(format!(
                    "a hole in a picture needs codes that have a place in it, on rows and columns: these are {:?}",
                    level.axes
                ));
            };
            grids.push([rows as usize, columns as usize]);
        }
        let [height, width] = [codes.shape.height, codes.shape.width].map(|side| side as usize);
        Ok(Self { height, width, grids })
    }

    /// Codes of a picture.
    pub(super) fn num_codes(&self) -> usize {
        self.grids.iter().map(|[rows, columns]| rows * columns).sum()
    }

    /// Of each code, whether its patch has a pixel of the hole, or is within `widen` cells of one that has, on its grid.
    pub(super) fn touched(&self, is_hole: &[bool], widen: usize) -> Vec<bool> {
        let mut touched = Vec::with_capacity(self.num_codes());
        for &grid in &self.grids {
            let [rows, columns] = grid;
            let has_pixel =
                |row, column| self.pixels(grid, row, column).any(|pixel| is_hole[pixel]);
            let own: Vec<bool> =
                (0..rows * columns).map(|at| has_pixel(at / columns, at % columns)).collect();
            let around = |at: usize, num: usize| at.saturating_sub(widen)..num.min(at + widen + 1);
            touched.extend((0..rows * columns).map(|at| {
                let mut near = around(at / columns, rows);
                near.any(|row| {
                    around(at % columns, columns).any(|column| own[row * columns + column])
                })
            }));
        }
        touched
    }

    /// Of each pixel, whether it is in the patch of one of these codes.
    pub(super) fn patches(&self, is_meant: &[bool]) -> Vec<bool> {
        let mut is_hole = vec![false; self.height * self.width];
        let mut code = 0;
        for &[rows, columns] in &self.grids {
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |at| (row, at))) {
                if is_meant[code] {
                    let pixels = self.pixels([rows, columns], row, column);
                    pixels.for_each(|pixel| is_hole[pixel] = true);
                }
                code += 1;
            }
        }
        is_hole
    }

    /// The group of each code, of `num` groups that are hidden in turn: codes of one place of the coarsest grid are in one
    /// group, and places beside one another in several. With as many groups as places each is alone.
    pub(super) fn groups(&self, num: usize) -> Vec<usize> {
        let coarsest = self.grids.iter().min_by_key(|[rows, columns]| rows * columns);
        let &[coarse_rows, coarse_columns] = coarsest.expect("codes have levels");
        let across = (num as f64).sqrt().round() as usize;
        let group = |row: usize, column: usize| match num >= coarse_rows * coarse_columns {
            true => row * coarse_columns + column,
            false => (column + across * row) % num,
        };
        let mut groups = Vec::with_capacity(self.num_codes());
        for &[rows, columns] in &self.grids {
            groups.extend((0..rows * columns).map(|at| {
                let (row, column) = (at / columns, at % columns);
                group(row * coarse_rows / rows, column * coarse_columns / columns)
            }));
        }
        groups
    }

    /// Of each level, the positions of the codes that are meant.
    pub(super) fn by_level(&self, is_meant: &[bool]) -> Vec<Vec<usize>> {
        let mut start = 0;
        let of_level = |&[rows, columns]: &[usize; 2]| {
            let codes = &is_meant[start..start + rows * columns];
            start += rows * columns;
            (0..codes.len()).filter(|&position| codes[position]).collect()
        };
        self.grids.iter().map(of_level).collect()
    }

    /// The pixels of a patch.
    fn pixels(
        &self,
        [rows, columns]: [usize; 2],
        row: usize,
        column: usize,
    ) -> impl Iterator<Item = usize> {
        let (down, across) = (part(self.height, rows, row), part(self.width, columns, column));
        let width = self.width;
        down.flat_map(move |y| across.clone().map(move |x| y * width + x))
    }
}

/// What one of `num` parts of a side covers, the pixels that it shares with its neighbours included.
fn part(side: usize, num: usize, at: usize) -> Range<usize> {
    at * side / num..((at + 1) * side).div_ceil(num)
}

/// The picture `[H, W, C]` with its hole in the mean color of what is known, rounded; in gray where nothing is.
pub(super) fn filled(picture: &[u8], is_hole: &[bool], channels: usize) -> Vec<u8> {
    let mut sums = vec![0u64; channels];
    let mut num = 0u64;
    for (pixel, _) in picture.chunks_exact(channels).zip(is_hole).filter(|(_, hole)| !**hole) {
        sums.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += u64::from(value));
        num += 1;
    }
    let mean = |sum: u64| if num == 0 { 128 } else { ((2 * sum + num) / (2 * num)) as u8 };
    let color: Vec<u8> = sums.into_iter().map(mean).collect();
    let mut filled = picture.to_vec();
    for (pixel, _) in filled.chunks_exact_mut(channels).zip(is_hole).filter(|(_, hole)| **hole) {
        pixel.copy_from_slice(&color);
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of 4 x 8 pixels with 2 x 4 codes, patches of 2 x 2, and above them 1 x 2 codes of 4 x 4.
    fn places() -> Places {
        Places { height: 4, width: 8, grids: vec![[2, 4], [1, 2]] }
    }

    /// The codes that are meant, by their places.
    fn set(is_meant: &[bool]) -> Vec<usize> {
        (0..is_meant.len()).filter(|&at| is_meant[at]).collect()
    }

    /// By hand: pixel (1, 3) is in the patch of rows 0 and 1, columns 2 and 3: code (0, 1), and the first coarse one.
    #[test]
    fn a_pixel_touches_the_codes_whose_patch_it_is_in_and_those_around_them() {
        let mut is_hole = vec![false; 32];
        is_hole[8 + 3] = true;
        assert_eq!(set(&places().touched(&is_hole, 0)), [1, 8]);
        assert_eq!(set(&places().touched(&is_hole, 1)), [0, 1, 2, 4, 5, 6, 8, 9]);
        assert_eq!(set(&places().touched(&[false; 32], 1)), [0; 0]);
        assert_eq!(places().by_level(&places().touched(&is_hole, 0)), [vec![1], vec![0]]);
    }

    /// By hand: code (1, 3) is rows 2 and 3, columns 6 and 7; three rows on 4 pixels share the pixels between them.
    #[test]
    fn a_patch_is_what_a_code_covers() {
        let mut is_meant = vec![false; 10];
        is_meant[7] = true;
        assert_eq!(set(&places().patches(&is_meant)), [22, 23, 30, 31]);
        assert_eq!([0, 1, 2].map(|at| part(4, 3, at)), [0..2, 1..3, 2..4]);
    }

    /// By hand, with four groups, two to the next row: 0 1 / 2 3 in the corner, and a neighbour is never in one's own.
    #[test]
    fn neighbours_are_hidden_in_different_passes() {
        let places = Places { height: 8, width: 8, grids: vec![[4, 4], [4, 4]] };
        let groups = places.groups(4);
        assert_eq!(groups[..8], [0, 1, 2, 3, 2, 3, 0, 1]);
        assert_eq!(groups[..16], groups[16..], "both codes of a place are hidden together");
        for at in [5, 6, 9, 10] {
            for near in [at - 5, at - 4, at - 3, at - 1, at + 1, at + 3, at + 4, at + 5] {
                assert_ne!(groups[at], groups[near]);
            }
        }
        assert_eq!(places.groups(16)[..16], std::array::from_fn::<usize, 16, _>(|at| at));
        let two = Places { height: 8, width: 8, grids: vec![[2, 4], [1, 2]] };
        assert_eq!(two.groups(2), [0, 0, 1, 1, 0, 0, 1, 1, 0, 1], "fine codes go with the coarse");
    }

    /// By hand: 10 and 13 have the mean 11.5, which is rounded to 12; of nothing it is gray.
    #[test]
    fn a_hole_is_filled_with_what_is_known() {
        let picture = [10, 200, 13, 99];
        assert_eq!(filled(&picture, &[false, true, false, true], 1), [10, 12, 13, 12]);
        assert_eq!(filled(&picture, &[true; 4], 1), [128; 4]);
        assert_eq!(filled(&picture, &[false, true], 2), [10, 200, 10, 200]);
    }
}
