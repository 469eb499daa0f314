//! The directory that stands for a container's `/`, and the environment of the process in it.
//!
//! Volumes are links: a `hostPath` into the node's disk, an `emptyDir` into the pod's directory. A read-only
//! `hostPath` is a copy: an applet that resolves links below a mount as if that were `/` must not be led out
//! by ours.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, Volume};
use serde_json::Value;

use super::script::Run;

/// Where a pod's files are on this machine.
#[derive(Clone, Debug)]
pub struct Places {
    /// The node's disk.
    pub disk: PathBuf,
    /// The pod's own directory.
    pub pod: PathBuf,
}

/// Where a container's root is.
pub fn path(places: &Places, container: &Container) -> PathBuf {
    places.pod.join("roots").join(&container.name)
}

/// Makes a container's root anew, with the files of its image.
pub fn prepare(places: &Places, image: Option<&Path>, run: &Run) -> io::Result<()> {
    let (pod, container, boot, root) = (&run.pod, &run.container, &run.boot, &run.root);
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    if let Some(image) = image {
        copy_tree(image, root)?;
    }
    for dir in ["dev", "tmp", "proc/1", "proc/sys/kernel/random", "etc"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::write(root.join("proc/sys/kernel/random/boot_id"), format!("{boot}\n"))?;
    // The kernel's command line is the same in every container.
    fs::write(root.join("proc/cmdline"), fs::read(places.disk.join("proc/cmdline")).unwrap_or_default())?;
    let host_pid = pod.spec.as_ref().and_then(|s| s.host_pid).unwrap_or_default();
    fs::write(root.join("proc/1/comm"), if host_pid { "systemd\n" } else { "kairos-operator\n" })?;
    let message = message_path(container);
    if let Some(parent) = root.join(&message).parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(root.join(message), "")?;
    mount_all(places, pod, container, root)
}

/// Where the termination message is, below the container's root.
pub fn message_path(container: &Container) -> String {
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    path.trim_start_matches('/').to_owned()
}

fn mount_all(places: &Places, pod: &Pod, container: &Container, root: &Path) -> io::Result<()> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let volumes: BTreeMap<&str, &Volume> = volumes.map(|v| (v.name.as_str(), v)).collect();
    let mut mounts: Vec<_> = container.volume_mounts.iter().flatten().collect();
    // Outer mounts first, so that inner ones land in them.
    mounts.sort_by_key(|m| m.mount_path.len());
    for mount in mounts {
        let Some(volume) = volumes.get(mount.name.as_str()) else { continue };
        let mut source = source(places, volume);
        if let Some(sub) = &mount.sub_path {
            source.push(sub.trim_start_matches('/'));
        }
        fs::create_dir_all(&source)?;
        let target = root.join(mount.mount_path.trim_matches('/'));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if target.is_dir() && !target.is_symlink() {
            fs::remove_dir_all(&target)?;
        }
        let whole = volume.host_path.as_ref().is_none_or(|host| host.path == "/");
        if !whole && mount.read_only == Some(true) {
            copy_tree(&source, &target)?;
        } else if !target.exists() {
            symlink(&source, &target)?;
        }
    }
    Ok(())
}

fn source(places: &Places, volume: &Volume) -> PathBuf {
    match &volume.host_path {
        Some(host) => places.disk.join(host.path.trim_start_matches('/')),
        None => places.pod.join("volumes").join(&volume.name),
    }
}

/// Copies what is below `from`; links stay links.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        let target = to.join(entry.file_name().unwrap_or_default());
        if kind.is_dir() {
            copy_tree(&entry, &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&entry)?, &target)?;
        } else {
            fs::copy(&entry, &target)?;
        }
    }
    Ok(())
}

/// Variables of a container, with the downward API resolved.
pub fn environment(pod: &Pod, container: &Container) -> Vec<(String, String)> {
    let object = serde_json::to_value(pod).unwrap_or_default();
    let mut resolved: Vec<(String, String)> = Vec::new();
    for variable in container.env.iter().flatten() {
        let value = value_of(&object, variable);
        let value = expand(&value, &resolved);
        resolved.push((variable.name.clone(), value));
    }
    resolved
}

fn value_of(pod: &Value, variable: &EnvVar) -> String {
    let field =
        variable.value_from.as_ref().and_then(|f| f.field_ref.as_ref()).map(|f| f.field_path.as_str());
    match field {
        None => variable.value.clone().unwrap_or_default(),
        Some(path) => match path.split_once("['").and_then(|(map, key)| Some((map, key.strip_suffix("']")?)))
        {
            Some((map, key)) => at(pod, map).get(key).and_then(Value::as_str).unwrap_or_default().to_owned(),
            None => at(pod, path).as_str().unwrap_or_default().to_owned(),
        },
    }
}

fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    object.pointer(&format!("/{}", path.replace('.', "/"))).unwrap_or(&Value::Null)
}

/// Replaces `$(NAME)` by the variable if there is one, and `$$` by a dollar sign, from left to right, as the
/// kubelet does.
pub fn expand(text: &str, variables: &[(String, String)]) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let variable = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        let value =
            |name: &str| variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value);
        rest = match (after.strip_prefix('$'), variable.and_then(|(name, after)| Some((value(name)?, after))))
        {
            (Some(after), _) => {
                out.push('$');
                after
            }
            (None, Some((value, after))) => {
                out.push_str(value);
                after
            }
            (None, None) => {
                out.push('$');
                after
            }
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::{Places, Run, environment, expand, path, prepare};

    #[test]
    fn a_root_shows_the_disk_and_the_environment_the_pod() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places { disk: dir.path().join("disk"), pod: dir.path().join("pod") };
        let pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"a/b": "c"}},
            "spec": {"hostPID": true, "volumes": [{"name": "v", "hostPath": {"path": "/usr/local", "type": "DirectoryOrCreate"}}],
                     "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/state"}],
                                     "env": [{"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}},
                                             {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                                             {"name": "X", "value": "$(N)-$(L)"}]}]},
        }));
        let pod: k8s_openapi::api::core::v1::Pod = pod.unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        let root = path(&places, &container);
        let run = Run {
            node: "n".into(),
            boot: "boot-1".into(),
            pod: pod.clone().into(),
            container: container.clone(),
            root: root.clone(),
            content: String::new(),
            restarts: 0,
        };
        prepare(&places, None, &run).unwrap();
        fs::write(root.join("state/x"), "y").unwrap();
        assert_eq!(fs::read_to_string(places.disk.join("usr/local/x")).unwrap(), "y");
        assert_eq!(fs::read_to_string(root.join("proc/1/comm")).unwrap(), "systemd\n");
        let env = environment(&pod, &container);
        assert_eq!(env.iter().map(|(_, v)| v.as_str()).collect::<Vec<_>>(), ["c", "p", "p-c"]);
    }

    #[test]
    fn a_doubled_dollar_sign_is_one_and_no_variable() {
        let variables = [("A".to_owned(), "$(B)".to_owned()), ("B".to_owned(), "b".to_owned())];
        for (text, expanded) in
            [("$(A)-$(B)", "$(B)-b"), ("$$(B) $$$(B) $", "$(B) $b $"), ("$(C) $B $(B", "$(C) $B $(B")]
        {
            assert_eq!(expand(text, &variables), expanded, "{text}");
        }
    }
}
