//! `Event` messages in protobuf's wire format, by hand.
//!
//! The messages are those of
//! <https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto>
//! and `summary.proto` beside it. Fields are written in the order of their numbers and zero
//! steps are left out, as protobuf's own encoders do, so the bytes are equal to TensorBoard's.

use super::Setting;
use crate::engine::metrics::histogram::Histogram;
use crate::engine::metrics::picture::{EncodedPng, EncodedWav};

// Protobuf wire types: the lower three bits of a field's key.
const WIRE_VARINT: u8 = 0;
const WIRE_64_BIT: u8 = 1;
const WIRE_BYTES: u8 = 2;
const WIRE_32_BIT: u8 = 5;

/// The first event of a file, by which readers know the format.
pub(super) fn version_event(wall_time: f64) -> Vec<u8> {
    let mut event = event_header(wall_time, 0);
    put_bytes(&mut event, 3, b"brain.Event:2"); // Event.file_version
    event
}

/// One point of the curve `tag`; `wall_time` in seconds since 1970.
pub(super) fn scalar_event(wall_time: f64, step: u64, tag: &str, value: f32) -> Vec<u8> {
    let mut content = vec![2 << 3 | WIRE_32_BIT]; // Value.simple_value
    content.extend_from_slice(&value.to_le_bytes());
    summary_event(wall_time, step, tag, &content)
}

/// One picture of the series `tag`; `wall_time` in seconds since 1970.
pub(super) fn image_event(wall_time: f64, step: u64, tag: &str, image: &EncodedPng) -> Vec<u8> {
    let mut message = Vec::with_capacity(image.png.len() + 32);
    put_varint(&mut message, 1, image.shape.height as u64); // Image.height
    put_varint(&mut message, 2, image.shape.width as u64); // Image.width
    put_varint(&mut message, 3, image.shape.channels as u64); // Image.colorspace: 1 gray, 3 RGB
    put_bytes(&mut message, 4, &image.png); // Image.encoded_image_string
    let mut content = Vec::with_capacity(message.len() + 8);
    put_bytes(&mut content, 4, &message); // Value.image
    summary_event(wall_time, step, tag, &content)
}

/// One sound of the series `tag`; `wall_time` in seconds since 1970.
pub(super) fn audio_event(wall_time: f64, step: u64, tag: &str, sound: &EncodedWav) -> Vec<u8> {
    let mut message = Vec::with_capacity(sound.wav.len() + 48);
    message.push(1 << 3 | WIRE_32_BIT); // Audio.sample_rate
    message.extend_from_slice(&(sound.sample_rate as f32).to_le_bytes());
    put_varint(&mut message, 2, u64::from(sound.channels)); // Audio.num_channels
    put_varint(&mut message, 3, sound.len); // Audio.length_frames
    put_bytes(&mut message, 4, &sound.wav); // Audio.encoded_audio_string
    put_bytes(&mut message, 5, b"audio/wav"); // Audio.content_type
    let mut content = Vec::with_capacity(message.len() + 8);
    put_bytes(&mut content, 6, &message); // Value.audio
    summary_event(wall_time, step, tag, &content)
}

/// A text of the series `tag`, in Markdown, at step 0.
pub(super) fn text_event(wall_time: f64, tag: &str, text: &str) -> Vec<u8> {
    const DT_STRING: u64 = 7;
    let mut tensor = Vec::with_capacity(text.len() + 16);
    put_varint(&mut tensor, 1, DT_STRING); // TensorProto.dtype
    put_bytes(&mut tensor, 8, text.as_bytes()); // TensorProto.string_val
    tensor_event(wall_time, 0, tag, "text", &tensor)
}

