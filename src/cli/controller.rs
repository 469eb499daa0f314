//! The controller's flags and environment, spelt as upstream's users know them: Go's booleans (`--leader-elect`,
//! `--leader-elect=false`), one dash or two. Flags that mean nothing here are taken and named once in a warning, so that
//! an existing Deployment starts.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use crate::contract::{self, applet};

/// What the controller was started with. What it means (addresses, defaults that depend on each other) is the
/// controller's to say.
#[derive(Clone, Debug, Args)]
pub struct ControllerArgs {
    /// Lead only after winning an election; needed for more than one replica.
    #[arg(long, num_args = 0..=1, default_value = "false", default_missing_value = "true", require_equals = true, value_parser = go_bool)]
    pub leader_elect: bool,
    /// Where to serve metrics over plain HTTP, such as `:8080`; `0` serves none.
    #[arg(long, default_value = "0")]
    pub metrics_bind_address: String,
    /// Where to serve /healthz and /readyz; `0` serves none.
    #[arg(long, default_value = ":8081")]
    pub health_probe_bind_address: String,
    /// A kubeconfig, to run outside a cluster.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The directory on every node that sentinels and results are kept in; it must survive a reboot and an upgrade.
    #[arg(long, default_value = contract::STATE_DIR)]
    pub state_dir: PathBuf,
    /// How many control-plane nodes may be cordoned or rebooted at once, over all NodeOps.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub control_plane_concurrency: u32,
    /// Log one JSON object a line (`json`) or text (`console`).
    #[arg(long, default_value = "console")]
    pub zap_encoder: String,
    /// The least level to log: debug, info, warn, error, or upstream's numbers. `RUST_LOG` wins.
    #[arg(long, default_value = "info")]
    pub zap_log_level: String,

    /// The image of the pods that we make ourselves.
    #[arg(long, env = "OPERATOR_IMAGE", default_value = concat!("quay.io/kairos/operator:v", env!("CARGO_PKG_VERSION")))]
    pub operator_image: String,
    /// The image of the sentinel container, if not the operator's. It must hold this binary.
    #[arg(long, env = "SENTINEL_IMAGE")]
    pub sentinel_image: Option<String>,
    /// The image of the pods that read a node's facts, if not the operator's. It must hold this binary.
    #[arg(long, env = "NODE_LABELER_IMAGE")]
    pub node_labeler_image: Option<String>,
    /// The image of a NodeOp that names none.
    #[arg(long, env = "NODEOP_DEFAULT_IMAGE", default_value = "busybox:latest")]
    pub nodeop_default_image: String,
    /// The controller's own pod, which a drain evicts last.
    #[arg(long, env = "CONTROLLER_POD_NAME")]
    pub pod_name: Option<String>,
    /// The controller's own namespace.
    #[arg(long, env = "CONTROLLER_POD_NAMESPACE")]
    pub controller_pod_namespace: Option<String>,
    /// The controller's own namespace, if the variable above is not set.
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: Option<String>,

    #[command(flatten)]
    pub ignored: IgnoredArgs,
}

/// Flags of the Go operator that have no meaning here.
#[derive(Clone, Debug, Args)]
pub struct IgnoredArgs {
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    metrics_secure: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    enable_http2: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    zap_devel: Option<String>,
    #[arg(long, hide = true)]
    zap_stacktrace_level: Option<String>,
    #[arg(long, hide = true)]
    zap_time_encoding: Option<String>,
    #[arg(long, hide = true)]
    webhook_cert_path: Option<String>,
    #[arg(long, hide = true)]
    webhook_cert_name: Option<String>,
    #[arg(long, hide = true)]
    webhook_cert_key: Option<String>,
    #[arg(long, hide = true)]
    metrics_cert_path: Option<String>,
    #[arg(long, hide = true)]
    metrics_cert_name: Option<String>,
    #[arg(long, hide = true)]
    metrics_cert_key: Option<String>,
    #[arg(long, hide = true)]
    tool_image: Option<String>,
    #[arg(long, hide = true)]
    buildah_image: Option<String>,
}

