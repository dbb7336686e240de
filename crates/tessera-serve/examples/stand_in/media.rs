//! PNG and WAV for the stand-in: files of any size, cut into samples row by row, the last ones filled up with zeros.

use std::io::Cursor;

use tessera_serve::{BadInput, Layout, Media, Modality, Parsed, Rival};

use crate::engine::{COLORS, FRAMES, SAMPLE_RATE, SIDE};

/// Most pixels of a picture, and frames of a sound.
pub(crate) const MOST: u64 = 1 << 20;
/// How a compressed file of the stand-in begins.
const MAGIC: &[u8] = b"STAND-IN";

/// Reads and writes files of one modality.
pub(crate) struct Files {
    /// What the files are.
    pub(crate) modality: Modality,
}

fn malformed(message: impl Into<String>) -> BadInput {
    BadInput::Malformed(message.into())
}

fn check_size(num: u64) -> Result<(), BadInput> {
    if num > MOST {
        let message = format!("expected at most {MOST} pixels or frames, got {num}");
        return Err(BadInput::TooLarge(message));
    }
    Ok(())
}

impl Files {
    /// Samples down and across.
    fn grid(&self, layout: &Layout) -> (usize, usize) {
        let axis = |at: usize, side: usize| (layout.size[at] as usize).div_ceil(side);
        match self.modality {
            Modality::Sound => (axis(0, FRAMES), 1),
            Modality::Picture | Modality::Film => (axis(0, SIDE), axis(1, SIDE)),
        }
    }

    /// Bytes of a row of the whole, and of the part of it that is in one sample.
    fn rows(&self, layout: &Layout) -> (usize, usize) {
        match self.modality {
            Modality::Sound => (2, 2),
            Modality::Picture | Modality::Film => (layout.size[1] as usize * COLORS, SIDE * COLORS),
        }
    }

    /// For each piece of a row: its place in the whole, the sample, the place there, and its length.
    fn pieces(&self, layout: &Layout) -> Vec<(usize, usize, usize, usize)> {
        let (row_bytes, part_bytes) = self.rows(layout);
        let height = if self.modality == Modality::Sound { FRAMES } else { SIDE };
        let (_, across) = self.grid(layout);
        let mut pieces = Vec::new();
        for row in 0..layout.size[0] as usize {
            for column in 0..across {
                let start = column * part_bytes;
                let length = part_bytes.min(row_bytes - start);
                let sample = row / height * across + column;
                let inside = row % height * part_bytes;
                pieces.push((row * row_bytes + start, sample, inside, length));
            }
        }
        pieces
    }

    fn sample_bytes(&self) -> usize {
        if self.modality == Modality::Sound { 2 * FRAMES } else { SIDE * SIDE * COLORS }
    }

    fn cut(&self, layout: &Layout, whole: &[u8]) -> Vec<Vec<u8>> {
        let (down, across) = self.grid(layout);
        let mut samples = vec![vec![0; self.sample_bytes()]; down * across];
        for (at, sample, inside, length) in self.pieces(layout) {
            samples[sample][inside..inside + length].copy_from_slice(&whole[at..at + length]);
        }
        samples
    }

    fn whole(&self, layout: &Layout, samples: &[&[u8]]) -> Vec<u8> {
        let (row_bytes, _) = self.rows(layout);
        let mut whole = vec![0; layout.size[0] as usize * row_bytes];
        for (at, sample, inside, length) in self.pieces(layout) {
            whole[at..at + length].copy_from_slice(&samples[sample][inside..inside + length]);
        }
        whole
    }

    fn values(&self, bytes: &[u8]) -> Vec<f64> {
        if self.modality == Modality::Sound {
            let value = |two: &[u8]| f64::from(i16::from_le_bytes([two[0], two[1]]));
            return bytes.chunks_exact(2).map(value).collect();
        }
        bytes.iter().map(|&byte| f64::from(byte)).collect()
    }