/// Numbers in buckets; `wall_time` in seconds since 1970.
pub(super) fn histogram_event(wall_time: f64, step: u64, histogram: &Histogram) -> Vec<u8> {
    const DT_DOUBLE: u64 = 2;
    let mut shape = Vec::new();
    for size in [histogram.buckets.len() as u64, 3] {
        let mut dim = Vec::new();
        put_varint(&mut dim, 1, size); // Dim.size
        put_bytes(&mut shape, 2, &dim); // TensorShapeProto.dim
    }
    let numbers: Vec<u8> =
        histogram.buckets.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
    let mut tensor = Vec::with_capacity(numbers.len() + 32);
    put_varint(&mut tensor, 1, DT_DOUBLE); // TensorProto.dtype
    put_bytes(&mut tensor, 2, &shape); // TensorProto.tensor_shape
    put_bytes(&mut tensor, 4, &numbers); // TensorProto.tensor_content
    tensor_event(wall_time, step, &histogram.tag, "histograms", &tensor)
}

/// That a run has succeeded, for the table of hyperparameters.
pub(super) fn done_event(wall_time: f64, step: u64) -> Vec<u8> {
    const SUCCESS: u64 = 1;
    let mut session = Vec::new();
    put_varint(&mut session, 1, SUCCESS); // SessionEndInfo.status
    put_double(&mut session, 2, wall_time); // SessionEndInfo.end_time_secs
    let mut data = Vec::new();
    put_bytes(&mut data, 4, &session); // HParamsPluginData.session_end_info
    hparams_plugin_event(wall_time, step, "_hparams_/session_end_info", &data)
}

/// The settings of a run for the table of hyperparameters, in which runs of one group are one session.
pub(super) fn hparams_event(
    wall_time: f64,
    group: &str,
    settings: &[(String, Setting)],
) -> Vec<u8> {
    let mut session = Vec::new();
    for (key, setting) in settings {
        let mut value = Vec::new();
        match setting {
            Setting::Number(number) => put_double(&mut value, 2, *number), // Value.number_value
            Setting::Text(text) => put_bytes(&mut value, 3, text.as_bytes()), // Value.string_value
            Setting::Flag(flag) => put_varint(&mut value, 4, u64::from(*flag)), // Value.bool_value
        }
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, key.as_bytes());
        put_bytes(&mut entry, 2, &value);
        put_bytes(&mut session, 1, &entry); // SessionStartInfo.hparams
    }
    put_bytes(&mut session, 4, group.as_bytes()); // SessionStartInfo.group_name
    put_double(&mut session, 5, wall_time); // SessionStartInfo.start_time_secs
    let mut data = Vec::new();
    put_bytes(&mut data, 3, &session); // HParamsPluginData.session_start_info
    hparams_plugin_event(wall_time, 0, "_hparams_/session_start_info", &data)
}

/// An event of a tensor that a plugin shows.
fn tensor_event(wall_time: f64, step: u64, tag: &str, plugin: &str, tensor: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(tensor.len() + 32);
    put_bytes(&mut content, 8, tensor); // Value.tensor
    put_plugin(&mut content, plugin, &[]);
    summary_event(wall_time, step, tag, &content)
}

/// An event for the table of hyperparameters, all of which is in its metadata.
fn hparams_plugin_event(wall_time: f64, step: u64, tag: &str, data: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    put_plugin(&mut content, "hparams", data);
    summary_event(wall_time, step, tag, &content)
}

/// Value.metadata, which says whose data a value is.
fn put_plugin(content: &mut Vec<u8>, name: &str, data: &[u8]) {
    let mut plugin = Vec::new();
    put_bytes(&mut plugin, 1, name.as_bytes()); // PluginData.plugin_name
    if !data.is_empty() {
        put_bytes(&mut plugin, 2, data); // PluginData.content
    }
    let mut metadata = Vec::new();
    put_bytes(&mut metadata, 1, &plugin); // SummaryMetadata.plugin_data
    put_bytes(content, 9, &metadata);
}

/// The step of an encoded event, 0 if it has none; `None` if it is no protobuf message.
pub(super) fn event_step(mut event: &[u8]) -> Option<u64> {
    let mut step = 0;
    while !event.is_empty() {
        let key = take_varint(&mut event)?;
        let skipped = match key as u8 & 7 {
            WIRE_VARINT => {
                let value = take_varint(&mut event)?;
                if key >> 3 == 2 {
                    step = value;
                }
                0
            }
            WIRE_64_BIT => 8,
            WIRE_BYTES => usize::try_from(take_varint(&mut event)?).ok()?,
            WIRE_32_BIT => 4,
            _ => return None,
        };
        event = event.get(skipped..)?;
    }
    Some(step)
}

