//! `tessera-worker`: the process that mpirun starts, one a rank.
//!
//! `tessera train` and `tessera eval` become this program; `tessera launch` starts several and
//! asks one to resolve the configuration first. Nothing here draws: it reports over the control
//! connection, to the run folder, and, without a launcher, to stderr.

mod apply;
mod arguments;
mod atlas;
mod compress;
mod features;
mod import;
mod inpaint;
mod judge;
mod last_words;
mod lifeline;
mod logging;
mod nccl;
mod rate;
mod serve;
mod session;
mod threads;

use std::sync::Arc;
use std::time::Duration;

use tessera_comm::{CommConfig, DeviceConfig};
use tessera_control::{
    ExitCode, LimitsConfig, RunState, end_unread, hear_of_children, not_written, tell, tell_behind,
    unread, variables, write_result,
};
use tessera_model::ModelPath;
use tessera_train::bench::{self, Calls, QuantizerSize};
use tessera_train::task::Asked;
use tessera_train::{
    Figure, Request, Resolved, Row, RunFolder, TrainError, Value, agree_on, evaluate_model,
    evaluate_run, train,
};

use arguments::{
    Arguments, BenchArguments, BenchPart, Command, EvalArguments, Reference, TrainArguments,
};
use session::Session;

/// How long the end waits for the log and stderr, and where last words were said, which have waited already.
const AT_END: Duration = Duration::from_secs(5);
const AT_FAILURE: Duration = Duration::from_millis(200);

fn main() {
    hear_of_children();
    tell_behind();
    tessera_comm::load_cuda();
    let stop = lifeline::stop_on_signals();
    let arguments = arguments::parse();
    let code = match arguments.command {
        Command::Resolve { nproc, train } => resolve(&train, nproc),
        Command::Reference { of: Reference::Keys } => {
            answer_alone(&tessera_train::reference::keys())
        }
        Command::Reference { of: Reference::Commands } => {
            answer_alone(&clap_markdown::help_markdown::<Arguments>())
        }
        Command::Train(train) => {
            lifeline::end_with_parent();
            run_train(&train, stop)
        }
        Command::Export(export) => apply::run_export(&export),
        Command::Import(import) => import::run(&import),
        Command::Encode(encode) => {
            lifeline::end_with_parent();
            apply::run_encode(&encode, stop)
        }
        Command::Sample(sample) => {
            lifeline::end_with_parent();
            apply::run_sample(&sample, stop)
        }
        Command::Judge(judge) => {
            lifeline::end_with_parent();
            judge::run(&judge, stop)
        }
        Command::Inpaint(inpaint) => {
            lifeline::end_with_parent();
            inpaint::run(&inpaint, stop)
        }
        Command::Decode(decode) => {
            lifeline::end_with_parent();
            apply::run_decode(&decode, stop)
        }
        Command::Compress(compress) => {
            lifeline::end_with_parent();
            compress::run_compress(&compress, stop)
        }
        Command::Decompress(decompress) => {
            lifeline::end_with_parent();
            compress::run_decompress(&decompress, stop)
        }
        Command::Reconstruct(reconstruct) => {
            lifeline::end_with_parent();
            compress::run_reconstruct(&reconstruct, stop)
        }
        Command::Features(features) => {
            lifeline::end_with_parent();
            features::run(&features, stop)
        }
        Command::Atlas(atlas) => {
            lifeline::end_with_parent();
            atlas::run(&atlas, stop)
        }
        Command::Tables(tables) => {
            lifeline::end_with_parent();
            compress::run_tables(&tables, stop)
        }
        Command::Serve(serve) => {
            lifeline::end_with_parent();
            serve::run(&serve, stop)
        }
        Command::RateDistortion(rate) => {
            lifeline::end_with_parent();
            rate::run(&rate, stop)
        }
        Command::Bench(bench) => {
            lifeline::end_with_parent();
            run_bench(&bench, stop)
        }
        Command::Eval(eval) => {
            lifeline::end_with_parent();
            run_eval(&eval, stop)
        }
    };
    let is_good = matches!(code, ExitCode::Done | ExitCode::Stopped | ExitCode::BadInput);
    logging::finish(if is_good { AT_END } else { AT_FAILURE });
    tessera_comm::exit_now(code.code());
}

