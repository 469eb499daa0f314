//! `check`: whether the operator is installed, runs and leads, and what the user may do.

use clap::Args;
use futures::future::join_all;
use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition, jiff::Timestamp,
};
use kube::{Api, CustomResourceExt};
use serde_json::{Value, json};

use super::{
    connection::Connection,
    failure::{self, Code, Doing, INSTALL, Result},
    fields,
    installed::{self, Elsewhere, Leader, Operator, PlaceArgs},
    output::{Output, OutputArgs},
    rights::{RIGHTS, Right},
    screen::{Screen, Tone},
    table::Table,
};
use crate::api::{names, nodeop::NodeOp, upgrade::NodeOpUpgrade};

/// Checks that the operator is installed, runs and leads, and what you may do.
///
/// Exit code 2: something is not as it should be.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How one check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Bad,
    /// It is not known, or no harm.
    Note,
}

/// One check.
struct Checked {
    what: String,
    verdict: Verdict,
    says: String,
}

impl Checked {
    fn new(what: impl Into<String>, verdict: Verdict, says: impl Into<String>) -> Self {
        Self { what: what.into(), verdict, says: says.into() }
    }
}

/// Fields of a kind that are named where they are missing; of more their number is told.
const MAX_NAMED: usize = 5;

/// Runs the verb.
pub async fn run(args: &CheckArgs, connection: &Connection, screen: &Screen) -> Result<Code> {
    let server =
        connection.client.apiserver_version().await.doing(|| "reading the API server's version".into())?;
    let mut all = vec![Checked::new(
        "API server",
        Verdict::Good,
        format!("{}, {}", server.git_version, connection.server),
    )];
    all.push(kind::<NodeOp>(connection).await?);
    all.push(kind::<NodeOpUpgrade>(connection).await?);
    all.push(deployment(&installed::operator(connection, &args.place).await?, &args.place));
    all.push(leads(&installed::leader(connection, &args.place, Timestamp::now()).await?));
    let leaders = installed::other_leaders(connection, &args.place, Timestamp::now()).await?;
    all.push(alone(leaders, installed::other_deployments(connection, &args.place).await?));
    for checked in join_all(RIGHTS.iter().map(|right| may(connection, right))).await {
        all.push(checked?);
    }
    if let Some(Output::Json | Output::Yaml | Output::Kyaml) = args.output.kind {
        let value = |checked: &Checked| json!({"check": checked.what, "ok": checked.verdict != Verdict::Bad, "says": checked.says});
        args.output.value(&Value::Array(all.iter().map(value).collect()), screen)?;
    } else {
        print(&all, args, screen)?;
    }
    let bad = all.iter().any(|checked| checked.verdict == Verdict::Bad);
    Ok(if bad { Code::Refused } else { Code::Done })
}

fn print(all: &[Checked], args: &CheckArgs, screen: &Screen) -> Result<()> {
    let mark = |verdict| match verdict {
        Verdict::Good => ("✓", Tone::Good),
        Verdict::Bad => ("✗", Tone::Bad),
        Verdict::Note => ("·", Tone::Plain),
    };
    let mut table = Table::new(&["CHECK", "RESULT"]);
    for checked in all {
        table.row([format!("{} {}", mark(checked.verdict).0, checked.what), checked.says.clone()]);
    }
    let heading = !args.output.no_headers;
    for (at, line) in table.lines(screen.width, heading).iter().enumerate() {
        let checked = at.checked_sub(usize::from(heading)).and_then(|at| all.get(at));
        screen.line(&screen.tint(checked.map_or(Tone::Plain, |checked| mark(checked.verdict).1), line))?;
    }
    Ok(())
}

/// Whether a kind is installed, with the fields of this operator: the Go operator has the same kinds, and the
/// API server drops a field that it does not know without a word.
async fn kind<K: CustomResourceExt>(connection: &Connection) -> Result<Checked> {
    let what = K::api_resource().kind;
    let name = K::crd_name();
    let api = Api::<CustomResourceDefinition>::all(connection.client.clone());
    let found = match api.get_opt(name).await {
        Err(error) if failure::is_forbidden(&error) => {
            return Ok(Checked::new(
                what,
                Verdict::Note,
                "not known: you may not get customresourcedefinitions",
            ));
        }
        found => found.doing(|| format!("reading CustomResourceDefinition {name}"))?,
    };
    let Some(crd) = found else {
        let says = format!("not installed: {INSTALL}");
        return Ok(Checked::new(what, Verdict::Bad, says));
    };
    let missing = fields::missing(&K::crd(), &crd);
    Ok(if missing.is_empty() {
        Checked::new(what, Verdict::Good, format!("{}/{}", names::GROUP, names::VERSION))
    } else {
        let says = format!("an older one is installed, without {}: {INSTALL}", listed(&missing));
        Checked::new(what, Verdict::Bad, says)
    })
}

