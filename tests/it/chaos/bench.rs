//! What a rollout costs the operator: the real one, with its watches, caches, plans and writes, on a cluster
//! of any size, in virtual time. `scripts/bench` runs it.
//!
//! CPU is that of the thread, less what the simulation takes of it. Times on the clock are the model's. There
//! is no TLS and no socket.

use std::{
    collections::BTreeMap,
    env, io,
    ops::Deref,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    Request, Response,
    body::{Body as _, Bytes, Frame, SizeHint},
};
use k8s_openapi::api::core::v1::Node;
use kairos_operator::{
    api::names,
    contract::FACTS_SCHEMA,
    controllers::{Clock, Controller},
};
use kairos_sim::{InProcess, meter, server::http::Body};
use kube::{
    Api,
    api::{Patch, PatchParams},
    client::Body as Sent,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower_service::Service;

use super::{
    operator, run,
    scenario::{Mode, Scenario, Wish},
    world::{World, time_off_by},
};

/// One way between the operator and the server.
const LEG: Duration = Duration::from_millis(3);

/// Bytes of the objects whose status grows with the number of nodes.
#[derive(Debug, Default)]
struct Traffic {
    sent: AtomicU64,
    read: AtomicU64,
}

/// The server, at a distance, whose work is not the operator's.
#[derive(Clone)]
struct Line {
    server: InProcess,
    traffic: Arc<Traffic>,
    /// From when the time is counted with which each write is printed, if it is.
    told_since: Option<Instant>,
}

impl Service<Request<Sent>> for Line {
    type Response = Response<Counted>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<Counted>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Sent>) -> Self::Future {
        let (mut server, traffic) = (self.server.clone(), self.traffic.clone());
        let told_since = self.told_since;
        Box::pin(meter::metered(async move {
            let request = match told_since {
                Some(since) => told(request, since).await,
                None => request,
            };
            let counts = request.uri().path().contains("/nodeop");
            if counts {
                let size = request.body().size_hint().exact().unwrap_or_default();
                traffic.sent.fetch_add(size, Ordering::Relaxed);
            }
            sleep(LEG).await;
            let response = server.call(request).await?;
            sleep(LEG).await;
            Ok(response.map(|body| Counted { body, traffic: counts.then_some(traffic) }))
        }))
    }
}

/// Prints a write, with what it sends.
async fn told(request: Request<Sent>, since: Instant) -> Request<Sent> {
    if request.method() == "GET" {
        return request;
    }
    let (head, body) = request.into_parts();
    let body = body.collect_bytes().await.expect("a body that is there already");
    let at = since.elapsed().as_secs_f64();
    println!("{at:>9.3} {} {} {}", head.method, head.uri.path(), String::from_utf8_lossy(&body));
    Request::from_parts(head, Sent::from(body))
}