/// Prints the result of a process that has no peers.
fn answer_alone(text: &str) -> ExitCode {
    match write_result(text) {
        Ok(()) => ExitCode::Done,
        Err(error) if unread(&error) => {
            end_unread();
            ExitCode::Failed
        }
        Err(error) => {
            tell(format_args!("error: {}", not_written(&error)));
            ExitCode::BadInput
        }
    }
}

/// Checks all that can be checked before a worker is started, and prints the configuration.
fn resolve(arguments: &TrainArguments, nproc: usize) -> ExitCode {
    let resolved = arguments.resolve().and_then(|resolved| {
        tessera_train::check(&resolved, &arguments.resume)?;
        Ok(resolved)
    });
    match resolved {
        Ok(resolved) => {
            let line = serde_json::to_string(&resolved).expect("a configuration is plain data");
            answer_alone(&(line + "\n"))
        }
        Err(error) => {
            tell(format_args!("error: {error}"));
            tracing::debug!(nproc, "refused");
            error.code()
        }
    }
}

fn run_train(arguments: &TrainArguments, stop: Arc<std::sync::atomic::AtomicBool>) -> ExitCode {
    let resolved = arguments.resolve();
    let (comm, device, threads, limits) = match &resolved {
        Ok(Resolved { config, .. }) => {
            let (device, threads) = (config.train.device, config.train.threads);
            (config.comm.clone(), device, threads, config.limits.clone())
        }
        // Ranks meet all the same: rank 0 tells what is wrong, once.
        Err(_) => (CommConfig::default(), DeviceConfig::Cpu, 0, LimitsConfig::default()),
    };
    let mut session = match Session::start(&comm, device, threads, &limits, stop) {
        Ok(session) => session,
        Err(code) => return code,
    };
    if arguments.profile {
        session.profile();
    }
    if arguments.trace {
        session.trace();
    }
    // What all ranks would say in the same words, rank 0 says alone.
    let refused = match (session.comm().rank(), &resolved) {
        (0, Err(error)) => Err(TrainError::BadInput(error.to_string())),
        _ => Ok(()),
    };
    let resolved =
        agree_on(session.comm(), refused).and_then(|()| agree_on(session.comm(), resolved));
    let ended = resolved.and_then(|resolved| {
        let checked = match session.comm().rank() {
            0 => tessera_train::check(&resolved, &arguments.resume),
            _ => Ok(()),
        };
        agree_on(session.comm(), checked)?;
        let tenure = RunFolder::take(session.comm(), &resolved.run_dir, session.on_lost())?;
        let tenure = session.hold(tenure); // what was refused so far leaves the folder alone
        session.log_to(&tenure.folder)?;
        train(session.comm(), session.worker(), &tenure, &resolved, &arguments.resume)
    });
    match ended {
        Ok(ending) => {
            if arguments.profile && session.comm().rank() == 0 {
                // The run is done, whoever reads this.
                let _ = write_result(&ending.profile);
            }
            let code = match ending.state {
                RunState::Stopped => ExitCode::Stopped,
                _ => ExitCode::Done,
            };
            session.finish(code, ending.step)
        }
        Err(error) => session.fail(&in_this_start(error)),
    }
}

/// What was no bad input when the launcher started the workers first is none when it starts them again.
fn in_this_start(error: TrainError) -> TrainError {
    match std::env::var_os(variables::RESTART) {
        Some(_) => error.once_begun(),
        None => error,
    }
}