    fn parse_png(&self, file: &[u8]) -> Result<Parsed, BadInput> {
        if !file.starts_with(b"\x89PNG") {
            return Err(BadInput::Unsupported("expected a PNG".to_owned()));
        }
        let wrong = |error: png::DecodingError| malformed(format!("the PNG is damaged: {error}"));
        let mut decoder = png::Decoder::new(Cursor::new(file));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let (width, height) = decoder.read_header_info().map_err(wrong)?.size();
        check_size(u64::from(width) * u64::from(height))?;
        let mut reader = decoder.read_info().map_err(wrong)?;
        let size = reader.output_buffer_size().ok_or_else(|| malformed("the PNG is too large"))?;
        let mut bytes = vec![0; size];
        let info = reader.next_frame(&mut bytes).map_err(wrong)?;
        bytes.truncate(info.buffer_size());
        let channels = info.color_type.samples();
        let mut whole = Vec::with_capacity(width as usize * height as usize * COLORS);
        for pixel in bytes.chunks_exact(channels) {
            match *pixel {
                [gray] | [gray, _] => whole.extend([gray; COLORS]),
                [red, green, blue] | [red, green, blue, _] => whole.extend([red, green, blue]),
                _ => return Err(malformed("expected one to four channels")),
            }
        }
        let layout =
            Layout { size: vec![u64::from(height), u64::from(width), COLORS as u64], rate: None };
        Ok(Parsed { samples: self.cut(&layout, &whole), layout })
    }

    fn parse_wav(&self, file: &[u8]) -> Result<Parsed, BadInput> {
        if !file.starts_with(b"RIFF") {
            return Err(BadInput::Unsupported("expected a WAV".to_owned()));
        }
        let wrong = |error: hound::Error| malformed(format!("the WAV is damaged: {error}"));
        let reader = hound::WavReader::new(Cursor::new(file)).map_err(wrong)?;
        let spec = reader.spec();
        if (spec.channels, spec.bits_per_sample) != (1, 16) {
            return Err(malformed("expected one channel of 16 bits"));
        }
        check_size(u64::from(reader.len()))?;
        if reader.len() == 0 {
            return Err(malformed("expected a sound, got no frames"));
        }
        let mut whole = Vec::new();
        for value in reader.into_samples::<i16>() {
            whole.extend(value.map_err(wrong)?.to_le_bytes());
        }
        let size = vec![(whole.len() / 2) as u64, 1];
        let layout = Layout { size, rate: Some(spec.sample_rate) };
        Ok(Parsed { samples: self.cut(&layout, &whole), layout })
    }
}

impl Media for Files {
    fn parse(&self, file: &[u8]) -> Result<Parsed, BadInput> {
        if self.modality == Modality::Sound { self.parse_wav(file) } else { self.parse_png(file) }
    }

    fn num_samples(&self, layout: &Layout) -> Result<usize, BadInput> {
        let fits = match (self.modality, layout.size.as_slice()) {
            (Modality::Sound, &[frames, 1]) => frames > 0,
            (Modality::Picture, &[height, width, 3]) => height > 0 && width > 0,
            _ => false,
        };
        if !fits {
            let size = &layout.size;
            return Err(malformed(format!("expected a size [H, W, 3] or [T, 1], got {size:?}")));
        }
        check_size(layout.size.iter().fold(1, |all: u64, axis| all.saturating_mul(*axis)))?;
        let (down, across) = self.grid(layout);
        Ok(down * across)
    }

