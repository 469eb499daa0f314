//! The file in which an upgrade's result outlives its pod: written by `upgrade`, read by its retries and by
//! `sentinel`.

use std::{path::Path, time::Duration};

use anyhow::Result;

use super::{
    Permanent,
    host::{files, reserve},
};
use crate::contract::{self, UpgradeResult};

/// How large a result may be. Ours are a few hundred bytes.
const MAX_RESULT: u64 = 64 * 1024;

/// Reads what an earlier pod left. A file that cannot be read is not "none", and fails permanently: the agent
/// may have succeeded.
pub fn read(path: &Path) -> Result<Option<UpgradeResult>> {
    let Some(bytes) = files::read(path, MAX_RESULT)? else {
        return Ok(None);
    };
    let result = serde_json::from_slice(&bytes)
        .map_err(|error| Permanent(format!("{} cannot be read: {error}", path.display())));
    Ok(Some(result?))
}

/// The result of an upgrade, and the name of its Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub job: String,
    pub result: UpgradeResult,
}

/// What upgrades of any Job have left. One that cannot be read says nothing, nor does a directory that is not
/// there.
pub fn all(directory: &Path) -> Vec<Left> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let left = files.filter_map(|file| {
        let name = file.file_name().into_string().ok()?;
        let job = name.strip_suffix(&contract::result_file(""))?.to_owned();
        Some(Left { job, result: read(&file.path()).ok().flatten()? })
    });
    left.collect()
}

/// Writes a result, durably: what comes next relies on it.
pub fn write(path: &Path, result: &UpgradeResult) -> Result<()> {
    files::write_atomic(path, &serde_json::to_vec(result)?, 0o644)
}

/// Writes how the agent ended, into the room that was kept for it, trying again for a while: the agent has
/// done its work, and nobody else will ever know how it ended.
pub fn conclude(path: &Path, result: &UpgradeResult, patience: Duration) -> Result<()> {
    reserve::write_within(patience, path, &serde_json::to_vec(result)?, 0o644)
}
