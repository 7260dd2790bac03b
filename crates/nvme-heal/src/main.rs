//! nvme-heal: the operator's command.
//!
//! ```text
//!   arguments ─► one request ─► control.sock ─► one response ─► render (pure) ─► printer ─► exit code
//! ```
//!
//! Everything it knows comes over the daemon's socket; it reads no sysfs and opens no device, so it
//! is safe to run on a host where every open of an array hangs. What it prints is made by pure
//! functions of the answer, the terminal's width and the time, and those are compared with golden
//! files.
//!
//! Exit codes, as monitoring expects them: 0 all well · 1 somebody should look (healing, held) ·
//! 2 data is at risk, or a person is needed · 3 cannot tell.
#![forbid(unsafe_code)]

mod args;
mod client;
mod conformance;
mod printer;
mod render;
mod verdict;

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use heal_types::control::Response;

use args::{Args, Ask, ProvisionerTask};
use printer::Printer;
use verdict::Verdict;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // clap's own code for wrong arguments is 2, which would be an alarm here.
            let _ = error.print();
            let asked_for = !error.use_stderr();
            return if asked_for { ExitCode::SUCCESS } else { Verdict::CannotTell.into() };
        }
    };
    let printer = Printer::stdout();
    match run(&args, &printer) {
        Ok(verdict) => verdict.into(),
        Err(error) => {
            printer.complain(&format!("nvme-heal: {error:#}"));
            Verdict::CannotTell.into()
        }
    }
}

fn run(args: &Args, printer: &Printer) -> anyhow::Result<Verdict> {
    if let Ask::Provisioner { task: ProvisionerTask::Conformance(kit) } = &args.command {
        return conformance::run(kit, printer);
    }
    let request = args.command.request().context("this is nothing to ask the daemon")?;
    let response = client::ask(&args.socket, request)?;
    match (&args.command, response) {
        (Ask::Status { json: true }, Response::Status(status)) => {
            printer.print(&format!("{}\n", serde_json::to_string_pretty(&status)?));
            Ok(verdict::of_host(&status))
        }
        (Ask::Status { json: false }, Response::Status(status)) => {
            printer.print(&render::status(&status, printer.look()));
            Ok(verdict::of_host(&status))
        }
        (Ask::Explain { .. }, Response::Explanation(explanation)) => {
            printer.print(&render::explanation(&explanation, printer.look()));
            Ok(verdict::of_array(&explanation.array))
        }
        (Ask::Hold { .. } | Ask::Resume { .. }, Response::Done(text)) => {
            printer.print(&format!("{}\n", render::plain(&text)));
            Ok(Verdict::Well)
        }
        (_, Response::Refused(why)) => bail!("the daemon refuses: {}", render::plain(&why)),
        (_, Response::Status(_) | Response::Explanation(_) | Response::Done(_)) => {
            bail!("the daemon answered another question")
        }
    }
}
