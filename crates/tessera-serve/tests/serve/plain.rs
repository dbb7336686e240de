use serde_json::json;
use tessera_serve::{Media as _, Modality, Wanted};

use crate::engine::StandIn;
use crate::media::Files;
use crate::server::{Server, options, png};

const FILES: Files = Files { modality: Modality::Picture };

/// The samples of a PNG.
fn samples(file: &[u8]) -> Vec<Vec<u8>> {
    FILES.parse(file).unwrap().samples
}

fn tokens(file: &[u8]) -> Vec<Vec<u32>> {
    let of = |sample: Vec<u8>| StandIn::tokens_of(Modality::Picture, &sample);
    samples(file).into_iter().map(of).collect()
}

/// What of a PNG's samples is left after the model.
fn middles(file: &[u8]) -> Vec<Vec<u8>> {
    let parsed = FILES.parse(file).unwrap();
    let sample_of = |of_sample: &Vec<u32>| StandIn::sample_of(Modality::Picture, of_sample);
    let samples: Vec<Vec<u8>> = tokens(file).iter().map(sample_of).collect();
    self::samples(&FILES.join(&parsed.layout, &samples).unwrap())
}

#[test]
fn a_file_is_taken_as_body_and_as_field_of_a_form() {
    let server = Server::start(options());
    let file = png(10, 20);
    let raw = server.post("/encode", "image/png", &file).json();
    // 10 x 20 pixels are 2 x 3 samples of 8 x 8.
    assert_eq!(raw["tokens"], json!(tokens(&file)));
    assert_eq!(raw["tokens"].as_array().unwrap().len(), 6);
    assert_eq!(raw["layout"], json!({ "size": [10, 20, 3] }));

    let mut form =
        b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"p.png\"\r\n\r\n"
            .to_vec();
    form.extend_from_slice(&file);
    form.extend_from_slice(b"\r\n--b--\r\n");
    let of_form = server.post("/encode", "multipart/form-data; boundary=b", &form).json();
    assert_eq!(of_form, raw);
}

#[test]
fn tokens_go_back_by_json_and_by_compressed_file() {
    let server = Server::start(options());
    let file = png(10, 20);
    let encoded = server.post("/encode", "image/png", &file).text();
    let back = server.post("/decode", "application/json", encoded.as_bytes());
    assert_eq!(back.headers["content-type"], "image/png");
    assert_eq!(samples(&back.body), middles(&file));

    let headers = [("Accept", "application/x-tessera")];
    let compressed = server.client().ask("POST", "/encode", &headers, &file);
    assert_eq!(compressed.headers["content-type"], "application/x-tessera");
    let again = server.post("/decode", "application/x-tessera", &compressed.body);
    assert_eq!(again.body, back.body);

    let loose = json!({ "tokens": tokens(&file) }).to_string();
    let sheet = server.post("/decode", "application/json", loose.as_bytes());
    // Six loose samples are a sheet of 2 x 3.
    assert_eq!(FILES.parse(&sheet.body).unwrap().layout.size, [16, 24, 3]);
}

#[test]
fn a_reconstruction_tells_what_it_costs() {
    let server = Server::start(options());
    let file = png(8, 8);
    let answer = server.post("/reconstruct", "image/png", &file);
    assert_eq!(samples(&answer.body), middles(&file));
    assert_eq!(answer.headers["tessera-num-tokens"], "192");
    // 8 bytes of name, 16 of size and rate, 192 tokens of two bytes.
    assert_eq!(answer.headers["tessera-bytes"], "408");
    let psnr: f64 = answer.headers["tessera-psnr"].parse().unwrap();

    let told = server.post("/inspect", "image/png", &file).json();
    assert!((told["psnr"].as_f64().unwrap() - psnr).abs() < 1e-3);
    assert_eq!(told["tokens"], json!(tokens(&file)));
    assert_eq!(told["file_bytes"], file.len());
    assert_eq!(told["raw_bytes"], 192);
    assert_eq!(told["rivals"][0]["name"], "PNG");
}

#[test]
fn samples_are_a_function_of_seed_number_and_class() {
    let server = Server::start(options());
    let ask = |body: serde_json::Value| {
        server.post("/sample", "application/json", body.to_string().as_bytes())
    };
    let told = ask(json!({ "seed": 5, "num": 2, "class": 1, "answer": "tokens" })).json();
    for number in 0..2 {
        let wanted = Wanted { seed: 5, number, class: Some(1) };
        let expected = StandIn::drawn(Modality::Picture, &wanted);
        assert_eq!(told["tokens"][number as usize], json!(expected));
    }
    let file = ask(json!({ "seed": 5, "num": 4 }));
    assert_eq!(FILES.parse(&file.body).unwrap().layout.size, [16, 16, 3]);
}

#[test]
fn a_sound_comes_back_as_wav() {
    let server = Server::of(Modality::Sound, options());
    let files = Files { modality: Modality::Sound };
    let layout = tessera_serve::Layout { size: vec![100, 1], rate: Some(8000) };
    let file = files.join(&layout, &[vec![1; 128], vec![2; 128]]).unwrap();
    let answer = server.post("/reconstruct", "audio/wav", &file);
    assert_eq!(answer.headers["content-type"], "audio/wav");
    let parsed = files.parse(&answer.body).unwrap();
    assert_eq!(parsed.layout, layout);
    // Values 257 and 514: 16 * ((257 + 32768) / 16) + 8 - 32768 = 264, and 520.
    assert_eq!(parsed.samples[0][..2], 264i16.to_le_bytes());
    assert_eq!(parsed.samples[1][..2], 520i16.to_le_bytes());
}

#[test]
fn page_and_documents_are_served() {
    let server = Server::start(options());
    let page = server.get("/");
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.headers["content-security-policy"].starts_with("default-src 'none'"));
    let text = page.text();
    assert!(!text.contains("http://") && !text.contains("https://"), "it asks other servers");
    assert_eq!(server.get("/model").json()["name"], "stand_in");
    assert_eq!(server.get("/openapi.json").json()["openapi"], "3.1.0");
    assert_eq!(server.get("/healthz").status, 200);
}
