//! The cluster that is meant: kubeconfigs as kubectl reads them, and the flags that choose among what is in
//! them.

use std::{env, path::PathBuf, time::Duration};

use clap::builder::{NonEmptyStringValueParser, TypedValueParser};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use super::{
    failure::{Failure, Result},
    target::checked,
    time,
};
use crate::api::{error_text::causes, text::one_line};

/// How long a connection may take to be made, unless --request-timeout says otherwise.
const CONNECT: Duration = Duration::from_secs(10);

/// Which cluster, and as whom.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Cluster options")]
pub struct ConnectionArgs {
    /// The namespace; unset, that of the context
    #[arg(short = 'n', long, global = true, value_name = "NAME", value_parser = NonEmptyStringValueParser::new().try_map(|name| checked(&name)))]
    pub namespace: Option<String>,
    /// The kubeconfig; unset, the files of KUBECONFIG, else ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The cluster of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// The user of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// Whom to impersonate: a user, or system:serviceaccount:NAMESPACE:NAME
    #[arg(long = "as", global = true, value_name = "USER")]
    pub impersonate: Option<String>,
    /// A group to impersonate; may be given more than once
    #[arg(long = "as-group", global = true, value_name = "GROUP", requires = "impersonate")]
    pub impersonate_groups: Vec<String>,
    /// How long a request may take, as 30s or 1m; 0 is as long as it likes
    #[arg(long, global = true, value_name = "TIME", value_parser = time::parse)]
    pub request_timeout: Option<Duration>,
}

/// A cluster, with its user's rights.
#[derive(Clone)]
pub struct Connection {
    pub client: Client,
    /// The namespace that is meant where none is named.
    pub namespace: String,
    /// The API server's address.
    pub server: String,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Connection {
    /// Reads the kubeconfig. Nothing is asked of the API server yet.
    pub async fn open(args: &ConnectionArgs) -> Result<Self> {
        let mut config = config(args).await?;
        config.connect_timeout = Some(CONNECT);
        // The client itself would try a 503 or a 429 again for minutes, in silence. The first of the two
        // people want to see; the second is what a plan asks for: whether a budget refuses an eviction now.
        config.default_retry = false;
        if let Some(limit) = args.request_timeout.filter(|limit| !limit.is_zero()) {
            config.connect_timeout = Some(limit);
            config.read_timeout = Some(limit);
            config.write_timeout = Some(limit);
            config.reset_reader_on_write = true;
        }
        if args.impersonate.is_some() {
            config.auth_info.impersonate = args.impersonate.clone();
            config.auth_info.impersonate_groups =
                Some(args.impersonate_groups.clone()).filter(|groups| !groups.is_empty());
        }
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| unusable(&error))?;
        Ok(Self { client, namespace, server })
    }
}

/// As kubectl does: the file that is named, else those of KUBECONFIG, else the one at home, else the account
/// of the pod that this runs in.
async fn config(args: &ConnectionArgs) -> Result<Config> {
    let options = KubeConfigOptions {
        context: args.context.clone(),
        cluster: args.cluster.clone(),
        user: args.user.clone(),
    };
    let read = match &args.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let kubeconfig = match read {
        Ok(kubeconfig) => kubeconfig,
        Err(error) => {
            let chosen = args.kubeconfig.is_some() || env::var_os("KUBECONFIG").is_some();
            return Config::incluster().ok().filter(|_| !chosen).ok_or_else(|| unreadable(&error));
        }
    };
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unreadable(&error))
}

fn unreadable(error: &KubeconfigError) -> Failure {
    let why = match error {
        KubeconfigError::ReadConfig(cause, path) => format!("{}: {cause}", path.display()),
        KubeconfigError::FindPath => "there is none, and no home directory".to_owned(),
        KubeconfigError::CurrentContextNotSet => {
            return Failure::new("the kubeconfig has no current context")
                .hint("Name one with --context, or set it: kubectl config use-context NAME");
        }
        KubeconfigError::LoadContext(name) => {
            return Failure::new(format!("the kubeconfig has no context {name}"))
                .hint("Which there are: kubectl config get-contexts");
        }
        KubeconfigError::LoadClusterOfContext(name) => {
            format!("it has no cluster {name}, which the context names")
        }
        other => one_line(&causes(other)),
    };
    Failure::new(format!("reading the kubeconfig: {why}"))
        .hint("Name a file with --kubeconfig or KUBECONFIG; kubectl config view shows what kubectl sees.")
}

/// Why no connection can be made of what the kubeconfig says.
fn unusable(error: &kube::Error) -> Failure {
    let text = causes(error);
    if text.contains("UnsupportedCertVersion") {
        return Failure::new(
            "the client certificate of your kubeconfig is an X.509 version 1 certificate, which rustls, the TLS library of this program, does not accept (kubectl's does)",
        )
        .hint(
            "Have it issued again as version 3: openssl x509 -req adds one with -extfile, as soon as any extension is asked for. A token does as well.",
        );
    }
    Failure::new(format!("using the kubeconfig: {}", one_line(&text)))
        .hint("kubectl config view --minify shows the context that is used.")
}
