//! The controller's flags and environment, spelt as the Go operator's users know them: Go's booleans
//! (`--leader-elect`, `--leader-elect=false`), one dash or two. Flags that mean nothing here are taken and
//! named once in a warning, so that an existing Deployment starts.

use std::{
    ffi::OsString,
    path::{Component, Path, PathBuf},
};

use clap::Args;

use crate::contract::{self, applet};

/// The image of a NodeOp that names none, if nothing says otherwise.
const NODEOP_DEFAULT_IMAGE: &str = "busybox:latest";

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
    /// The directory on every node that sentinels and results are kept in; it must survive a reboot and an
    /// upgrade.
    #[arg(long, default_value = contract::STATE_DIR, value_parser = state_dir)]
    pub state_dir: PathBuf,
    /// How many control-plane nodes may be cordoned or rebooted at once, over all NodeOps.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub control_plane_concurrency: u32,
    /// Whether a node says in conditions of its own (KEP-5683) that an operation has it,
    /// `MaintenanceInProgress`, and how far its drain is, `DrainInProgress` and `Drained`: `auto`, or `off`.
    /// It takes three writes a node.
    #[arg(long, default_value = "off", value_parser = ["auto", "off"])]
    node_conditions: String,
    /// Log one JSON object a line (`json`) or text (`console`).
    #[arg(long, default_value = "console")]
    pub zap_encoder: String,
    /// The least level to log: debug, info, warn, error, or a number as the Go operator took it (0 is info, a
    /// greater one debug). `RUST_LOG` wins.
    #[arg(long, default_value = "info")]
    pub zap_log_level: String,

    /// The image of the pods that we make ourselves; unset, that of our own pod.
    #[arg(long, env = "OPERATOR_IMAGE")]
    pub operator_image: Option<String>,
    /// When a node pulls that image, as our own pod says it.
    #[arg(skip)]
    pub operator_pull_policy: Option<String>,
    /// Secrets that every pod which runs the operator's own image pulls with, each in that pod's namespace.
    #[arg(long, env = "OPERATOR_IMAGE_PULL_SECRETS", value_name = "NAME,…", value_delimiter = ',')]
    operator_image_pull_secrets: Vec<String>,
    /// The image of a NodeOp that names none.
    #[arg(long, env = "NODEOP_DEFAULT_IMAGE", default_value = NODEOP_DEFAULT_IMAGE)]
    nodeop_default_image: String,
    /// The controller's own pod, which a drain evicts last.
    #[arg(long, env = "CONTROLLER_POD_NAME")]
    pod_name: Option<String>,
    /// The controller's own namespace.
    #[arg(long, env = "CONTROLLER_POD_NAMESPACE")]
    controller_pod_namespace: Option<String>,
    /// The controller's own namespace, if the variable above is not set.
    #[arg(long, env = "POD_NAMESPACE")]
    pod_namespace: Option<String>,

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
    // The Go operator's Deployment sets the variables. Neither image has a binary of ours.
    #[arg(long, env = "SENTINEL_IMAGE", hide = true)]
    sentinel_image: Option<String>,
    #[arg(long, env = "NODE_LABELER_IMAGE", hide = true)]
    node_labeler_image: Option<String>,
    #[arg(long, hide = true)]
    tool_image: Option<String>,
    #[arg(long, hide = true)]
    buildah_image: Option<String>,
}

impl ControllerArgs {
    /// Whether nodes say in conditions of their own how far their drain is.
    pub fn node_conditions(&self) -> bool {
        self.node_conditions == "auto"
    }

    /// The image of the pods that we make ourselves, if one was said.
    pub fn operator_image(&self) -> Option<&str> {
        self.operator_image.as_deref().and_then(said)
    }

    /// The Secrets that pods with the operator's own image pull with.
    pub fn image_pull_secrets(&self) -> impl Iterator<Item = &str> {
        self.operator_image_pull_secrets.iter().filter_map(|name| said(name))
    }

    /// The image of a NodeOp that names none.
    pub fn nodeop_default_image(&self) -> &str {
        said(&self.nodeop_default_image).unwrap_or(NODEOP_DEFAULT_IMAGE)
    }

