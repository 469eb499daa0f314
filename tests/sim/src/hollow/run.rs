//! Runs one container: as a process of the operator's binary, or by script.

use std::{path::Path, process::Stdio, time::Duration};

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, ResourceExt, api::PostParams};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::Command;

use crate::watch;

use super::{
    node::Node,
    root,
    script::{Outcome, Run},
};

/// How a container ended: exit code and termination message.
pub type Exit = (i32, String);

/// The exit code of a process that SIGTERM ended.
const TERMINATED: i32 = 143;

/// Whether a container's command is the operator's binary.
pub fn is_applet(run: &Run) -> bool {
    let name = run
        .argv()
        .first()
        .map(|a| Path::new(a).file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned());
    name.as_deref() == Some("kairos-operator")
}

/// Runs a container until it ends. When `stop` turns true it gets SIGTERM; when the future is dropped,
/// SIGKILL. `None`: it never starts, because its image cannot be pulled.
pub async fn run(node: &Node, run: &Run, outcome: Option<Outcome>, stop: watch::Receiver<bool>) -> Exit {
    let ended = match outcome {
        None => process(node, run, stop).await.unwrap_or_else(|error| (128, format!("{error:#}"))),
        Some(outcome) => script(outcome, stop).await,
    };
    let path = run.root.join(root::message_path(&run.container));
    match std::fs::read_to_string(path) {
        Ok(written) if !written.is_empty() => (ended.0, written.chars().take(4096).collect()),
        _ => ended,
    }
}

async fn script(outcome: Outcome, mut stop: watch::Receiver<bool>) -> Exit {
    let stubborn = matches!(outcome, Outcome::Stubborn | Outcome::Through(_));
    let work = async move {
        match outcome {
            Outcome::Exit(time, code, message) => {
                tokio::time::sleep(time).await;
                Some((code, message))
            }
            Outcome::Until(future) | Outcome::Through(future) => Some(future.await),
            Outcome::Stubborn => std::future::pending().await,
            Outcome::Forever | Outcome::NoImage => None,
        }
    };
    let stopped = async {
        if stubborn {
            std::future::pending::<()>().await;
        }
        // An error means that the pod's worker is gone, which ends this run too.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    tokio::pin!(work, stopped);
    tokio::select! {
        biased;
        ended = &mut work => match ended {
            Some(ended) => ended,
            None => {
                stopped.await;
                (TERMINATED, String::new())
            }
        },
        () = &mut stopped => (TERMINATED, String::new()),
    }
}

async fn process(node: &Node, run: &Run, mut stop: watch::Receiver<bool>) -> anyhow::Result<Exit> {
    let mut child = command(node, run).await?.spawn()?;
    let pid = child.id();
    let mut asked = false;
    let status = loop {
        tokio::select! {
            biased;
            status = child.wait() => break status?,
            _ = stop.wait_for(|stop| *stop), if !asked => {
                asked = true;
                terminate(pid);
            }
        }
    };
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().or_else(|| Some(128 + signal?)).unwrap_or(255);
    let wants_log =
        run.container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError") && code != 0;
    let message = if wants_log { tail(&node.log_file(&run.pod, &run.container.name)) } else { String::new() };
    Ok((code, message))
}

fn terminate(pid: Option<u32>) {
    if let Some(pid) = pid.and_then(|p| i32::try_from(p).ok()) {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let from = text.char_indices().rev().nth(2047).map_or(0, |(at, _)| at);
    text[from..].to_owned()
}

async fn command(node: &Node, run: &Run) -> anyhow::Result<Command> {
    let binary =
        node.operator().ok_or_else(|| anyhow::anyhow!("no operator binary was given to the cluster"))?;
    let variables = root::environment(&run.pod, &run.container);
    let arguments = run.argv().into_iter().skip(1).map(|a| root::expand(&a, &variables));
    let log = node.log_file(&run.pod, &run.container.name);
    if let Some(dir) = log.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = Command::new(binary);
    command.args(arguments).env_clear().envs(variables).env("KAIROS_ROOT", &run.root).current_dir(&run.root);
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    let spec = run.pod.spec.clone().unwrap_or_default();
    if spec.host_pid == Some(true) {
        command.env("KAIROS_INIT_PID", node.init_pid().await?.to_string());
    }
    if spec.automount_service_account_token != Some(false) {
        command.env("KUBECONFIG", kubeconfig(node, &run.pod).await?);
    }
    Ok(command)
}

/// A kubeconfig with a token of the pod's account that is bound to the pod.
async fn kubeconfig(node: &Node, pod: &Pod) -> anyhow::Result<std::path::PathBuf> {
    let namespace = pod.namespace().unwrap_or_default();
    let account =
        pod.spec.as_ref().and_then(|s| s.service_account_name.clone()).unwrap_or_else(|| "default".into());
    let accounts: Api<ServiceAccount> = Api::namespaced(node.client(), &namespace);
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        uid: pod.uid(),
    };
    let spec = TokenRequestSpec {
        audiences: Vec::new(),
        bound_object_ref: Some(bound),
        expiration_seconds: Some(3600),
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let mut tries = 0;
    let answer = loop {
        match accounts.create_token_request(&account, &PostParams::default(), &request).await {
            Ok(answer) => break answer,
            Err(error) if tries >= 20 => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        tries += 1;
    };
    let path = node.places(pod).pod.join("kubeconfig");
    let token = answer.status.map(|s| s.token).unwrap_or_default();
    std::fs::write(&path, crate::kubeconfig::text(node.server(), &account, &token, &namespace))?;
    Ok(path)
}
