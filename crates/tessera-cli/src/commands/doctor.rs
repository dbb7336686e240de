//! `tessera doctor`: what is installed, and the command that repairs what is missing.
//!
//! Only looks: it changes nothing and starts nothing but programs that print their version.

mod probes;

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;
use tessera_control::ExitCode;

use crate::failure::Failure;

/// How to print what was found.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// How a finding stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// There, and it works.
    Ok,
    /// Not there, and not needed on this machine.
    Absent,
    /// Works, but worse than it could.
    Warning,
    /// Needed, and missing or broken.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    state: State,
    /// What was found, in one line.
    detail: String,
    /// The command that repairs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: State::Ok, detail: detail.into(), fix: None }
    }

    fn absent(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: State::Absent, detail: detail.into(), fix: None }
    }

    fn warning(name: &'static str, detail: impl Into<String>, fix: &str) -> Self {
        Self { name, state: State::Warning, detail: detail.into(), fix: Some(fix.into()) }
    }

    fn missing(name: &'static str, detail: impl Into<String>, fix: &str) -> Self {
        Self { name, state: State::Missing, detail: detail.into(), fix: Some(fix.into()) }
    }
}

/// Prints the findings; ends with 1 if something needed is missing.
pub(crate) fn run(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let findings = probes::all();
    let missing = findings.iter().filter(|finding| finding.state == State::Missing).count();
    let mut out = io::stdout().lock();
    if args.json {
        let report = serde_json::json!({ "healthy": missing == 0, "findings": findings });
        writeln!(out, "{}", serde_json::to_string_pretty(&report).map_err(io::Error::from)?)?;
    } else {
        print(&mut out, &findings)?;
    }
    match missing {
        0 => Ok(ExitCode::Done),
        1 => {
            Err(Failure::new(ExitCode::Failed, "one thing is missing: run the command named there"))
        }
        _ => {
            let message = format!("{missing} things are missing: run the commands named there");
            Err(Failure::new(ExitCode::Failed, message))
        }
    }
}

fn print(out: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    for Finding { name, state, detail, fix } in findings {
        let mark = match state {
            State::Ok => "ok",
            State::Absent => "-",
            State::Warning => "warning",
            State::Missing => "MISSING",
        };
        writeln!(out, "{mark:8} {name:10} {detail}")?;
        if let Some(fix) = fix {
            writeln!(out, "{:19} fix: {fix}", "")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_thing_comes_with_its_command() {
        let findings = [
            Finding::ok("memory", "1 GiB"),
            Finding::missing("mpirun", "not found", "./launch/setup.sh"),
        ];
        let mut out = Vec::new();
        print(&mut out, &findings).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ok       memory     1 GiB\n\
             MISSING  mpirun     not found\n                    fix: ./launch/setup.sh\n"
        );
    }

    #[test]
    fn every_finding_that_needs_a_repair_names_one() {
        for finding in probes::all() {
            let needs = matches!(finding.state, State::Missing | State::Warning);
            assert_eq!(finding.fix.is_some(), needs, "{finding:?}");
            assert!(!finding.detail.contains('\n'), "{finding:?}");
        }
    }
}
