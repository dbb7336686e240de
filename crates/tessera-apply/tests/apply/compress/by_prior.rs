//! Codes that a prior foretells: as many bits as it says, the same pictures, and no other arithmetic.

use std::fs;
use std::path::Path;

use tch::{Device, Kind, Tensor};
use tessera_apply::{
    ApplyError, Coding, CompressOptions, Compressed, DecompressOptions, Decompressed, PriorCoder,
    compress, decompress,
};
use tessera_codec::FileReader;
use tessera_comm::{CommError, Communicator, Threads};
use tessera_control::ExitCode;
use tessera_model::OpenModel;
use tessera_nn::prior::TokenBatch;

use super::{contents_of_all, from_file, to_file, watching, write_png};
use crate::encode::DEADLINE;
use crate::sample::{prior, tokenizer};

/// More than a tile of pictures.
const NUM: u64 = 70;

fn pictures(folder: &Path) {
    fs::create_dir(folder).unwrap();
    for number in 0..NUM {
        let pixel = |at: u64| (at * (number + 3) * 7 % 251) as u8;
        let pixels: Vec<u8> = (0..768).map(pixel).collect();
        write_png(&folder.join(format!("{number:02}.png")), &pixels, (16, 16));
    }
}

fn by_ranks<T: Send>(
    world_size: usize,
    coded: impl Fn(&dyn Communicator, &OpenModel, &Coding) -> T + Sync,
) -> T {
    tch::set_num_threads(1);
    let ranks = Threads::run(world_size, DEADLINE, |comm| {
        let model = tokenizer();
        let coder = PriorCoder::new(prior("autoregressive", &model), &model).unwrap();
        let coding = Coding::of(&model, Path::new("nowhere")).unwrap().by(coder);
        Ok::<_, CommError>(coded(&comm, &model, &coding))
    });
    let mut all: Vec<T> = ranks.into_iter().map(|rank| rank.expect("joins")).collect();
    all.swap_remove(0)
}

fn compressed(world_size: usize, options: &CompressOptions) -> Result<Compressed, ApplyError> {
    by_ranks(world_size, |comm, model, coding| {
        watching(|watch| compress(comm, model, coding, options, watch))
    })
}

fn decompressed(
    world_size: usize,
    options: &DecompressOptions,
) -> Result<Decompressed, ApplyError> {
    by_ranks(world_size, |comm, model, coding| {
        watching(|watch| decompress(comm, model, coding, options, watch))
    })
}

/// Without a prior.
fn plainly<T>(work: impl FnOnce(&dyn Communicator, &OpenModel, &Coding) -> T) -> T {
    let model = tokenizer();
    let coding = Coding::of(&model, Path::new("nowhere")).unwrap();
    work(&tessera_comm::Solo::default(), &model, &coding)
}