impl ControllerArgs {
    /// The filter of what is logged, in `RUST_LOG`'s terms. Upstream's numbers above 0 mean ever more detail.
    pub fn log_filter(&self) -> String {
        let level = match self.zap_log_level.as_str() {
            "debug" | "info" | "warn" | "error" => self.zap_log_level.as_str(),
            "panic" => "error",
            number if number.parse::<u8>().is_ok_and(|number| number > 0) => "debug",
            _ => "info",
        };
        format!("warn,kube_client=off,kairos_operator={level}")
    }

    /// Whether to log JSON.
    pub fn log_json(&self) -> bool {
        self.zap_encoder == "json"
    }
}

impl IgnoredArgs {
    /// The flags that were given and change nothing, for one warning.
    pub fn given(&self) -> Vec<&'static str> {
        [
            ("--metrics-secure", &self.metrics_secure),
            ("--enable-http2", &self.enable_http2),
            ("--zap-devel", &self.zap_devel),
            ("--zap-stacktrace-level", &self.zap_stacktrace_level),
            ("--zap-time-encoding", &self.zap_time_encoding),
            ("--webhook-cert-path", &self.webhook_cert_path),
            ("--webhook-cert-name", &self.webhook_cert_name),
            ("--webhook-cert-key", &self.webhook_cert_key),
            ("--metrics-cert-path", &self.metrics_cert_path),
            ("--metrics-cert-name", &self.metrics_cert_name),
            ("--metrics-cert-key", &self.metrics_cert_key),
            ("--tool-image", &self.tool_image),
            ("--buildah-image", &self.buildah_image),
        ]
        .into_iter()
        .filter_map(|(flag, value)| value.is_some().then_some(flag))
        .collect()
    }
}

/// What Go's `strconv.ParseBool` takes.
fn go_bool(value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("{other:?} is not a boolean; write true or false")),
    }
}

/// Go's flag package takes `-name` for `--name`. Only the controller's arguments are upstream's to spell.
pub(super) fn with_two_dashes(argv: Vec<OsString>) -> Vec<OsString> {
    if argv.get(1).is_none_or(|name| name != applet::CONTROLLER) {
        return argv;
    }
    let mend = |arg: OsString| match arg.to_str() {
        Some(text) if text.len() > 2 && text.starts_with('-') && !text.starts_with("--") => format!("-{text}").into(),
        _ => arg,
    };
    argv.into_iter().map(mend).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Applet, parse};

    fn controller(flags: &[&str]) -> ControllerArgs {
        let argv = ["kairos-operator", "controller"].iter().chain(flags).map(OsString::from);
        match parse(argv) {
            Ok(Applet::Controller(args)) => *args,
            other => panic!("{flags:?}: {other:?}"),
        }
    }

    #[test]
    fn booleans_as_go_spells_them() {
        assert!(!controller(&[]).leader_elect);
        for flag in ["--leader-elect", "-leader-elect", "--leader-elect=true", "--leader-elect=T", "--leader-elect=1"] {
            assert!(controller(&[flag]).leader_elect, "{flag}");
        }
        for flag in ["--leader-elect=false", "-leader-elect=0", "--leader-elect=F"] {
            assert!(!controller(&[flag]).leader_elect, "{flag}");
        }
    }

    #[test]
    fn the_deployment_of_the_go_operator_starts() {
        let args = controller(&["--metrics-bind-address=:8443", "--leader-elect", "--health-probe-bind-address=:8081"]);
        assert_eq!((args.metrics_bind_address.as_str(), args.ignored.given().len()), (":8443", 0));
    }

    #[test]
    fn flags_without_a_meaning_are_named() {
        let args = controller(&["--metrics-secure=false", "--zap-devel", "--webhook-cert-path", "/x", "-enable-http2"]);
        assert_eq!(args.ignored.given(), ["--metrics-secure", "--enable-http2", "--zap-devel", "--webhook-cert-path"]);
    }

    #[test]
    fn the_log_level_is_a_filter() {
        assert!(controller(&[]).log_filter().ends_with("kairos_operator=info"));
        for flag in ["--zap-log-level=debug", "-zap-log-level=5"] {
            assert!(controller(&[flag]).log_filter().ends_with("kairos_operator=debug"), "{flag}");
        }
        assert!(controller(&["--zap-encoder=json"]).log_json());
    }

    #[test]
    fn defaults_stand() {
        let args = controller(&[]);
        assert_eq!(args.state_dir, PathBuf::from(contract::STATE_DIR));
        assert_eq!(args.control_plane_concurrency, 1);
    }
}
