//! Hands the name of the image to the code. It stands in Cargo.toml alone, beside the version, and all others
//! that say it (manifests, scripts, pages) take it from there.

use std::{error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=Cargo.toml");
    let manifest = fs::read_to_string("Cargo.toml")?;
    let mut lines = manifest.lines().skip_while(|line| *line != "[package.metadata.image]");
    let repository = lines.find_map(|line| line.strip_prefix("repository = \"")?.strip_suffix('"'));
    let repository = repository.ok_or("Cargo.toml: [package.metadata.image] names no repository")?;
    println!("cargo::rustc-env=IMAGE_REPOSITORY={repository}");
    Ok(())
}
