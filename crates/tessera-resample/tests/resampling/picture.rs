use tessera_resample::{Cut, Picture, resize};

/// By hand: bilinear with antialiasing to half the size is the tent 1/8, 3/8, 3/8, 1/8, cut and
/// normalised at the edges: of 0, 80, 160, 240 it is (3*0 + 3*80 + 160) / 7 and its mirror.
#[test]
fn half_of_a_row_is_its_tent() {
    let row = [0, 80, 160, 240];
    let rgb: Vec<u8> = row.iter().flat_map(|&value| [value, 255 - value, 7]).collect();
    let cut = Cut { left: 0.0, top: 0.0, width: 4.0, height: 1.0 };
    let mut out = [0; 2];
    let gray = Picture { bytes: &row, width: 4, height: 1, channels: 1 };
    resize(gray, cut, (2, 1), &mut out);
    assert_eq!(out, [57, 183]);
    let mut out = [0; 6];
    resize(Picture { bytes: &rgb, channels: 3, ..gray }, cut, (2, 1), &mut out);
    assert_eq!(out, [57, 198, 7, 183, 72, 7]);
    // A cut of what is not resized is copied.
    let mut out = [0; 2];
    resize(gray, Cut { left: 1.0, width: 2.0, ..cut }, (2, 1), &mut out);
    assert_eq!(out, [80, 160]);
}
