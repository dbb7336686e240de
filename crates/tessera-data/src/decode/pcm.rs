//! From the bytes of a sound file to frames of 32-bit floats, block after block.
//!
//! WAV, FLAC, Ogg Vorbis and MP3 are decoded by symphonia; what it has no decoder for (Opus, AAC,
//! AIFF and others that are told by their first bytes) by FFmpeg. A file that ends before its end is
//! refused, where its format lets that be seen at all.

use std::io::Cursor;
use std::ops::RangeInclusive;

use symphonia::core::audio::Channels;
use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::codecs::audio::well_known::CODEC_ID_MP3;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, Track, TrackType};
use symphonia::core::io::MediaSourceStream;

use crate::decode::ffmpeg;
use crate::decode::mix::Layout;
use crate::decode::ogg::{self, Codec};
use crate::decode::wav::{self, Wav};

/// Frames a second that are believed. The work of a resampler hangs on the ratio of two rates, so a
/// damaged header must not choose it freely.
pub(crate) const RATES: RangeInclusive<u32> = 1000..=768_000;

/// Frames that follow each other.
pub(crate) struct Block<'a> {
    /// Frame after frame, channel after channel.
    pub(crate) samples: &'a [f32],
    /// Frames a second.
    pub(crate) rate: u32,
    /// Which channels a frame has.
    pub(crate) layout: Layout,
}

