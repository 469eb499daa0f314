//! What Prometheus gets of a real run: a rollout that goes well, one that fails, one that is blocked, and
//! another leader.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kairos_sim::Cluster;
use kube::{Api, api::DeleteParams};
use serde_json::json;

use super::{
    drains::blocker,
    rig::{LONG, Rig, UPGRADES, and, reboot},
};
use crate::{
    exposition::Scrape,
    monitoring::{promtool, used},
};

const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn get(address: SocketAddr, accept: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok((head.to_owned(), body.to_owned()))
}

/// A scrape, in both formats, each read by a strict reader.
fn scrape(address: SocketAddr) -> Option<Scrape> {
    let (_, open) =
        get(address, "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5").ok()?;
    let (_, classic) = get(address, "*/*").ok()?;
    let (open, classic) = (Scrape::read(&open, true), Scrape::read(&classic, false));
    assert_eq!(open.families.len(), classic.families.len());
    Some(classic)
}

/// Scrapes until it is as wanted.
async fn until(address: SocketAddr, what: &str, wanted: impl Fn(&Scrape) -> bool) -> Scrape {
    let found = async {
        loop {
            match tokio::task::spawn_blocking(move || scrape(address)).await.unwrap() {
                Some(scrape) if wanted(&scrape) => return scrape,
                Some(_) | None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    tokio::time::timeout(LONG, found).await.unwrap_or_else(|_| panic!("{what}"))
}

/// The samples of all gauges that alerts look at, but for counts that a process has to learn first.
fn derived(scrape: &Scrape) -> BTreeMap<String, String> {
    let names = [
        "kairos_nodeop_phase",
        "kairos_nodeop_nodes",
        "kairos_nodeop_stalled",
        "kairos_nodeop_start_timestamp_seconds",
        "kairos_nodeop_last_progress_timestamp_seconds",
        "kairos_node_step_start_timestamp_seconds",
        "kairos_node_step_deadline_timestamp_seconds",
        "kairos_node_drain_blocked_start_timestamp_seconds",
    ];
    let all = names.iter().flat_map(|name| scrape.of(name));
    all.map(|(series, value)| (series.to_owned(), value.to_string())).collect()
}

fn on(node: &str) -> serde_json::Value {
    json!({"matchLabels": {"kubernetes.io/hostname": node}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_tells_of_what_went_well_failed_and_waits_and_another_leader_tells_the_same() {
    let mut rig = Rig::idle(Cluster::builder().nodes(3).control_planes(1)).await;
    let addresses = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let start = |rig: &mut Rig, address: SocketAddr| {
        rig.start(&["--leader-elect", &format!("--metrics-bind-address={address}")]);
    };
    start(&mut rig, addresses[0]);
    let leads = |scrape: &Scrape| scrape.value("kairos_operator_leader", &[]) == Some(1.0);
    until(addresses[0], "nobody leads", leads).await;
    start(&mut rig, addresses[1]);
    rig.labelled().await;
    let drain = json!({"drainOptions": {"enabled": true, "force": true, "timeoutSeconds": 3600}});
    rig.upgrade("up", "v3.5.0").await;
    rig.cluster
        .until(UPGRADES, LONG, |up| up["metadata"]["name"] == "up" && up["status"]["phase"] == "Completed")
        .await
        .unwrap();
    rig.op(
        "bad",
        and(
            reboot(),
            json!({"command": ["sh", "-c", "exit 3"], "backoffLimit": 0, "nodeSelector": on("n2")}),
        ),
    )
    .await;
    rig.over("bad").await;
    rig.cluster.apply(&blocker("n3")).await.unwrap();
    rig.cluster
        .until("pods", LONG, |p| p["metadata"]["name"] == "db" && p["status"]["phase"] == "Running")
        .await
        .unwrap();
    rig.op("held", and(and(reboot(), drain), json!({"nodeSelector": on("n3")}))).await;
    rig.says("held", "n3", "db-budget").await;

    let budget = [("name", "held"), ("reason", "Budget")];
    // The plan that records that it is blocked says so of the drain, and the next one of the node.
    let blocked = |scrape: &Scrape| {
        scrape.value("kairos_node_drain_blocked_pods", &[("node", "n3")]) == Some(1.0)
            && scrape.value("kairos_nodeop_waiting", &budget) == Some(1.0)
    };
    let first = until(addresses[0], "n3 is not blocked", blocked).await;
    let value = |name: &str, labels: &[(&str, &str)]| first.value(name, labels).unwrap_or(-1.0);
    for (name, kind, phase) in
        [("up", "NodeOpUpgrade", "Completed"), ("bad", "NodeOp", "Failed"), ("held", "NodeOp", "Running")]
    {
        let of = [("namespace", "default"), ("name", name), ("kind", kind), ("phase", phase)];
        assert_eq!(value("kairos_nodeop_phase", &of), 1.0, "{name}");
    }
    let upgrades = ("kind", "NodeOpUpgrade");
    assert_eq!(value("kairos_nodeop_nodes", &[("name", "up"), ("phase", "Completed")]), 3.0);
    assert_eq!(value("kairos_nodes_finished_total", &[upgrades, ("result", "upgraded")]), 3.0);
    let failed = [("kind", "NodeOp"), ("result", "failed"), ("reason", "Job")];
    assert_eq!(value("kairos_nodes_finished_total", &failed), 1.0);
    for times in ["node", "drain", "job", "reboot", "image_pull"] {
        assert_eq!(value(&format!("kairos_{times}_duration_seconds_count"), &[upgrades]), 3.0, "{times}");
    }
    assert!(value("kairos_evictions_total", &[("result", "budget")]) >= 1.0);
    assert!(value("kairos_operator_api_requests_total", &[("verb", "patch"), ("code", "200")]) > 3.0);
    assert!(value("kairos_operator_api_requests_total", &[("verb", "create"), ("code", "201")]) > 3.0);
    assert!(value("kairos_operator_plan_duration_seconds_count", &[]) > 3.0);
    let missing: Vec<String> = used().into_iter().filter(|name| first.of(name).next().is_none()).collect();
    assert!(missing.is_empty(), "alerts and panels use what is not there: {missing:?}");

    let standby = until(addresses[1], "the standby does not answer", |_| true).await;
    assert_eq!(standby.value("kairos_operator_leader", &[]), Some(0.0));
    assert!(
        standby.families.keys().all(|name| name.starts_with("kairos_operator_")),
        "{:?}",
        standby.families
    );

    let (head, text) = get(addresses[0], "*/*").unwrap();
    assert!(head.contains(&format!("content-type: {CLASSIC}\r\n")), "{head}");
    promtool(&["check", "metrics"], &text);
    let (head, text) = get(addresses[0], "application/openmetrics-text").unwrap();
    assert!(head.contains(&format!("content-type: {OPEN}\r\n")), "{head}");
    openmetrics(&text);

    rig.operators[0].kill();
    let shown = |scrape: &Scrape| leads(scrape) && scrape.of("kairos_nodeop_phase").next().is_some();
    let second = until(addresses[1], "the other one does not lead", shown).await;
    assert_eq!(derived(&first), derived(&second), "from the first plan on");
    let tried = until(addresses[1], "it does not try to evict the pod", blocked).await;
    assert_eq!(derived(&first), derived(&tried));

    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(rig.cluster.client());
    budgets.delete("db-budget", &DeleteParams::default()).await.unwrap();
    assert_eq!(rig.over("held").await["phase"], "Completed");
    rig.delete("bad").await;
    let gone =
        |scrape: &Scrape| !scrape.of("kairos_nodeop_phase").any(|(series, _)| series.contains("\"bad\""));
    let last = until(addresses[1], "what is deleted is still there", gone).await;
    for nodes in ["kairos_node_step_start_timestamp_seconds", "kairos_node_drain_blocked_pods"] {
        assert_eq!(last.of(nodes).next(), None);
    }
    let waited = last.value("kairos_drain_blocked_duration_seconds_count", &[("kind", "NodeOp")]);
    assert_eq!(waited, Some(1.0), "since when it was blocked stands in the status");
}

/// Prometheus' own reader of OpenMetrics, which wants a time at each sample here.
fn openmetrics(text: &str) {
    let dated: String = text
        .lines()
        .map(|line| if line.starts_with('#') { format!("{line}\n") } else { format!("{line} 1700000000\n") })
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("text"), dated).unwrap();
    promtool(&["tsdb", "create-blocks-from", "openmetrics", &path("text"), &path("blocks")], "");
}
