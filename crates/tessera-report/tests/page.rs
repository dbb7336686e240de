//! Pages of runs that are made from arithmetic.

#![allow(clippy::unwrap_used)] // a made folder that cannot be made fails its test

mod made;

use std::fs;

use made::{Made, file};
use tessera_report::{ReportError, ReportOptions, Reported, write};

fn options(runs: &[&Made], out: &Made) -> ReportOptions {
    ReportOptions {
        runs: runs.iter().map(|run| run.path().to_owned()).collect(),
        out: out.path().join("page.html"),
        force: false,
        title: None,
        most_bytes: 10_000_000,
    }
}

/// The page of some runs.
fn page(runs: &[&Made]) -> (String, Reported) {
    let out = Made::empty("out");
    let options = options(runs, &out);
    let reported = write(&options).unwrap();
    (fs::read_to_string(&options.out).unwrap(), reported)
}

/// What stands between two texts, the first time.
fn between<'a>(page: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, after) = page.split_once(begin).unwrap_or_else(|| panic!("no {begin}"));
    after.split_once(end).unwrap_or_else(|| panic!("no {end} behind {begin}")).0
}

#[test]
fn a_page_fetches_nothing_and_says_so_in_its_policy() {
    let run = Made::run("demo");
    let (page, reported) = page(&[&run]);
    assert_eq!((reported.num_runs, reported.bytes), (1, page.len() as u64));
    let policy = between(&page, "<meta http-equiv=\"Content-Security-Policy\" content=\"", "\"");
    for words in [
        "default-src 'none'; img-src data:; media-src data:",
        "style-src 'sha256-",
        "script-src 'sha256-",
    ] {
        assert!(policy.contains(words), "{policy}");
    }
    for words in ["http://", "https://", "//cdn", "src=\"/", "@import", "url("] {
        assert!(!page.contains(words), "{words}");
    }
    // Each source is in the page, and each picture says what it shows.
    for source in page.split(" src=\"").skip(1) {
        assert!(source.starts_with("data:"), "{}", &source[..40]);
    }
    for picture in page.split("<img").skip(1) {
        assert!(!between(picture, " alt=\"", "\"").is_empty());
    }
    assert_eq!(page.matches("<script").count(), 1);
    assert!(!page.contains("autoplay"));
}

#[test]
fn every_chart_is_named_and_has_its_table() {
    let (page, _) = page(&[&Made::run("demo")]);
    let charts: Vec<&str> = page.split("<figure class=\"chart\">").skip(1).collect();
    assert!(charts.len() > 8, "{}", charts.len());
    for chart in charts {
        let chart = chart.split("</figure>").next().unwrap();
        assert!(chart.contains("role=\"img\"") && chart.contains("<desc id="), "{chart}");
        assert!(between(chart, "<details>", "</details>").contains("<table>"), "{chart}");
    }
    // Headings come one after the other.
    let mut last = 1;
    for heading in page.split("<h").skip(1).filter_map(|rest| rest.chars().next()?.to_digit(10)) {
        assert!(heading <= last + 1, "h{heading} below h{last}");
        last = heading;
    }
}

/// By hand: `made` writes losses of 1 / step, and 2.5 at step 30.
#[test]
fn the_table_has_the_numbers_of_the_rows() {
    let (page, _) = page(&[&Made::run("demo")]);
    let table = between(&page, "<summary>Table: Loss</summary>", "</table>");
    for (step, loss) in [(10, "0.100000"), (20, "0.0500000"), (30, "2.50000"), (40, "0.0250000")] {
        let row = format!("<th scope=\"row\">{step}</th><td>{loss}</td>");
        assert!(table.contains(&row), "{row} is not in {table}");
    }
    assert_eq!(table.matches("<tr>").count(), 1 + 12);
    assert!(page.contains("of 120") && page.contains("step 120"), "how far the run is");
}

#[test]
fn a_spike_of_one_row_is_in_the_chart_and_the_table_of_a_long_run() {
    let run = Made::run("long");
    let row =
        |at: u64| format!("{{\"step\":{at},\"loss\":{}}}\n", if at == 4321 { 77.5 } else { 1.0 });
    file(&run, "metrics.jsonl", &(1..=9000).map(row).collect::<String>());
    let (page, _) = page(&[&run]);
    assert!(page.contains("largest 77.50 at 4321"), "the sentence names it");
    let table = between(&page, "<summary>Table: Loss</summary>", "</table>");
    assert!(table.contains("<td>77.5000</td>"), "{table}");
    assert!(table.matches("<tr>").count() <= 129);
    assert!(page.contains("class=\"band s0\""), "the band from least to largest");
    assert!(page.len() < 300_000, "{}", page.len());
}