/// Is given one block after another; its error ends the file.
type UseBlock<'a> = &'a mut dyn FnMut(Block<'_>) -> Result<(), String>;

/// Who decodes a file.
enum Kind {
    Wav(Wav),
    Ogg(Vec<ogg::Link>),
    /// FLAC, MP3, or something with MP3 in it.
    Symphonia,
    Ffmpeg,
}

/// Decodes a file of which no more than about `max_seconds` are wanted; the error completes
/// "sample ...".
pub(crate) fn for_each_block(
    bytes: &[u8],
    max_seconds: u32,
    use_block: UseBlock<'_>,
) -> Result<(), String> {
    match kind(bytes)? {
        Kind::Wav(wav) => by_symphonia(&wav.plain(bytes), Some(&wav), use_block),
        Kind::Symphonia => by_symphonia(without_tags(bytes), None, use_block),
        Kind::Ffmpeg => by_ffmpeg(bytes, max_seconds, use_block),
        Kind::Ogg(links) => links.into_iter().try_for_each(|link| {
            let bytes = &bytes[link.bytes];
            match link.codec {
                Codec::Vorbis | Codec::Flac => by_symphonia(bytes, None, use_block),
                Codec::Opus | Codec::Speex => by_ffmpeg(bytes, max_seconds, use_block),
            }
        }),
    }
}

/// Frames a second of a file, of its first recording if it has several.
pub(crate) fn sample_rate(bytes: &[u8]) -> Result<u32, String> {
    match kind(bytes)? {
        Kind::Wav(wav) => believed(wav.rate),
        Kind::Ogg(links) if links[0].codec == Codec::Opus => Ok(48_000),
        Kind::Ogg(links) if links[0].codec != Codec::Speex => {
            rate_of(&open(&bytes[links[0].bytes.clone()])?.1)
        }
        Kind::Symphonia => rate_of(&open(bytes)?.1),
        Kind::Ogg(_) | Kind::Ffmpeg => believed(Wav::parse(&ffmpeg::sound(bytes, 0)?)?.rate),
    }
}

/// Frames a second and number of frames, where the header tells the exact number.
pub(crate) fn exact_frames(bytes: &[u8]) -> Result<Option<(u32, u64)>, String> {
    Ok(match kind(bytes)? {
        Kind::Wav(wav) => match wav.num_frames() {
            Some(frames) => Some((believed(wav.rate)?, frames)),
            None => None,
        },
        Kind::Symphonia if is_flac(bytes) => {
            let (_, track) = open(bytes)?;
            match track.num_frames {
                Some(frames) => Some((rate_of(&track)?, frames)),
                None => None,
            }
        }
        _ => None,
    })
}

fn kind(bytes: &[u8]) -> Result<Kind, String> {
    if wav::is_wav(bytes) {
        let wav = Wav::parse(bytes)?;
        return Ok(if wav.is_plain() { Kind::Wav(wav) } else { Kind::Ffmpeg });
    }
    if bytes.starts_with(b"OggS") {
        return ogg::links(bytes).map(Kind::Ogg);
    }
    let at = |at: usize, words: &[&[u8]]| {
        bytes.get(at..).is_some_and(|rest| words.iter().any(|word| rest.starts_with(word)))
    };
    let begins = at(0, &[b"RIFX", b"caff", b".snd", b"NIST_1A", b"riff\x2E\x91\xCF\x11"]);
    let aiff = at(0, &[b"FORM"]) && at(8, &[b"AIFF", b"AIFC"]);
    Ok(match begins || aiff || at(4, &[b"ftyp"]) {
        true => Kind::Ffmpeg,
        false => Kind::Symphonia,
    })
}

fn by_ffmpeg(bytes: &[u8], max_seconds: u32, use_block: UseBlock<'_>) -> Result<(), String> {
    let wav = ffmpeg::sound(bytes, max_seconds)?;
    let parsed = Wav::parse(&wav)?;
    by_symphonia(&parsed.plain(&wav), Some(&parsed), use_block)
}

/// Decodes a file that symphonia can; `wav` is what it is if it is a WAV file.
fn by_symphonia(bytes: &[u8], wav: Option<&Wav>, use_block: UseBlock<'_>) -> Result<(), String> {
    let (mut format, track) = open(bytes)?;
    let rate = rate_of(&track)?;
    let parameters = track.codec_params.as_ref().and_then(|codec| codec.audio());
    let parameters = parameters.ok_or("has no sound that can be decoded")?;
    // The length of an MP3 whose encoder wrote none is a guess, at which it must not end; nor must
    // several of them end where the first does.
    let is_mp3 = parameters.codec == CODEC_ID_MP3;
    let is_row = is_mp3 && is_row_of_mp3(bytes);
    let is_whole = !is_mp3 || (track.delay.is_some() && !is_row);
    let options = AudioDecoderOptions::default().verify(true).gapless(is_whole);
    let mut delay = if is_row { track.delay.unwrap_or(0) as usize } else { 0 };
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &options)
        .map_err(undecodable)?;
    let (mut block, mut frames, mut last) = (Vec::new(), 0, None);
    while let Some(packet) = format.next_packet().map_err(undecodable)? {
        if packet.track_id != track.id {
            continue;
        }
        if is_flac(bytes) && packet.pts.get() != frames as i64 {
            return Err(format!("is damaged: frames are missing after the first {frames}"));
        }
        let decoded = decoder.decode(&packet).map_err(undecodable)?;
        let layout = layout(wav, decoded.spec().channels(), decoded.num_planes());
        let channels = layout.channels;
        if channels == 0 {
            return Err("has no channels".to_owned());
        }
        block.resize(decoded.samples_interleaved(), 0.0);
        decoded.copy_to_slice_interleaved(&mut block);
        let early = delay.min(block.len() / channels);
        block.drain(..early * channels);
        delay -= early;
        if let Some(most) = wav.and_then(Wav::most_frames) {
            let left = most.saturating_sub(frames).saturating_mul(channels as u64);
            block.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        frames += (block.len() / channels) as u64;
        use_block(Block { samples: &block, rate, layout })?;
        last = Some(packet.data);
    }
    if decoder.finalize().verify_ok == Some(false) {
        return Err("does not match its own checksum".to_owned());
    }
    let promised = track.num_frames.filter(|_| match wav {
        Some(wav) => wav.num_frames().is_some(),
        None => is_flac(bytes) || (is_mp3 && is_whole),
    });
    if let Some(promised) = promised
        && frames < promised
    {
        return Err(format!("is cut short: it promises {promised} frames and has {frames}"));
    }
    match wav.is_none() && last.map_or(is_flac(bytes), |last| ends_early(bytes, &last)) {
        true => Err("is cut short: it ends within a frame".to_owned()),
        false => Ok(()),
    }
}

/// Channels of a file: those of a WAV as its own header says, since the one that is decoded does not.
fn layout(wav: Option<&Wav>, known: &Channels, channels: usize) -> Layout {
    let positions = match (wav, known) {
        (Some(wav), _) => u64::from(wav.mask),
        (None, Channels::Positioned(positions)) => positions.bits(),
        _ => 0,
    };
    Layout { channels, positions }
}

/// Whether something is left of a FLAC or an MP3 file behind its last whole frame.
fn ends_early(bytes: &[u8], last: &[u8]) -> bool {
    let Some(at) = bytes.windows(last.len().max(1)).rposition(|window| window == last) else {
        return false;
    };
    let rest = &bytes[at + last.len()..];
    if is_flac(bytes) {
        return rest.iter().any(|&byte| byte != 0);
    }
    // The head of a frame like the last one, as far as it goes: the same version, layer and rate.
    let like = [(0, 0xFF), (1, 0xFF), (2, 0x0C)];
    let is_like = |(at, bits): (usize, u8)| match (rest.get(at), last.get(at)) {
        (Some(found), Some(known)) => (found ^ known) & bits == 0,
        _ => true,
    };
    !rest.is_empty() && like.into_iter().all(is_like)
}

/// Whether several MP3 files stand one after another: symphonia ends where the first one does.
fn is_row_of_mp3(bytes: &[u8]) -> bool {
    // Packets that can be padding at the end of one.
    const PADDING: usize = 4;
    let Ok((mut format, track)) = open(bytes) else { return false };
    let (Some(frames), Some(_)) = (track.num_frames, track.delay) else { return false };
    let mut behind = 0;
    while let Ok(Some(packet)) = format.next_packet() {
        behind += usize::from(packet.pts.get() >= frames as i64);
    }
    behind > PADDING
}

/// A FLAC file without what MP3 players put behind it, which would be taken for its last frame.
fn without_tags(bytes: &[u8]) -> &[u8] {
    let tag = bytes.len().saturating_sub(128);
    match is_flac(bytes) && bytes[tag..].starts_with(b"TAG") {
        true => &bytes[..tag],
        false => bytes,
    }
}

fn is_flac(bytes: &[u8]) -> bool {
    bytes.starts_with(b"fLaC")
}

fn open(bytes: &[u8]) -> Result<(Box<dyn FormatReader + '_>, Track), String> {
    let stream = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
    let format = symphonia::default::get_probe()
        .probe(&Hint::new(), stream, Default::default(), Default::default())
        .map_err(|error| match is_flac(bytes) {
            true => format!("is cut short or damaged before its sound begins ({error})"),
            false => {
                format!("is no wav, flac, ogg, mp3, m4a, aiff, caf, au, w64 or sphere ({error})")
            }
        })?;
    let track = format.default_track(TrackType::Audio).ok_or("has no sound")?.clone();
    Ok((format, track))
}

fn rate_of(track: &Track) -> Result<u32, String> {
    let parameters = track.codec_params.as_ref().and_then(|codec| codec.audio());
    match parameters.and_then(|parameters| parameters.sample_rate) {
        Some(rate) => believed(rate),
        None => Err("does not say how many frames a second it has".to_owned()),
    }
}

fn believed(rate: u32) -> Result<u32, String> {
    let (least, most) = (RATES.start(), RATES.end());
    match RATES.contains(&rate) {
        true => Ok(rate),
        false => Err(format!("says {rate} frames a second; {least} to {most} can be read")),
    }
}

fn undecodable(error: Error) -> String {
    format!("cannot be decoded ({error})")
}