fn listed(missing: &[String]) -> String {
    let (named, more) = missing.split_at(missing.len().min(MAX_NAMED));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    format!("{}{more}", named.join(", "))
}

fn deployment(operator: &Operator, place: &PlaceArgs) -> Checked {
    let (verdict, says) = match operator {
        Operator::Unknown(why) => (Verdict::Note, format!("not known: {why}")),
        Operator::Missing => {
            let says = format!(
                "no Deployment in namespace {}; another one: --operator-namespace",
                place.operator_namespace
            );
            (Verdict::Bad, says)
        }
        Operator::Several(names) => (
            Verdict::Bad,
            format!(
                "{} in namespace {} lead in turn; delete what is not this operator, see docs/migration.md",
                names.join(" and "),
                place.operator_namespace
            ),
        ),
        Operator::There { name, image, ready, wanted, .. } => {
            let says = format!("{name}: {ready} of {wanted} Ready");
            match operator.not_rolled_out(place) {
                Some(why) => (Verdict::Bad, format!("{says}; {why}")),
                None if *ready > 0 => (Verdict::Good, format!("{says}, {image}")),
                None => (Verdict::Bad, format!("{says}, {image}")),
            }
        }
    };
    Checked::new("operator", verdict, says)
}

fn leads(leader: &Leader) -> Checked {
    let (verdict, says) = match leader {
        Leader::Unknown(why) => (Verdict::Note, format!("not known: {why}")),
        Leader::None => (Verdict::Bad, "nobody leads".to_owned()),
        Leader::Of { holder, expired: false } => (Verdict::Good, holder.clone()),
        Leader::Of { holder, expired: true } => (Verdict::Bad, format!("{holder} has not renewed its Lease")),
    };
    Checked::new("leader", verdict, says)
}

/// Whether no other operator acts on the same nodes, as where the Go operator was installed by Helm.
fn alone(leaders: Option<Vec<Elsewhere>>, deployments: Option<Vec<Elsewhere>>) -> Checked {
    let unknown: Vec<&str> = [(&leaders, "leases"), (&deployments, "deployments")]
        .into_iter()
        .filter_map(|(found, what)| found.is_none().then_some(what))
        .collect();
    let leaders = leaders.unwrap_or_default();
    // Of an operator that has a Lease its holder says more.
    let has_lease = |it: &Elsewhere| leaders.iter().any(|leader| leader.namespace == it.namespace);
    let without = deployments.unwrap_or_default().into_iter().filter(|it| !has_lease(it));
    let acting: Vec<String> = leaders
        .iter()
        .map(|leader| format!("{} in namespace {}", leader.name, leader.namespace))
        .chain(without.map(|it| format!("Deployment {} in namespace {}", it.name, it.namespace)))
        .collect();
    let (verdict, says) = match (acting.is_empty(), unknown.is_empty()) {
        (true, true) => (Verdict::Good, "none".to_owned()),
        (true, false) => {
            let what = unknown.join(" and ");
            (Verdict::Note, format!("not known: you may not list {what} in all namespaces"))
        }
        (false, _) => {
            let acting = acting.join(", ");
            (Verdict::Bad, format!("acting on the same nodes: {acting}; end it, see docs/migration.md"))
        }
    };
    Checked::new("other operators", verdict, says)
}

/// Whether the user has a right.
async fn may(connection: &Connection, right: &Right) -> Result<Checked> {
    let (verdict, says) = match (right.is_held(connection).await?, right.needed) {
        (true, _) => (Verdict::Good, "you may".to_owned()),
        (false, true) => (Verdict::Bad, format!("you may not; needed by {}", right.verbs)),
        (false, false) => (Verdict::Note, format!("you may not; needed by {}", right.verbs)),
    };
    Ok(Checked::new(right.words(&connection.namespace), verdict, says))
}