#[test]
fn a_prior_codes_by_its_own_bits_and_gives_the_same_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    pictures(&path("in"));
    let one = compressed(1, &to_file(&path("in"), &path("1.tsc"))).unwrap();
    compressed(2, &to_file(&path("in"), &path("2.tsc"))).unwrap();
    assert!(fs::read(path("1.tsc")).unwrap() == fs::read(path("2.tsc")).unwrap());
    plainly(|comm, model, coding| {
        let options = to_file(&path("in"), &path("plain.tsc"));
        watching(|watch| compress(comm, model, coding, &options, watch)).unwrap();
        let options = from_file(&path("plain.tsc"), &path("plain"));
        watching(|watch| decompress(comm, model, coding, &options, watch)).unwrap();
        // Who knows no prior cannot read the other file.
        let options = from_file(&path("1.tsc"), &path("never"));
        let error = watching(|watch| decompress(comm, model, coding, &options, watch));
        let error = error.unwrap_err();
        assert_eq!(error.code(), ExitCode::BadInput, "{error}");
        assert!(error.to_string().contains("--prior"), "{error}");
    });
    for world_size in [1, 2] {
        let out = path(&format!("out {world_size}"));
        decompressed(world_size, &from_file(&path("1.tsc"), &out)).unwrap();
        assert!(contents_of_all(&out) == contents_of_all(&path("plain")));
    }

    // As many bits as the prior has nats of the codes, and a few words at the ends of two blocks.
    let mut reader = FileReader::open(fs::File::open(path("plain.tsc")).unwrap()).unwrap();
    let positions = reader.header().positions();
    let tables = tessera_codec::Tables::uniform(&[32, 32]).unwrap();
    let mut codes: Vec<i64> = Vec::new();
    while let tessera_codec::Next::Block { codes: block, .. } = reader.next(&tables).unwrap() {
        let samples = block.chunks_exact(32);
        let by_level = |codes| tessera_codec::coder::by_level(codes, &positions);
        codes.extend(samples.flat_map(by_level).map(i64::from));
    }
    let model = tokenizer();
    let prior = prior("autoregressive", &model).prior;
    let tokens_nt = Tensor::from_slice(&codes).view([NUM as i64, 32]);
    let none = Tensor::full([NUM as i64], -1, (Kind::Int64, Device::Cpu));
    let ids: Vec<u64> = (0..NUM).collect();
    let batch = TokenBatch { tokens_nt: &tokens_nt, classes_n: Some(&none), ids: &ids };
    let bits = prior.nats(&batch, 0).sum(Kind::Double).double_value(&[]) / 2f64.ln();
    let found = 8.0 * one.payload as f64;
    assert!(found > bits - 1.0 && found < bits * 1.01 + 128.0, "{found} {bits}");
}

#[test]
fn another_prior_another_arithmetic_and_damage_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    pictures(&path("in"));
    compressed(1, &to_file(&path("in"), &path("file.tsc"))).unwrap();
    let model = tokenizer();
    let refused = |coder: Result<PriorCoder, ApplyError>, word: &str| {
        let done = coder.and_then(|coder| {
            let coding = Coding::of(&model, Path::new("nowhere")).unwrap().by(coder);
            let comm = tessera_comm::Solo::default();
            let options = from_file(&path("file.tsc"), &path("never"));
            watching(|watch| decompress(&comm, &model, &coding, &options, watch))
        });
        let error = done.unwrap_err();
        assert_eq!(error.code(), ExitCode::BadInput, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    };
    let mut other = prior("autoregressive", &model);
    other.file.hash = "e".repeat(64);
    refused(PriorCoder::new(other, &model), "coded by the prior ffffffffffff");
    // The same prior by name, which computes something else.
    let other = prior("autoregressive", &model);
    tch::no_grad(|| {
        let mut flat = other.prior.parameters.flat().shallow_clone();
        flat *= 1.0 + 1e-6;
    });
    other.prior.parameters.refresh();
    refused(PriorCoder::new(other, &model), "computes other bits");
    refused(PriorCoder::new(prior("masked", &model), &model), "no order");
    let mut of_others = prior("autoregressive", &model);
    if let tessera_model::ModelKind::Prior(file) = &mut of_others.file.kind {
        file.codes.tokenizer = "0".repeat(64);
    }
    refused(PriorCoder::new(of_others, &model), "of the codes of the model 000000000000");
    let levels = CompressOptions { levels: Some(1), ..to_file(&path("in"), &path("x.tsc")) };
    assert_eq!(compressed(1, &levels).unwrap_err().code(), ExitCode::BadInput);

    // A block is a tile: the second has six pictures.
    let mut bytes = fs::read(path("file.tsc")).unwrap();
    let at = bytes.len() - 60;
    bytes[at] ^= 16;
    fs::write(path("damaged.tsc"), bytes).unwrap();
    let options = from_file(&path("damaged.tsc"), &path("out"));
    assert_eq!(decompressed(1, &options).unwrap_err().code(), ExitCode::DataCorrupt);
    let done = decompressed(1, &DecompressOptions { salvage: true, ..options }).unwrap();
    assert_eq!((done.lost[0].first, done.lost[0].num), (64, NUM - 64));
}
