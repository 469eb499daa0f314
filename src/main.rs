//! The binary: parse what was typed, dispatch, turn the result into an exit code.

use std::process::ExitCode;

use kairos_operator::{
    api::error_text::causes,
    cli::{self, Applet},
    controllers, manifests, node, telemetry,
};

/// What is logged unless `RUST_LOG` says otherwise. kube and notify complain on their own account about what
/// we handle: an API that is away, a watch on a directory that is gone.
const LOG: &str = "info,kube_client=off,notify=off";

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(applet) => run(applet),
        Err(error) => {
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
    }
}

/// Every applet ends here; those that need a runtime build it themselves.
fn run(applet: Applet) -> ExitCode {
    let verbosity = match &applet {
        Applet::Controller(args) => telemetry::init(&args.log_filter(), args.log_json()),
        _ => telemetry::init(LOG, false),
    };
    match applet {
        Applet::Controller(args) => ended(controllers::run(&args, verbosity)),
        Applet::LogLevel(args) => ended(telemetry::log_level(&args)),
        Applet::Manifests(args) => ended(manifests::run(&args)),
        Applet::Sentinel(args) => node::run(|host| node::sentinel::run(&args, host)),
        Applet::RebootWaiter(args) => node::run(|host| node::reboot_waiter::run(&args, host)),
        Applet::Upgrade(args) => node::run(|host| node::upgrade::run(&args, host)),
        Applet::Install(args) => node::run(|host| node::install::run(&args, host)),
        Applet::ImageCheck(args) if args.traced => node::image_check::attempt(&args),
        Applet::ImageCheck(args) => node::run(|host| node::image_check::run(&args, host)),
        Applet::NodeLabeler(args) => node::run(|host| node::facts::run(&args, host)),
        Applet::NodeLock(args) if args.check => node::probe(|host| node::lock::check(&args, host)),
        Applet::NodeLock(args) => node::run(|host| node::lock::run(&args, host)),
    }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    result.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    tracing::error!("{}", causes(error.as_ref()));
    ExitCode::FAILURE
}