    fn join(&self, layout: &Layout, samples: &[Vec<u8>]) -> Result<Vec<u8>, String> {
        let samples: Vec<&[u8]> = samples.iter().map(Vec::as_slice).collect();
        let whole = self.whole(layout, &samples);
        let mut file = Cursor::new(Vec::new());
        if self.modality == Modality::Sound {
            let spec = hound::WavSpec {
                channels: 1,
                sample_rate: layout.rate.unwrap_or(SAMPLE_RATE),
                bits_per_sample: 16,
                sample_format: hound::SampleFormat::Int,
            };
            let mut writer = hound::WavWriter::new(&mut file, spec).map_err(|e| e.to_string())?;
            for pair in whole.chunks_exact(2) {
                let value = i16::from_le_bytes([pair[0], pair[1]]);
                writer.write_sample(value).map_err(|e| e.to_string())?;
            }
            writer.finalize().map_err(|e| e.to_string())?;
        } else {
            let (height, width) = (layout.size[0] as u32, layout.size[1] as u32);
            let mut encoder = png::Encoder::new(&mut file, width, height);
            encoder.set_color(png::ColorType::Rgb);
            let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
            writer.write_image_data(&whole).map_err(|e| e.to_string())?;
            writer.finish().map_err(|e| e.to_string())?;
        }
        Ok(file.into_inner())
    }

    fn compress(&self, layout: &Layout, tokens: &[Vec<u32>]) -> Result<Vec<u8>, String> {
        let mut file = MAGIC.to_vec();
        for axis in &layout.size {
            file.extend((*axis as u32).to_le_bytes());
        }
        file.extend(layout.rate.unwrap_or(0).to_le_bytes());
        for token in tokens.iter().flatten() {
            file.extend((*token as u16).to_le_bytes());
        }
        Ok(file)
    }

    fn decompress(&self, file: &[u8]) -> Result<(Layout, Vec<Vec<u32>>), BadInput> {
        let rest = file.strip_prefix(MAGIC);
        let rest = rest.ok_or_else(|| malformed("expected a compressed file of the stand-in"))?;
        let num_axes = if self.modality == Modality::Sound { 2 } else { 3 };
        let (head, rest) = rest
            .split_at_checked(4 * (num_axes + 1))
            .ok_or_else(|| malformed("the compressed file is cut off"))?;
        let mut numbers: Vec<u32> = head
            .chunks_exact(4)
            .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            .collect();
        let rate = numbers.pop().filter(|&rate| rate > 0);
        let layout = Layout { size: numbers.into_iter().map(u64::from).collect(), rate };
        let num_samples = self.num_samples(&layout)?;
        let of_sample =
            if self.modality == Modality::Sound { FRAMES } else { SIDE * SIDE * COLORS };
        if rest.len() != num_samples * of_sample * 2 {
            return Err(malformed("the compressed file is cut off"));
        }
        let tokens =
            rest.chunks_exact(2).map(|two| u32::from(u16::from_le_bytes([two[0], two[1]])));
        let tokens: Vec<u32> = tokens.collect();
        Ok((layout, tokens.chunks_exact(of_sample).map(<[u32]>::to_vec).collect()))
    }

    fn psnr(&self, layout: &Layout, original: &[&[u8]], reconstructed: &[Vec<u8>]) -> f64 {
        let reconstructed: Vec<&[u8]> = reconstructed.iter().map(Vec::as_slice).collect();
        let (one, other) = (self.whole(layout, original), self.whole(layout, &reconstructed));
        let peak: f64 = if self.modality == Modality::Sound { 65535.0 } else { 255.0 };
        let (one, other) = (self.values(&one), self.values(&other));
        let squares: f64 = one.iter().zip(&other).map(|(a, b)| (a - b) * (a - b)).sum();
        20.0 * peak.log10() - 10.0 * (squares / one.len() as f64).log10()
    }

    fn rivals(&self, layout: &Layout, original: &[&[u8]], _: f64) -> Vec<Rival> {
        let samples: Vec<Vec<u8>> = original.iter().map(|sample| sample.to_vec()).collect();
        let name = if self.modality == Modality::Sound { "WAV" } else { "PNG" };
        let bytes = self.join(layout, &samples).map_or(0, |file| file.len() as u64);
        vec![Rival { name: name.to_owned(), bytes, psnr: None }]
    }
}
