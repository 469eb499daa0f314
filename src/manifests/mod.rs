//! Prints what a cluster needs to run this operator ([`install`]), and writes what is generated from the
//! code: the CRDs, the RBAC, and the pages that explain both to people. Applet `manifests`.
//!
//! `manifests/crd`, `manifests/rbac` and some pages of `docs` in the repository are this output; a test
//! compares them, so that what is installed and explained is what the code says. Names have no prefix in
//! these files: kustomize puts it (`manifests/default`), and so does [`install`].

mod chart;
pub mod install;
mod markdown;
mod metrics;
mod names;
mod rbac;
mod reference;
mod rights;
mod states;
mod yaml;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args as ClapArgs, ValueEnum};
use kube::CustomResourceExt;
pub use rbac::{Grant, LEADER, OPERATOR, operator_holds};

use crate::{
    api::{nodeop::NodeOp, upgrade::NodeOpUpgrade},
    contract,
};

/// What `manifests` was asked for.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Which generated part to print; without it, all that an installation needs, ready to be applied.
    part: Option<Part>,
    /// The image that an installation runs: where you pushed this one to.
    #[arg(long, value_name = "IMAGE", value_parser = image, conflicts_with_all = ["part", "write_to"])]
    image: Option<String>,
    /// Write the generated files of manifests/ (with `docs`: of docs/) below this directory instead.
    #[arg(long, value_name = "DIR")]
    write_to: Option<PathBuf>,
}

/// An image that a Deployment can run. Of one that it cannot, all but the Deployment would be applied.
fn image(value: &str) -> Result<String, String> {
    // A colon before a slash is a registry's port, and a registry's name may have capital letters.
    let folders = value.rfind('/').map_or(0, |slash| slash + 1);
    let (folders, last) = value.split_at(folders);
    let name = last.split([':', '@']).next().unwrap_or_default();
    let path = [folders.split_once('/').map_or("", |(_, path)| path), name].concat();
    let is_odd = value.contains(char::is_whitespace) || value.contains("://");
    if is_odd || name.is_empty() || path.contains(|c: char| c.is_ascii_uppercase()) {
        return Err(
            "write the image where you pushed it to, for example registry.example.com/kairos-operator:v1.0.0"
                .into(),
        );
    }
    Ok(value.to_owned())
}

/// What is generated: a directory of `manifests/`, or pages of `docs/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The CustomResourceDefinitions.
    Crd,
    /// The operator's account, roles and bindings, and the roles for users.
    Rbac,
    /// The Helm chart.
    Chart,
    /// The pages of docs/ on fields, rights, states, metrics and names, for people.
    Docs,
}

impl Part {
    /// What stands in files of `manifests/`.
    const FILES: [Self; 3] = [Self::Crd, Self::Rbac, Self::Chart];
}

/// A generated file: its path below `manifests/` (pages: below `docs/`), and its text.
#[derive(Clone, Debug)]
pub struct File {
    pub path: String,
    pub text: String,
}

/// Runs the applet.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let parts = args.part.map_or_else(|| Part::FILES.to_vec(), |part| vec![part]);
    let mut files = Vec::new();
    for part in parts {
        files.extend(generate(part)?);
    }
    match (&args.write_to, args.part) {
        (Some(directory), _) => files.iter().try_for_each(|file| write(directory, file)),
        (None, Some(_)) => print(files.iter().map(|file| file.text.as_str())),
        (None, None) => {
            if args.image.is_none() {
                eprintln!(
                    "no image of this program is published, so {} runs nowhere: say yours with --image",
                    contract::IMAGE
                );
            }
            let objects = install::objects(args.image.as_deref().unwrap_or(contract::IMAGE))?;
            let texts = objects.iter().map(yaml::document).collect::<anyhow::Result<Vec<String>>>()?;
            print(texts.iter().map(String::as_str))
        }
    }
}

/// The files of one part.
pub fn generate(part: Part) -> anyhow::Result<Vec<File>> {
    let crds = [NodeOp::crd(), NodeOpUpgrade::crd()];
    match part {
        Part::Crd => crds
            .iter()
            .map(|crd| {
                Ok(yaml_file(
                    &format!("crd/operator.kairos.io_{}.yaml", crd.spec.names.plural),
                    &yaml::document(crd)?,
                ))
            })
            .collect(),
        Part::Rbac => Ok(rbac::files()?
            .into_iter()
            .map(|(name, text)| yaml_file(&format!("rbac/{name}"), &text))
            .collect()),
        Part::Chart => chart::files(),
        Part::Docs => Ok(vec![
            page("reference.md", &reference::page(&crds)?),
            page("rights.md", &rights::page()),
            page("states.md", &states::page()),
            page("metrics.md", &metrics::page()),
            page("names.md", &names::page()),
        ]),
    }
}

fn yaml_file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: format!("{HEADER}{text}") }
}

fn page(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: format!("{PAGE_HEADER}{text}") }
}

const PAGE_HEADER: &str = "<!-- Generated by scripts/generate; change the code instead. -->\n\n";
const HEADER: &str = "# Generated by scripts/generate; change the code instead.\n";

fn print<'a>(documents: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
    let texts: Vec<&str> = documents.collect();
    match std::io::Write::write_all(&mut std::io::stdout().lock(), texts.join("---\n").as_bytes()) {
        // `kairos-operator manifests | head` is no error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("printing manifests"),
    }
}

fn write(directory: &Path, file: &File) -> anyhow::Result<()> {
    let path = directory.join(&file.path);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    std::fs::write(&path, &file.text).with_context(|| format!("writing {}", path.display()))
}
