//! A codebook for the embedding projector of TensorBoard: `projector_config.pbtxt`, which names of each level its vectors, what is known
//! of each code, and the picture of each code.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tch::{Kind, Tensor};

use super::put;
use crate::error::ApplyError;

/// The file by which TensorBoard knows that a folder holds vectors.
const CONFIG: &str = "projector_config.pbtxt";

/// The vectors `[K, D]` of a level, and how often each code was taken, as tables.
pub(super) fn tables(
    folder: &Path,
    level: usize,
    vectors_kd: &Tensor,
    counts: &[u64],
) -> Result<(), ApplyError> {
    let mut vectors = String::new();
    for vector_d in vectors_kd.to_kind(Kind::Float).unbind(0) {
        let numbers: Vec<f32> = Vec::try_from(vector_d)?;
        let words: Vec<String> = numbers.iter().map(f32::to_string).collect();
        vectors.push_str(&words.join("\t"));
        vectors.push('\n');
    }
    let all: u64 = counts.iter().sum();
    let mut codes = "code\ttaken\tshare\n".to_owned();
    for (code, &taken) in counts.iter().enumerate() {
        let share = taken as f64 / all.max(1) as f64;
        codes.push_str(&format!("{code}\t{taken}\t{share:.6}\n"));
    }
    let [of_vectors, of_codes, _] = files(level);
    put(&folder.join(of_vectors), vectors.as_bytes())?;
    put(&folder.join(of_codes), codes.as_bytes())
}

/// What names the tables of levels, as `atlas.json` describes these; levels that are not drawn have none.
pub(super) fn write(folder: &Path, levels: &[Value]) -> Result<(), ApplyError> {
    let text: String = drawn(levels).map(|(level, sheet)| embedding(level, sheet)).collect();
    put(&folder.join(CONFIG), text.as_bytes())
}

/// The same for whoever opens the events of the run whose folder the atlas comes to lie in, as `out`; it is still at `atlas`. TensorBoard
/// takes no file from elsewhere, so they are copied.
pub(super) fn write_beside_events(
    atlas: &Path,
    out: &Path,
    levels: &[Value],
) -> Result<(), ApplyError> {
    let events = out.with_file_name("tensorboard");
    if !events.is_dir() {
        return Ok(());
    }
    for name in drawn(levels).flat_map(|(level, _)| files(level)) {
        let path = events.join(&name);
        fs::copy(atlas.join(&name), &path).map_err(ApplyError::file("write", &path))?;
    }
    write(&events, levels)
}

/// Numbers and sheets of levels that are drawn.
fn drawn(levels: &[Value]) -> impl Iterator<Item = (usize, &Value)> {
    let sheets = levels.iter().map(|level| &level["alone"]).enumerate();
    sheets.filter(|(_, sheet)| !sheet.is_null())
}

/// Vectors, what is known of codes, and pictures of a level.
fn files(level: usize) -> [String; 3] {
    [format!("codebook-{level}.tsv"), format!("codes-{level}.tsv"), format!("alone-{level}.png")]
}

fn embedding(level: usize, sheet: &Value) -> String {
    let [vectors, codes, pictures] = files(level);
    let (width, height) = (&sheet["width"], &sheet["height"]);
    format!(
        r#"embeddings {{
  tensor_name: "codebook-{level}"
  tensor_path: "{vectors}"
  metadata_path: "{codes}"
  sprite {{
    image_path: "{pictures}"
    single_image_dim: {width}
    single_image_dim: {height}
  }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_have_a_line_for_each_code_and_the_config_names_them() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (atlas, events) = (folder.path().join("atlas"), folder.path().join("tensorboard"));
        for folder in [&atlas, &events] {
            fs::create_dir(folder).expect("makes a folder");
        }
        let vectors_kd = Tensor::from_slice2(&[[0.5f32, -1.0], [2.0, 0.25]]);
        tables(&atlas, 0, &vectors_kd, &[3, 1]).expect("writes");
        put(&atlas.join("alone-0.png"), b"a picture").expect("writes");
        let sheet = json!({ "alone": { "columns": 2, "width": 16, "height": 8 } });
        write_beside_events(&atlas, &atlas, &[sheet, json!({ "alone": null })]).expect("writes");
        let read = |name: &str| fs::read_to_string(events.join(name)).expect("is there");
        assert_eq!(read("codebook-0.tsv"), "0.5\t-1\n2\t0.25\n");
        assert_eq!(read("codes-0.tsv"), "code\ttaken\tshare\n0\t3\t0.750000\n1\t1\t0.250000\n");
        let config = read(CONFIG);
        assert_eq!(config.matches("embeddings {").count(), 1, "a level that is not drawn has none");
        assert!(config.contains("metadata_path: \"codes-0.tsv\"\n"), "{config}");
        assert_eq!(read("alone-0.png"), "a picture");
        assert!(config.contains("single_image_dim: 16\n    single_image_dim: 8\n"), "{config}");
    }
}