    /// The controller's own pod.
    pub fn pod_name(&self) -> Option<&str> {
        self.pod_name.as_deref().and_then(said)
    }

    /// The controller's own namespace, as far as flags and variables say it.
    pub fn namespace(&self) -> Option<&str> {
        [&self.controller_pod_namespace, &self.pod_namespace]
            .into_iter()
            .flatten()
            .find_map(|name| said(name))
    }

    /// The filter of what is logged, in `RUST_LOG`'s terms. Upstream's numbers above 0 mean ever more detail.
    /// What kube says of broken watches and requests on its own account, in debug text, we say ourselves.
    pub fn log_filter(&self) -> String {
        format!(
            "warn,kube_client=off,kube_runtime=off,kairos_operator={}",
            self.log_level().unwrap_or("info")
        )
    }

    fn log_level(&self) -> Option<&str> {
        Some(match self.zap_log_level.as_str() {
            "debug" | "info" | "warn" | "error" => self.zap_log_level.as_str(),
            "dpanic" | "panic" | "fatal" => "error",
            number if number.parse::<u8>().ok()? > 0 => "debug",
            _ => "info",
        })
    }

    /// Whether to log JSON.
    pub fn log_json(&self) -> bool {
        self.zap_encoder == "json"
    }

    /// Values that are none of those that a flag takes, and what holds instead, for one warning each.
    pub fn not_understood(&self) -> Vec<String> {
        let (level, encoder) = (&self.zap_log_level, &self.zap_encoder);
        let level = self.log_level().is_none().then(|| {
            format!("--zap-log-level={level} is not understood, info is logged: write debug, info, warn, error, or a number from 0 to 255")
        });
        let encoder = (!matches!(encoder.as_str(), "json" | "console")).then(|| {
            format!("--zap-encoder={encoder} is not understood, text is logged: write json or console")
        });
        level.into_iter().chain(encoder).collect()
    }
}

