//! FFmpeg as a process of its own: it starts, what it prints is read, and it is heard to the end.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::decode::whole;

/// What a program printed.
pub(crate) struct Output {
    /// Its standard output.
    pub(crate) bytes: Vec<u8>,
    /// The first of its complaints, if it has any.
    pub(crate) complaint: Option<String>,
}

/// The first sound of a file as the bytes of a WAV file of 32-bit floats, of at most `max_seconds`
/// and a second; the error completes "sample ...". What FFmpeg complains about is refused: it goes
/// on after damage, with less sound.
pub(crate) fn sound(bytes: &[u8], max_seconds: u32) -> Result<Vec<u8>, String> {
    whole::check(&mut std::io::Cursor::new(bytes))?;
    let file = in_memory(bytes)?;
    let mut command = ffmpeg(file.path());
    command.args(["-map", "0:a:0", "-t", &(u64::from(max_seconds) + 1).to_string()]);
    command.args(["-c:a", "pcm_f32le", "-f", "wav", "-"]);
    let output = output_of(command, usize::MAX)?;
    match output.complaint {
        Some(complaint) => Err(format!("cannot be decoded whole by ffmpeg ({complaint})")),
        None => Ok(output.bytes),
    }
}

/// Width and height of a film's frames as they are shown, which its first one tells: turned upright, where it says so.
pub(crate) fn size_of(path: &Path) -> Result<(u32, u32), String> {
    let mut command = ffmpeg(path);
    command.args(["-map", "0:V:0", "-frames:v", "1", "-f", "image2pipe", "-c:v", "pgm", "-"]);
    let bytes = output_of(command, usize::MAX)?.bytes;
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).into_owned();
    let mut numbers = head.split_ascii_whitespace().skip(1).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(width)), Some(Ok(height))) => Ok((width, height)),
        _ => Err("cannot be decoded: ffmpeg did not tell the size of its frames".to_owned()),
    }
}

/// A filter that makes frames evenly spaced, as `-r 25` wants them: each frame of a decoder is then
/// one of the output. (`-vsync passthrough` and `-fps_mode passthrough` say it, each to other versions.)
pub(crate) const EACH_FRAME: &str = "settb=1/25,setpts=N";

/// FFmpeg with `path` as its input.
pub(crate) fn ffmpeg(path: &Path) -> Command {
    ffmpeg_from(path, None)
}

/// FFmpeg with `path` as its input, from the first frame on that is not before `seconds`.
pub(crate) fn ffmpeg_from(path: &Path, seconds: Option<f64>) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-threads", "1", "-protocol_whitelist", "file"]);
    if let Some(seconds) = seconds {
        command.args(["-seek_timestamp", "1", "-ss", &format!("{seconds:.6}")]);
    }
    command.arg("-i").arg(input(path));
    command
}

/// How programs of FFmpeg are given a file: whatever its name is, it is no address.
pub(crate) fn input(path: &Path) -> OsString {
    let mut input = OsString::from("file:");
    input.push(path);
    input
}

/// What a program prints, no more than `most` bytes of it.
pub(crate) fn output_of(mut command: Command, most: usize) -> Result<Output, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("needs {program}, which is not installed: apt-get install ffmpeg")
        }
        _ => format!("cannot be decoded: {program} did not start ({error})"),
    })?;
    let mut errors = child.stderr.take().expect("it is piped");
    let words = std::thread::spawn(move || {
        let mut words = String::new();
        // Words that cannot be read are not told.
        let _ = errors.read_to_string(&mut words);
        words
    });
    let mut output = Vec::new();
    let stdout = child.stdout.take().expect("it is piped");
    let read = stdout.take(most as u64).read_to_end(&mut output);
    let status = child.wait().map_err(|error| error.to_string())?;
    let words = words.join().unwrap_or_default();
    read.map_err(|error| format!("cannot be decoded: {program} was not heard ({error})"))?;
    if !status.success() {
        let first = complaint(&words).unwrap_or_else(|| "it gave no reason".to_owned());
        return Err(format!("cannot be decoded by {program} ({first})"));
    }
    let complaint = complaint(&words);
    Ok(Output { bytes: output, complaint })
}

/// The first line of what FFmpeg complains about, without the address of who does: it is the cause
/// of the others.
fn complaint(words: &str) -> Option<String> {
    let line = words.lines().next()?;
    let named = line.strip_prefix('[').and_then(|line| line.split_once("] "));
    Some(named.map_or(line, |(_, words)| words).to_owned())
}

/// A file with these bytes, for a program that has to seek in it.
pub(crate) fn in_memory(bytes: &[u8]) -> Result<tempfile::NamedTempFile, String> {
    let write = || {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(bytes)?;
        file.flush()?;
        Ok(file)
    };
    write()
        .map_err(|error: std::io::Error| format!("cannot be put into a temporary file ({error})"))
}
