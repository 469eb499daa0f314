//! The multicall: which applet was asked for, and with which arguments. A pure function from `argv` to
//! [`Applet`].
//!
//! If the file name of `argv[0]` is an applet's name, that applet runs (a link `reboot-waiter ->
//! kairos-operator`); a file of any other name takes its first argument, so a copy may be called what it
//! likes. Names are compared whole: guessing by suffix makes `my-controller` a controller.

use std::{ffi::OsString, path::Path};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};

use crate::{
    contract::applet,
    controllers::args::{ControllerArgs, with_two_dashes},
    manifests,
    node::{
        facts::FactsArgs, image_check::ImageCheckArgs, install::InstallArgs, lock::LockArgs,
        reboot_waiter::RebootWaiterArgs, sentinel::SentinelArgs, upgrade::UpgradeArgs,
    },
    telemetry::LogLevelArgs,
};

/// The name in help texts, whatever the file is called.
const BINARY_NAME: &str = "kairos-operator";

/// Every applet, in the order of the help text.
pub const APPLETS: [&str; 10] = [
    applet::CONTROLLER,
    applet::SENTINEL,
    applet::REBOOT_WAITER,
    applet::UPGRADE,
    applet::INSTALL,
    applet::IMAGE_CHECK,
    applet::NODE_LABELER,
    applet::NODE_LOCK,
    applet::MANIFESTS,
    applet::LOG_LEVEL,
];

/// Node operations for Kubernetes: the controller, and the applets that it runs on nodes.
#[derive(Debug, Parser)]
#[command(name = BINARY_NAME, version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    applet: Applet,
}

/// What to run, with its arguments.
#[derive(Debug, Subcommand)]
pub enum Applet {
    /// Runs the controller: watches NodeOps and carries them out.
    // Overlays append flags to ours, which the Go operator's users expect to hold: of one that is given twice
    // the last one does.
    #[command(name = applet::CONTROLLER, args_override_self = true)]
    Controller(Box<ControllerArgs>),
    /// Says that a Job's operation succeeded, and in which boot of the node.
    #[command(name = applet::SENTINEL)]
    Sentinel(SentinelArgs),
    /// Reboots the node once, after its Job has succeeded.
    #[command(name = applet::REBOOT_WAITER)]
    RebootWaiter(RebootWaiterArgs),
    /// Upgrades Kairos on the node to the image that it runs in.
    #[command(name = applet::UPGRADE)]
    Upgrade(UpgradeArgs),
    /// Copies this binary to where another image's container can run it.
    #[command(name = applet::INSTALL)]
    Install(InstallArgs),
    /// Looks whether the image that it runs in can run a command, without running it.
    #[command(name = applet::IMAGE_CHECK)]
    ImageCheck(ImageCheckArgs),
    /// Prints boot, release and boot state of the node.
    #[command(name = applet::NODE_LABELER)]
    NodeLabeler(FactsArgs),
    /// Holds the node's lock for the command of its pod.
    #[command(name = applet::NODE_LOCK)]
    NodeLock(LockArgs),
    /// Prints what a cluster needs: `kairos-operator manifests --image IMAGE | kubectl apply -f -`.
    #[command(name = applet::MANIFESTS)]
    Manifests(manifests::Args),
    /// Tells the controller in the same container to log more, or as before.
    #[command(name = applet::LOG_LEVEL)]
    LogLevel(LogLevelArgs),
}

/// Parses `argv`, its first element being the file name of the binary. The error is also what `--help` and
/// `--version` print; clap's `exit_code` tells them apart.
pub fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Applet, clap::Error> {
    let argv = with_two_dashes(by_file_name(argv.into_iter().collect()));
    let unknown = argv.get(1).cloned();
    let matches = Cli::command().try_get_matches_from(argv).map_err(|error| match error.kind() {
        ErrorKind::InvalidSubcommand => unknown_applet(&unknown.unwrap_or_default()),
        _ => error,
    })?;
    Cli::from_arg_matches(&matches).map(|cli| cli.applet)
}

/// Turns a call by an applet's own name into a call with the applet as the first argument.
fn by_file_name(mut argv: Vec<OsString>) -> Vec<OsString> {
    let called = argv.first().and_then(|path| Path::new(path).file_name()).and_then(|name| name.to_str());
    let known = APPLETS.into_iter().find(|name| Some(*name) == called);
    if argv.is_empty() {
        argv.push(BINARY_NAME.into());
    }
    if let Some(name) = known {
        argv.insert(1, name.into());
    }
    argv
}