/// A variable that is set and empty says nothing.
fn said(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
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
            ("--sentinel-image (SENTINEL_IMAGE)", &self.sentinel_image),
            ("--node-labeler-image (NODE_LABELER_IMAGE)", &self.node_labeler_image),
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

/// A directory of its own on the host. A pod mounts its parent, writable, so that one may not be `/`; and a
/// relative path would be one of the container.
fn state_dir(value: &str) -> Result<PathBuf, String> {
    let path = Path::new(value);
    let mut parts = path.components();
    let below_root = parts.next() == Some(Component::RootDir);
    let names = parts.clone().all(|part| matches!(part, Component::Normal(_)));
    if below_root && names && parts.count() >= 2 {
        return Ok(path.to_owned());
    }
    Err(format!(
        "write an absolute path with a directory of its own below another one, for example {}",
        contract::STATE_DIR
    ))
}

/// Go's flag package takes `-name` for `--name`. Only the controller's arguments are spelt as the Go
/// operator's were.
pub fn with_two_dashes(argv: Vec<OsString>) -> Vec<OsString> {
    if argv.get(1).is_none_or(|name| name != applet::CONTROLLER) {
        return argv;
    }
    let respell = |arg: OsString| match arg.to_str() {
        Some(text) if text.len() > 2 && text.starts_with('-') && !text.starts_with("--") => {
            format!("-{text}").into()
        }
        _ => arg,
    };
    argv.into_iter().map(respell).collect()
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
        for flag in
            ["--leader-elect", "-leader-elect", "--leader-elect=true", "--leader-elect=T", "--leader-elect=1"]
        {
            assert!(controller(&[flag]).leader_elect, "{flag}");
        }
        for flag in ["--leader-elect=false", "-leader-elect=0", "--leader-elect=F"] {
            assert!(!controller(&[flag]).leader_elect, "{flag}");
        }
    }

    #[test]
    fn the_deployment_of_the_go_operator_starts() {
        let args = controller(&[
            "--metrics-bind-address=:8443",
            "--leader-elect",
            "--health-probe-bind-address=:8081",
        ]);
        assert_eq!((args.metrics_bind_address.as_str(), args.ignored.given().len()), (":8443", 0));
    }

    /// As Go's flag package has it: overlays and the chart's `extraArgs` append to what the manifests say.
    #[test]
    fn of_a_flag_that_is_given_twice_the_last_one_holds() {
        let args = controller(&[
            "--metrics-bind-address=:8443",
            "--leader-elect",
            "--metrics-bind-address=:8080",
            "--leader-elect=false",
            "--node-conditions=auto",
            "--node-conditions=off",
            "--operator-image-pull-secrets=a",
            "--operator-image-pull-secrets=b,c",
            "--metrics-secure",
            "--metrics-secure=false",
        ]);
        assert_eq!((args.metrics_bind_address.as_str(), args.leader_elect), (":8080", false));
        assert!(!args.node_conditions());
        assert_eq!(args.image_pull_secrets().collect::<Vec<_>>(), ["a", "b", "c"], "a list goes on");
        assert_eq!(args.ignored.given(), ["--metrics-secure"]);
    }

    /// A relative one would be a directory of a container, and `/` the whole host, writable.
    #[test]
    fn the_state_directory_is_one_of_its_own_on_the_host() {
        for good in ["/usr/local/.kairos", "/var/kairos/", "/oem/a/b"] {
            assert_eq!(controller(&[&format!("--state-dir={good}")]).state_dir, PathBuf::from(good));
        }
        for wrong in ["usr/local/.kairos", "/", "", "/usr", "/usr/../etc/x", "./a/b"] {
            let flag = format!("--state-dir={wrong}");
            let error = parse(["kairos-operator", "controller", &flag].map(OsString::from));
            let error = error.err().unwrap_or_else(|| panic!("{wrong:?} was taken")).to_string();
            assert!(error.contains("write an absolute path"), "{error}");
        }
    }

    #[test]
    fn flags_without_a_meaning_are_named() {
        let args = controller(&[
            "--metrics-secure=false",
            "--zap-devel",
            "--webhook-cert-path",
            "/x",
            "-enable-http2",
        ]);
        assert_eq!(
            args.ignored.given(),
            ["--metrics-secure", "--enable-http2", "--zap-devel", "--webhook-cert-path"]
        );
        // An overlay of the Go operator may set the variables of both.
        assert_eq!(
            controller(&[
                "--sentinel-image=x",
                "--node-labeler-image=quay.io/kairos/operator-node-labeler:v0.1.3"
            ])
            .ignored
            .given(),
            ["--sentinel-image (SENTINEL_IMAGE)", "--node-labeler-image (NODE_LABELER_IMAGE)"]
        );
    }

    #[test]
    fn values_that_are_none_are_named_with_what_holds_instead() {
        let args = controller(&["--zap-log-level=nonsense", "--zap-encoder=xml"]);
        let named = args.not_understood().join("\n");
        assert!(named.contains("--zap-log-level=nonsense") && named.contains("--zap-encoder=xml"), "{named}");
        assert!(args.log_filter().ends_with("kairos_operator=info") && !args.log_json());
        for level in ["debug", "info", "warn", "error", "dpanic", "panic", "fatal", "0", "1", "255"] {
            assert_eq!(
                controller(&[&format!("--zap-log-level={level}")]).not_understood(),
                [""; 0],
                "{level}"
            );
        }
        assert_eq!(controller(&["--zap-log-level=256"]).not_understood().len(), 1);
        assert_eq!(controller(&["--zap-encoder=console"]).not_understood(), [""; 0]);
    }

    #[test]
    fn what_is_empty_was_not_said() {
        let empty =
            ["--operator-image=", "--nodeop-default-image= ", "--pod-name=", "--controller-pod-namespace="];
        let args = controller(&empty);
        assert_eq!(args.operator_image(), None);
        assert_eq!(
            (args.nodeop_default_image(), args.pod_name(), args.namespace()),
            (NODEOP_DEFAULT_IMAGE, None, None)
        );
        assert_eq!(controller(&["--controller-pod-namespace=", "--pod-namespace=b"]).namespace(), Some("b"));
        assert_eq!(controller(&["--controller-pod-namespace=a", "--pod-namespace=b"]).namespace(), Some("a"));
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