fn run_bench(arguments: &BenchArguments, stop: Arc<std::sync::atomic::AtomicBool>) -> ExitCode {
    let BenchArguments { backend, share_gpu, .. } = *arguments;
    let config = CommConfig { backend, share_gpu, ..CommConfig::default() };
    let limits = LimitsConfig::default();
    let threads = u64::from(matches!(arguments.part, BenchPart::Encode { .. }));
    let session = match Session::start(&config, arguments.device, threads, &limits, stop) {
        Ok(session) => session,
        Err(code) => return code,
    };
    logging::to_stderr();
    let (comm, device) = (session.comm(), &session.worker().device);
    let calls = Calls { warmup: arguments.warmup as usize, calls: arguments.calls as usize };
    let figures = match arguments.part.clone() {
        BenchPart::Data { config, set, batches } => arguments::environment()
            .and_then(|variables| tessera_train::resolve(config.as_deref(), variables, &set, None))
            .and_then(|resolved| bench::data(comm, &resolved.config, batches))
            .map(|figures| serde_json::to_string(&figures)),
        BenchPart::Quantizer { n, codes, dim } => {
            let size = QuantizerSize { num_latents: n, num_codes: codes, code_dim: dim };
            bench::quantizer(device, size, calls).map(|figures| serde_json::to_string(&figures))
        }
        BenchPart::Encode { model } => {
            apply::bench_encode(&model, session.device(), calls.warmup, calls.calls)
                .map(|figures| serde_json::to_string(&figures))
        }
        BenchPart::AllReduce { floats } => bench::all_reduce(comm, device, floats, calls)
            .map(|figures| serde_json::to_string(&figures)),
    };
    match figures {
        Ok(line) => session.answer(&(line.expect("figures are plain data") + "\n"), 0),
        Err(error) => session.fail(&error),
    }
}

fn run_eval(arguments: &EvalArguments, stop: Arc<std::sync::atomic::AtomicBool>) -> ExitCode {
    let (comm, limits) = (CommConfig::default(), LimitsConfig::default());
    let session = match Session::start(&comm, DeviceConfig::Auto, 0, &limits, stop) {
        Ok(session) => session,
        Err(code) => return code,
    };
    logging::to_stderr();
    let EvalArguments { model, levels, part, sets, show, .. } = arguments;
    let asked = Asked { levels: *levels, ..Asked::default() };
    let request = Request { part: *part, asked, sets, show: show.as_deref() };
    let (comm, device, activity) = (session.comm(), session.device(), &session.worker().activity);
    let figures = match model.path() {
        ModelPath::Run { folder, which, weights } => {
            evaluate_run(comm, device, &folder, (which, weights), request, activity)
        }
        ModelPath::Model(folder) => evaluate_model(comm, device, &folder, request, activity),
    };
    match figures {
        Ok(figures) => {
            let text = if arguments.json {
                serde_json::to_string(&figures).expect("figures are plain data") + "\n"
            } else {
                table(&figures)
            };
            session.answer(&text, figures.step)
        }
        Err(error) => session.fail(&error),
    }
}

/// The figures of an evaluation, a line each.
fn table(figures: &Row) -> String {
    let (mut lines, mut tables) = (Vec::new(), Vec::new());
    for Figure { name, value, unit, digits, .. } in &figures.figures {
        let text = match (value, digits) {
            (Value::Text(text), _) => text.clone(),
            (Value::Count(count), _) => count.to_string(),
            (Value::Number(number), Some(digits)) => format!("{number:.digits$} {unit}"),
            (Value::Table(rows), _) => {
                tables.push((name.replace('_', " "), rows));
                continue;
            }
            (Value::Number(_) | Value::Numbers(_) | Value::Counts(_), _) => continue,
        };
        lines.push((name.replace('_', " "), text));
    }
    lines.insert(1, ("step".to_owned(), figures.step.to_string()));
    let width = 2 + lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let plain = lines.iter().map(|(name, text)| format!("{name:<width$}{}\n", text.trim_end()));
    plain.chain(tables.into_iter().map(|(name, rows)| matrix(&name, rows))).collect()
}

/// A table of counts, such as how often samples of a class (a row) were taken for each class (a column).
fn matrix(name: &str, rows: &[Vec<u64>]) -> String {
    let width = 1 + rows.iter().flatten().max().map_or(1, |most| most.to_string().len());
    let line =
        |row: &Vec<u64>| row.iter().map(|count| format!("{count:>width$}")).collect::<String>();
    let rows: Vec<String> = rows.iter().map(|row| format!("  {}\n", line(row))).collect();
    format!(
        "{name}, a row for each class that is, a column for each that was found\n{}",
        rows.concat()
    )
}