fn unknown_applet(name: &OsString) -> clap::Error {
    let message = format!("unknown applet {name:?}; the known ones are: {}\n", APPLETS.join(", "));
    Cli::command().error(ErrorKind::InvalidSubcommand, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(argv: &[&str]) -> Result<Applet, clap::Error> {
        parse(argv.iter().map(OsString::from))
    }

    fn error(argv: &[&str]) -> clap::Error {
        of(argv).err().unwrap_or_else(|| panic!("{argv:?} was accepted"))
    }

    const SENTINEL: [&str; 2] = ["--state-dir=/sentinel", "--job=j"];

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
        let names: Vec<_> =
            Cli::command().get_subcommands().map(|applet| applet.get_name().to_owned()).collect();
        assert_eq!(names, APPLETS, "the list by which argv[0] is judged is the list of subcommands");
    }

    #[test]
    fn an_applet_is_found_by_the_file_name() {
        for file in ["sentinel", "./sentinel", "/usr/bin/sentinel"] {
            assert!(
                matches!(of(&[file, SENTINEL[0], SENTINEL[1]]), Ok(Applet::Sentinel(args)) if args.job == "j")
            );
        }
        assert!(matches!(of(&["manifests"]), Ok(Applet::Manifests(_))));
    }

    #[test]
    fn a_file_of_any_other_name_takes_its_first_argument() {
        for file in ["kairos-operator", "/kairos-operator", "/mnt/x", "my-sentinel", "sentinel.bak", "/", ""]
        {
            assert!(
                matches!(of(&[file, "sentinel", SENTINEL[0], SENTINEL[1]]), Ok(Applet::Sentinel(_))),
                "{file}"
            );
        }
    }

    #[test]
    fn the_file_name_wins_over_the_first_argument() {
        assert_eq!(error(&["sentinel", "manifests"]).kind(), ErrorKind::UnknownArgument);
    }

    #[test]
    fn an_unknown_applet_lists_the_known_ones() {
        let error = error(&["kairos-operator", "contoller"]);
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.contains("contoller"), "{text}");
        for name in APPLETS {
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn nothing_at_all_is_an_error_that_helps() {
        for argv in [&["kairos-operator"][..], &[]] {
            let error = error(argv);
            assert_ne!(error.exit_code(), 0);
            assert!(error.to_string().contains("reboot-waiter"));
        }
    }

    #[test]
    fn help_and_version_everywhere() {
        for flag in ["--help", "--version"] {
            assert_eq!(error(&["kairos-operator", flag]).exit_code(), 0);
            for name in APPLETS {
                assert_eq!(error(&["kairos-operator", name, flag]).exit_code(), 0, "{name} {flag}");
                assert_eq!(error(&[name, flag]).exit_code(), 0, "as {name} {flag}");
            }
        }
        assert!(error(&["sentinel", "--version"]).to_string().contains(env!("CARGO_PKG_VERSION")));
    }

    /// What comes of a script's variable that is not set would be applied but for the Deployment: over the Go
    /// operator that takes its rights and puts nobody in its place.
    #[test]
    fn an_image_that_can_be_none_is_refused() {
        for wrong in ["", "a b", "https://r.example/op", "r.example/Op:v1", "r.example/", ":v1"] {
            let error = error(&["kairos-operator", "manifests", "--image", wrong]);
            assert!(error.to_string().contains("write the image where you pushed it to"), "{wrong}: {error}");
        }
        let digest = format!("r.example:5000/a/b@sha256:{}", "0f".repeat(32));
        for image in ["op", "r.example:5000/a/b:V1", digest.as_str()] {
            assert!(of(&["manifests", "--image", image]).is_ok(), "{image}");
        }
        let help = error(&["kairos-operator", "--help"]).to_string();
        assert!(help.contains("manifests --image IMAGE | kubectl apply"), "{help}");
    }

    #[test]
    fn a_job_name_is_one_file_name() {
        for job in ["", ".", "..", ".hidden", "a/b", "../a"] {
            let job = format!("--job={job}");
            assert_eq!(error(&["sentinel", "--state-dir=/s", &job]).exit_code(), 2, "{job}");
        }
    }
}
