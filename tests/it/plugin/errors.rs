//! What goes wrong before a verb begins: kubeconfigs, clusters, rights, names.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use kairos_sim::{Cluster, Effect, Fault};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::{Stage, command, run};

const LONG: Duration = Duration::from_secs(600);

/// A client certificate of X.509 version 1, as `openssl x509 -req` made it for years, with its key.
const VERSION_1: &str = include_str!("x509v1.yaml");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_says_what_which_object_why_and_what_next() {
    let stage = Stage::new().await;
    for (words, error) in [
        (&["status", "up1"][..], "error: there is no NodeOpUpgrade and no NodeOp up1 in namespace default\n"),
        (&["status", "nou/up1", "-n", "x"], "error: there is no NodeOpUpgrade up1 in namespace x\n"),
        (
            &["status", "pod/up1"],
            "error: invalid value 'pod/up1' for '[TARGET]': pod is no kind of operation",
        ),
        (&["status", "--context", "none"], "error: the kubeconfig has no context none\n"),
        (
            &["status", "--kubeconfig", "/no/such/file"],
            "error: reading the kubeconfig: /no/such/file: No such file",
        ),
        (&["stat"], "error: unrecognized subcommand 'stat'"),
    ] {
        let ran = stage.run(words).await;
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
        assert!(ran.err.starts_with(error), "{words:?}: {}", ran.err);
        assert!(ran.err.lines().count() > 1, "what next: {}", ran.err);
    }
    let help = stage.run(&["--help"]).await;
    assert!(help.code == 0 && help.out.contains("kubectl kairos"), "{help:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_and_an_operator_that_is_not_there_are_told_in_words() {
    let stage = Stage::new().await;
    let kubeconfig = stage.cluster.kubeconfig_for("default", "nobody").unwrap();
    let refused = run(&kubeconfig, None, &["status"]).await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.starts_with("error: listing NodeOpUpgrades in namespace default: nodeopupgrades.operator.kairos.io is forbidden: User \"system:serviceaccount:default:nobody\" cannot list"), "{}", refused.err);
    assert!(refused.err.contains("kubectl auth can-i"), "{}", refused.err);
    let refused = run(&kubeconfig, None, &["status", "-w"]).await;
    assert!(refused.code == 1 && refused.err.contains("is forbidden"), "{refused:?}");

    let bare = Cluster::builder().nodes(1).start().await.unwrap();
    let nothing = run(&bare.kubeconfig(), None, &["status"]).await;
    assert_eq!(nothing.code, 1);
    assert!(nothing.err.contains("the operator is not installed in this cluster"), "{}", nothing.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubeconfigs_are_read_as_kubectl_reads_them() {
    let stage = Stage::new().await;
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    // Contexts in one file, cluster and user in the next; the user's credentials come from a program.
    let contexts = write(
        "contexts",
        "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts:\n- name: a\n  context: {cluster: c, user: u, namespace: fleet}\n",
    );
    let text = std::fs::read_to_string(stage.cluster.kubeconfig()).unwrap();
    let token = text.lines().find_map(|line| line.trim().strip_prefix("token: ")).unwrap();
    let credential = format!(
        "{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{{\"token\":\"{token}\"}}}}"
    );
    let cluster = write(
        "cluster",
        &format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster: {{server: {}}}\nusers:\n- name: u\n  user:\n    exec: {{apiVersion: client.authentication.k8s.io/v1, command: echo, args: ['{credential}'], interactiveMode: Never}}\n",
            stage.cluster.server()
        ),
    );
    let both = std::env::join_paths([&contexts, &cluster]).unwrap();
    let ran = run(Path::new(&both), None, &["status"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, "No operations found in namespace fleet.\n"));

    let none = run(&cluster, None, &["status"]).await;
    assert!(
        none.code == 1 && none.err.starts_with("error: the kubeconfig has no current context\n"),
        "{none:?}"
    );
    let away = write(
        "away",
        "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts:\n- name: a\n  context: {cluster: c, user: u}\nclusters:\n- name: c\n  cluster: {server: 'http://127.0.0.1:1'}\nusers:\n- name: u\n  user: {}\n",
    );
    let away = run(&away, None, &["status"]).await;
    assert!(
        away.code == 1
            && away.err.starts_with(
                "error: listing NodeOpUpgrades in namespace default: the API server did not answer: "
            ),
        "{away:?}"
    );
    assert!(away.err.contains("kubectl cluster-info"), "{away:?}");

    // The proxy is asked, and it is the proxy that is not there.
    let text = std::fs::read_to_string(stage.cluster.kubeconfig()).unwrap();
    let proxied =
        text.replace("  cluster:\n    server:", "  cluster:\n    proxy-url: http://127.0.0.1:1\n    server:");
    assert!(proxied.contains("proxy-url"));
    let proxied = run(&write("proxied", &proxied), None, &["status"]).await;
    assert!(proxied.code == 1 && proxied.err.contains("the API server did not answer"), "{proxied:?}");

    let old = run(&write("old", VERSION_1), None, &["status"]).await;
    assert_eq!(old.code, 1);
    assert!(
        old.err.starts_with(
            "error: the client certificate of your kubeconfig is an X.509 version 1 certificate"
        ),
        "{}",
        old.err
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_slow_or_in_trouble_keeps_nobody_waiting() {
    let stage = Stage::new().await;
    let upgrades = "nodeopupgrades.operator.kairos.io";
    stage.cluster.faults().arm(Fault::on("list", upgrades, Effect::Hang).always());
    let slow = stage.run(&["status", "--request-timeout", "1s"]).await;
    assert!(slow.code == 1 && slow.err.contains("the API server did not answer"), "{slow:?}");
    stage.cluster.faults().clear();
    stage.cluster.faults().arm(Fault::on("list", upgrades, Effect::Refuse(503)).always());
    let trouble = stage.run(&["status"]).await;
    assert_eq!(trouble.code, 1);
    let said = "error: listing NodeOpUpgrades in namespace default: injected by a fault of the simulator\n";
    assert!(trouble.err.starts_with(said), "{trouble:?}");
    let asked = stage.cluster.requests().iter().filter(|request| request.code == 503).count();
    assert_eq!(asked, 1, "it is told at once");
}

/// A pipeline tries errors again, and ends at a refusal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_trouble_has_refused_nothing() {
    let stage = Stage::new().await;
    let (upgrades, ops) = ("nodeopupgrades.operator.kairos.io", "nodeops.operator.kairos.io");
    for (status, code) in [(500, 1), (503, 1), (429, 1), (401, 1), (403, 2), (409, 2), (422, 2)] {
        for resource in [upgrades, ops] {
            stage.cluster.faults().arm(Fault::on("create", resource, Effect::Refuse(status)).always());
        }
        let upgrade = stage.run(&["upgrade", "kairos:v2"]).await;
        let command = stage.run(&["run", "--", "true"]).await;
        assert_eq!((upgrade.code, command.code), (code, code), "{status}: {upgrade:?} {command:?}");
        let plan = stage.run(&["plan", "kairos:v2"]).await;
        assert_eq!(plan.out.contains("refused: "), code == 2, "{status}: {plan:?}");
        stage.cluster.faults().clear();
    }
}

/// What has been seen is watched on: a server that has just started refuses whoever is no administrator until
/// it knows who may do what.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_watched_survives_a_refusal_that_passes() {
    let stage = Stage::new().await;
    let upgrades = "nodeopupgrades.operator.kairos.io";
    let says = |phase: &str| json!({"phase": phase, "message": format!("it is {phase}")});
    stage.upgrade("up1", json!({"image": "i"}), says("Running")).await;
    stage.cluster.clear_requests();
    let mut waits = command(&stage.cluster.kubeconfig(), None, &["wait", "up1"]);
    let waits = waits.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let by_us = |request: &kairos_sim::Request| request.user == "admin" && request.verb == "watch";
    let eventually = async |what: &str, holds: &dyn Fn(&kairos_sim::Request) -> bool, times: usize| {
        let begun = Instant::now();
        while stage.cluster.requests().iter().filter(|request| holds(request)).count() < times {
            assert!(begun.elapsed() < LONG, "{what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    eventually("it watches", &|request| by_us(request) && request.resource == upgrades, 1).await;
    for verb in ["list", "watch"] {
        stage.cluster.faults().arm(Fault::on(verb, upgrades, Effect::Refuse(403)).times(2).by("admin"));
    }
    stage.cluster.faults().close_watches();
    eventually("it is refused", &|request| request.code == 403 && request.user == "admin", 2).await;
    stage.cluster.faults().clear();
    stage.upgrade_says("up1", says("Completed")).await;
    let ended = waits.wait_with_output().await.unwrap();
    assert_eq!(
        String::from_utf8(ended.stdout).unwrap(),
        "nou/up1 Completed: it is Completed\n",
        "{:?}",
        String::from_utf8(ended.stderr)
    );
    assert_eq!(ended.status.code(), Some(0));
}

/// They become part of an address, where a slash or a space is something else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_no_name_is_told_before_anybody_is_asked() {
    let stage = Stage::new().await;
    for words in
        [&["status", "-n", "a/b"][..], &["status", "Up?x"], &["status", "nou/a b"], &["logs", "up1", "n1 n2"]]
    {
        let ran = stage.run(words).await;
        assert!(ran.code == 1 && ran.err.contains("can be no name"), "{words:?}: {ran:?}");
    }
    // Whoever plans a file that cannot be read is told so, whatever the cluster says.
    stage.cluster.faults().arm(Fault::on("list", "*", Effect::Refuse(503)).always());
    let missing = stage.run(&["plan", "-f", "no-such-file.yaml"]).await;
    assert!(missing.code == 1 && missing.err.contains("reading no-such-file.yaml"), "{missing:?}");
}

/// A page to log in at, of a proxy in front of the API server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_none_of_an_api_server_says_where_to_look() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                let _ = stream.read(&mut asked).await;
                let page = "<html>log in</html>";
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", page.len());
                let _ = stream.write_all(format!("{head}{page}").as_bytes()).await;
            });
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts:\n- name: a\n  context: {{cluster: c, user: u}}\nclusters:\n- name: c\n  cluster: {{server: 'http://{address}'}}\nusers:\n- name: u\n  user: {{}}\n"
    );
    std::fs::write(&path, text).unwrap();
    let ran = run(&path, None, &["status"]).await;
    assert!(ran.code == 1 && ran.err.contains("the API server's answer cannot be read"), "{ran:?}");
    assert!(ran.err.contains("kubectl cluster-info"), "{ran:?}");
}