/// An answer, or what a watch tells.
struct Counted {
    body: Body,
    traffic: Option<Arc<Traffic>>,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = meter::call(|| Pin::new(&mut self.body).poll_frame(context));
        if let (Poll::Ready(Some(Ok(frame))), Some(traffic)) = (&frame, &self.traffic) {
            let size = frame.data_ref().map_or(0, Bytes::len);
            traffic.read.fetch_add(size as u64, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How large a rollout is measured.
#[derive(Clone, Copy, Debug)]
struct Size {
    nodes: usize,
    concurrency: usize,
    /// So many nodes are brought to their end.
    until: usize,
}

/// What it came to.
struct Figures {
    size: Size,
    done: usize,
    spent: meter::Spent,
    /// How many were done when the first was, and what it came to until then: what is once for all nodes is
    /// in that, and the nodes that are begun by then.
    begun: usize,
    first: meter::Spent,
    /// By verb and resource.
    writes: BTreeMap<String, usize>,
    traffic: Arc<Traffic>,
    status: usize,
    took: Duration,
}

fn upgrade(size: Size) -> Wish {
    Wish {
        kind: "NodeOpUpgrade",
        name: "up".into(),
        arrives: Duration::ZERO,
        spec: json!({"image": "quay.io/kairos/opensuse:v3.5.0", "concurrency": size.concurrency, "drain": {"enabled": false}}),
        fates: <_>::default(),
    }
}

/// Plays a rollout up to where it is measured.
async fn play(size: Size) -> Figures {
    let scenario = Scenario { control_planes: 1, mode: Mode::Alone, ..Scenario::calm(size.nodes) };
    let (cluster, world) = run::cluster(1, &scenario).await;
    say_facts(&world, cluster.list("nodes")).await;
    let traffic = Arc::new(Traffic::default());
    let told_since = env::var_os("KAIROS_BENCH_LOG").map(|_| Instant::now());
    let line = Line { server: cluster.service(&world.operator_token), traffic: traffic.clone(), told_since };
    let client = kube::Client::new(line.clone(), "default");
    let args = operator::args(Mode::Alone, &world.worlds);
    let clock = Clock::set_to(time_off_by(0));
    let running = tokio::spawn({
        let args = args.clone();
        async move {
            let _running = Controller::new(&args, client, clock, "operator-0".into()).start();
            std::future::pending::<()>().await;
        }
    });
    sleep(Duration::from_secs(10)).await;
    let (before, asked) = (meter::spent(), cluster.requests().len());
    traffic.sent.store(0, Ordering::Relaxed);
    traffic.read.store(0, Ordering::Relaxed);
    let began = Instant::now();
    meter::forget_longest();
    ask(&world, &upgrade(size)).await;
    let (mut done, mut object) = (0, Value::Null);
    let mut first = None;
    while done < size.until {
        sleep(Duration::from_secs(1)).await;
        let ops = cluster.list("nodeops.operator.kairos.io");
        object = ops.first().map(|op| (**op).clone()).unwrap_or_default();
        let counts = &object["status"]["counts"];
        let of =
            |name: &str| counts[name].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        done = of("completed") + of("failed");
        if done > 0 && first.is_none() {
            first = Some((done, meter::spent()));
            meter::forget_longest();
        }
    }
    let after = meter::spent();
    let (begun, first) = first.unwrap_or((0, before));
    let user =
        format!("system:serviceaccount:{}:{}", kairos_sim::install::NAMESPACE, kairos_sim::install::ACCOUNT);
    let mut writes = BTreeMap::new();
    cluster.requests()[asked..]
        .iter()
        .filter(|request| request.user == user && !["get", "list", "watch"].contains(&request.verb.as_str()))
        .filter(|request| !request.resource.starts_with("events") && request.resource != "pods/eviction")
        .map(|request| format!("{} {}", request.verb, request.resource))
        .for_each(|write| *writes.entry(write).or_default() += 1);
    let figures = Figures {
        size,
        done,
        begun,
        first: meter::Spent {
            operator: first.operator - before.operator,
            simulation: first.simulation - before.simulation,
            longest: first.longest,
        },
        spent: meter::Spent {
            operator: after.operator - before.operator,
            simulation: after.simulation - before.simulation,
            longest: after.longest,
        },
        writes,
        traffic,
        status: serde_json::to_string(&object["status"]).map_or(0, |text| text.len()),
        took: began.elapsed(),
    };
    running.abort();
    figures
}

/// What the nodes run is known when the rollout begins. To read it, of each, takes the simulation longer than the
/// rollout.
async fn say_facts(world: &World, nodes: impl IntoIterator<Item = impl Deref<Target = Value>>) {
    let api = Api::<Node>::all(world.client.clone());
    for node in nodes {
        let boot = node["status"]["nodeInfo"]["bootID"].as_str().expect("a boot id");
        let said = json!({"metadata": {
            "labels": {names::MANAGED: "true"},
            "annotations": {
                names::FACTS_OF: format!("{boot}/{FACTS_SCHEMA}"),
                names::BOOT_STATE_OF: "active",
                names::RELEASE: "v3.4.0",
            },
        }});
        let name = node["metadata"]["name"].as_str().expect("a name");
        api.patch(name, &PatchParams::default(), &Patch::Merge(said)).await.expect("a patch");
    }
}

async fn ask(world: &World, wish: &Wish) {
    world.fates(&wish.name, |fates| *fates = wish.fates.clone());
    assert!(run::ask_for(world, wish).await, "it is there already");
}

fn print(figures: &Figures) {
    let Figures { size, done, spent, begun, first, writes, traffic, status, took } = figures;
    let per = |total: f64| total / *done as f64;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "| {} | {} | first {done} | {:.1} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} |",
        size.nodes,
        size.concurrency,
        per(ms(spent.operator)),
        ms(first.operator),
        ms(spent.operator - first.operator) / (done - begun).max(1) as f64,
        ms(first.longest),
        ms(spent.longest),
        per(writes.values().sum::<usize>() as f64),
        per(traffic.sent.load(Ordering::Relaxed) as f64 / 1e6),
        per(traffic.read.load(Ordering::Relaxed) as f64 / 1e6),
        *status as f64 / 1e3,
        took.as_secs_f64(),
        spent.simulation.as_secs_f64(),
    );
    if env::var_os("KAIROS_BENCH_WRITES").is_some() {
        let kinds = writes.iter().map(|(write, count)| format!("{write} {:.1}", per(*count as f64)));
        println!("writes per node: {}", kinds.collect::<Vec<_>>().join(", "));
    }
}

/// `KAIROS_BENCH`: sizes, each as nodes/concurrency/nodes to be done. `KAIROS_BENCH_WRITES`: also how much is
/// written of what. `KAIROS_BENCH_LOG`: each write, when it was sent and what it says.
#[test]
#[ignore = "a benchmark: scripts/bench runs it"]
fn what_a_rollout_costs() {
    let sizes = env::var("KAIROS_BENCH").unwrap_or_else(|_| "100/1/10 100/50/100".into());
    println!(
        "| nodes | concurrency | nodes finished | CPU ms per node | until the first is done | per node from then on | longest stretch until then, ms | from then on | writes per node | status MB sent per node | read per node | status kB | s in the model | s of simulation |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for size in sizes.split_whitespace() {
        let numbers: Vec<usize> = size.split('/').map(|number| number.parse().expect("a number")).collect();
        let [nodes, concurrency, until] = numbers[..] else { panic!("nodes/concurrency/done") };
        meter::start();
        let figures = run::runtime(1).block_on(meter::metered(play(Size { nodes, concurrency, until })));
        print(&figures);
    }
}