/// An event with a summary of one value; `content` is the encoded field that carries it.
fn summary_event(wall_time: f64, step: u64, tag: &str, content: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(tag.len() + content.len() + 8);
    put_bytes(&mut value, 1, tag.as_bytes()); // Value.tag
    value.extend_from_slice(content);
    let mut summary = Vec::with_capacity(value.len() + 8);
    put_bytes(&mut summary, 1, &value); // Summary.value
    let mut event = event_header(wall_time, step);
    put_bytes(&mut event, 5, &summary); // Event.summary
    event
}

fn event_header(wall_time: f64, step: u64) -> Vec<u8> {
    let mut event = Vec::new();
    put_double(&mut event, 1, wall_time); // Event.wall_time
    if step != 0 {
        put_varint(&mut event, 2, step); // Event.step; protobuf leaves out a zero
    }
    event
}

fn put_double(message: &mut Vec<u8>, field: u8, value: f64) {
    message.push(field << 3 | WIRE_64_BIT);
    message.extend_from_slice(&value.to_le_bytes());
}

fn put_varint(message: &mut Vec<u8>, field: u8, value: u64) {
    message.push(field << 3 | WIRE_VARINT);
    push_varint(message, value);
}

fn put_bytes(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field << 3 | WIRE_BYTES);
    push_varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

fn push_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::tfrecord::first_record;
    use super::*;
    use crate::engine::metrics::picture::ImageShape;

    /// Written by TensorBoard's own writer: `tensorboard_events.py` beside it.
    const FIXTURE: &[u8] = include_bytes!("../../../../tests/fixtures/tensorboard_events.bin");
    const WALL_TIME: f64 = 1_500_000_000.25;

    #[test]
    fn events_have_the_bytes_of_tensorboards_own_writer() {
        let shape = ImageShape { height: 300, width: 2, channels: 3 };
        let image = EncodedPng { png: b"not looked into".repeat(10), shape, shows: "samples" };
        let (wav, shows) = (b"not heard".repeat(20), "reconstructions");
        let sound = EncodedWav { wav, sample_rate: 8000, channels: 2, len: 300, shows };
        let settings = [("train.steps".to_owned(), Setting::Number(0.5))];
        let buckets = vec![[0.0, 1.0, 3.0], [1.0, 2.5, 0.25]];
        let histogram = Histogram { tag: "usage/level-0".to_owned(), buckets };
        let ours = [
            version_event(WALL_TIME),
            scalar_event(WALL_TIME, 0, "train/loss", 0.0),
            scalar_event(WALL_TIME, 300, "train/loss", 0.125),
            image_event(WALL_TIME, 70_000, "eval/reconstructions", &image),
            audio_event(WALL_TIME, 70_000, "reconstructions", &sound),
            text_event(WALL_TIME, "config", "    [train]\n"),
            hparams_event(WALL_TIME, "run", &settings),
            histogram_event(WALL_TIME, 300, &histogram),
            done_event(WALL_TIME, 300),
        ];
        let mut rest = FIXTURE;
        for (event, step) in ours.iter().zip([0, 0, 300, 70_000, 70_000, 0, 0, 300, 300]) {
            let (theirs, length) = first_record(rest).expect("sound fixture");
            assert_eq!(event, theirs, "step {step}");
            assert_eq!(event_step(theirs), Some(step));
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn bytes_that_are_no_message_have_no_step() {
        // Field 2 without its value, a length past the end, a group (long gone), an endless varint.
        for bytes in [&[0x10][..], &[0x2a, 9, 1], &[0x0b], &[0xff; 12]] {
            assert_eq!(event_step(bytes), None, "{bytes:?}");
        }
    }
}
