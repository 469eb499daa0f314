//! `version`: of this program, of the API server, of the operator.

use clap::Args;

use super::{
    connection::Connection,
    failure::{Code, Doing, Result},
    installed,
    screen::Screen,
};

/// Shows versions: of this program, of the API server, of the operator.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// Only this program's; no cluster is asked
    #[arg(long)]
    pub client: bool,
    #[command(flatten)]
    pub place: installed::PlaceArgs,
}

/// This program's version.
pub fn client(screen: &Screen) -> Result<Code> {
    screen.line(&format!("kubectl-kairos {}", env!("CARGO_PKG_VERSION")))?;
    Ok(Code::Done)
}

/// Runs the verb.
pub async fn run(args: &VersionArgs, connection: &Connection, screen: &Screen) -> Result<Code> {
    client(screen)?;
    let server =
        connection.client.apiserver_version().await.doing(|| "reading the API server's version".into())?;
    screen.line(&format!("Kubernetes {}", server.git_version))?;
    let operator = installed::operator(connection, &args.place).await?;
    if let Some(why) = operator.not_rolled_out(&args.place) {
        screen.line(&format!("operator: {why}"))?;
        return Ok(Code::Done);
    }
    screen.line(&match operator {
        installed::Operator::Unknown(why) => format!("operator: not known: {why}"),
        installed::Operator::Missing => {
            format!("operator: none in namespace {}", args.place.operator_namespace)
        }
        installed::Operator::Several(names) => {
            format!("operator: several in namespace {}: {}", args.place.operator_namespace, names.join(", "))
        }
        installed::Operator::There { image, .. } => format!("operator {image}"),
    })?;
    Ok(Code::Done)
}