#[test]
fn names_and_values_cannot_put_elements_into_the_page() {
    let evil = "<script>alert(1)</script>\"'&";
    let run = Made::run("evil <script>alert(2)<");
    let config = "seed = 0 # default\nname = \"<script>alert(1)</script>\" # <img src=x onerror=alert(3)>:4\n";
    file(&run, "config.toml", config);
    let row = "{\"step\":1,\"<script>alert(4)</script>\":1.5,\"loss\":2}\n";
    file(&run, "metrics.jsonl", row);
    let log =
        format!("{{\"level\":\"WARN\",\"message\":{evil:?},\"rank\":0,\"unix_seconds\":1.5}}\n");
    file(&run, "logs/rank-0.jsonl", &log);
    file(&run, "status.json", &made::status("failed", evil));
    let (page, _) = page(&[&run]);
    assert_eq!(page.matches("<script").count(), 1, "its own");
    assert!(page.contains("&lt;script&gt;alert(1)") && page.contains("&lt;script&gt;alert(2)"));
    assert!(!page.contains("<img src=x"));
}

#[test]
fn a_run_that_goes_on_has_a_page_and_damaged_rows_are_told() {
    let run = Made::run("live");
    let rows =
        "{\"step\":10,\"loss\":0.5}\nnot a row\n{\"step\":20,\"loss\":null}\n{\"step\":30,\"lo";
    file(&run, "metrics.jsonl", rows);
    file(&run, "status.json", &made::status("running", ""));
    fs::remove_file(run.path().join("eval.jsonl")).unwrap();
    let (page, reported) = page(&[&run]);
    let told = "metrics.jsonl: 1 of 3 lines are no rows and are left out, the first is line 2.";
    assert!(page.contains(told) && reported.notes == [told], "{:?}", reported.notes);
    assert!(page.contains("the last row was being written") && page.contains("Running"));
    assert!(page.contains("not finite at the end"));
}

#[test]
fn configuration_origins_failures_and_the_command_are_there() {
    let (page, _) = page(&[&Made::run("demo")]);
    for words in [
        "file configs/demo.toml:3",
        "environment TESSERA__OPTIMIZER__LEARNING_RATE",
        "command line, --set",
        "TESSERA__OPTIMIZER__LEARNING_RATE=0.002 \\\n  tessera launch --nproc 2 -- train",
        "--config configs/demo.toml",
        "--set train.global_batch=64",
        "worker lost: rank 1",
        "Started 2 times; one failure.",
        "Time in collectives",
    ] {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn a_page_that_would_be_too_large_loses_pictures_first_and_says_so() {
    let run = Made::run("large");
    let out = Made::empty("out");
    let mut options = options(&[&run], &out);
    let whole = write(&options).unwrap().bytes;
    let told = write(&options).unwrap_err().to_string();
    assert!(told.contains("page.html is there already: give --force"), "{told}");
    options.force = true;
    options.most_bytes = whole - 1;
    let less = write(&options).unwrap().bytes;
    assert!(less < whole, "{less} {whole}");
    let page = fs::read_to_string(&options.out).unwrap();
    assert!(page.contains("So that the page stays below its size limit, "));
    assert!(page.contains("<summary>Table: Loss</summary>"));
    options.most_bytes = 1000;
    assert!(matches!(write(&options).unwrap_err(), ReportError::TooLarge { most: 1000, .. }));
    assert_eq!(fs::read_to_string(&options.out).unwrap(), page, "the page that was there stays");
}

#[test]
fn two_runs_are_compared_in_what_differs() {
    let (first, second) = (Made::run("one"), Made::run("two"));
    let config = fs::read_to_string(second.path().join("config.toml")).unwrap();
    file(&second, "config.toml", &config.replace("num_codes = 4", "num_codes = 8"));
    let (page, reported) = page(&[&first, &second]);
    assert_eq!(reported.num_runs, 2);
    let table = between(&page, "<h3>Differences</h3>", "</table>");
    assert!(table.contains("The 1 keys in which the runs differ."), "{table}");
    assert!(table.contains("<code>model.quantizer.num_codes</code>"), "{table}");
    assert!(table.contains("<code>4</code>") && table.contains("<code>8</code>"), "{table}");
    assert!(!table.contains("train.steps"), "{table}");
    let chart = between(&page, "<strong>Loss</strong>", "</svg>");
    for (style, letter) in [("name s0", "A"), ("name s1", "B")] {
        assert!(
            between(chart, &format!("class=\"{style}\""), "</text>").ends_with(letter),
            "{chart}"
        );
    }
}

#[test]
fn what_is_no_run_is_refused_with_what_to_do() {
    let (nothing, out) = (Made::empty("nothing"), Made::empty("out"));
    let told = write(&options(&[&nothing], &out)).unwrap_err().to_string();
    assert!(told.contains("no run is there: name a folder that holds config.toml"), "{told}");
    assert!(matches!(write(&options(&[], &out)).unwrap_err(), ReportError::Nothing));
    let run = Made::run("demo");
    file(&run, "samples/samples.json", "{\n \"seed\": 0,\n \"num_samples\": \"many\"\n}");
    let told = write(&options(&[&run], &out)).unwrap_err().to_string();
    assert!(told.contains("samples/samples.json:3: invalid type"), "{told}");
}

#[test]
fn a_picture_that_cannot_be_read_is_left_out_and_told() {
    let run = Made::run("demo");
    file(&run, "reconstructions/step-120.png", "no picture");
    let (page, reported) = page(&[&run]);
    assert!(reported.notes[0].contains("step-120.png is left out: "), "{:?}", reported.notes);
    assert!(page.contains("step-120.png is left out: "));
}
