//! Tests of the entries as a map, and of what is found in it.

use std::collections::BTreeSet;

use super::*;
use crate::api::nodeop::Phase;

fn entry(rng: &mut fastrand::Rng) -> NodeStatus {
    let phase = rng.choice([Phase::Pending, Phase::Pending, Phase::Running, Phase::Completed]).unwrap();
    let message = rng.bool().then(|| rng.choice(["waiting", "working"]).unwrap().to_owned());
    NodeStatus { phase, message, node_uid: (rng.u8(..) < 30).then(|| "u".into()), ..NodeStatus::default() }
}

/// What is found by marks and by comparing is what a look at all entries finds, and the map is a map.
#[test]
fn it_is_a_map_whatever_becomes_of_it() {
    for seed in 0..8 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut map: BTreeMap<String, NodeStatus> =
            (0..rng.usize(..400)).map(|n| (format!("n{n}"), entry(&mut rng))).collect();
        let mut ours = NodeStatuses::from(map.clone());
        for _ in 0..150 {
            let (before, ours_before) = (map.clone(), ours.clone());
            let name = format!("n{}", rng.usize(..500));
            match rng.u8(..6) {
                0 => {
                    map.remove(&name);
                    ours.remove(&name);
                }
                1 => {
                    map.entry(name.clone()).and_modify(|entry| entry.message = Some("m".into()));
                    ours.say(&name, "m");
                }
                2 => {
                    let is_said = |name: &str| name.ends_with('3');
                    let plain = |entry: &NodeStatus| Mark::Plain.is_on(entry);
                    for (_, entry) in map.iter_mut().filter(|(name, entry)| plain(entry) && !is_said(name)) {
                        entry.message = Some("all".into());
                    }
                    ours.say_of_plain("all", is_said);
                }
                _ => {
                    let entry = entry(&mut rng);
                    map.insert(name.clone(), entry.clone());
                    ours.insert(name, entry);
                }
            }
            assert!(ours.iter().eq(&map), "seed {seed}");
            assert_eq!((ours.len(), ours.is_empty()), (map.len(), map.is_empty()));
            for mark in Mark::ALL {
                let marked: Vec<_> = map.iter().filter(|(_, entry)| mark.is_on(entry)).collect();
                assert!(ours.marked([mark]).eq(marked.iter().copied()), "seed {seed}: {mark:?}");
                assert_eq!((ours.count(mark), ours.any([mark])), (marked.len(), !marked.is_empty()));
            }
            let names: BTreeSet<&String> = before.keys().chain(map.keys()).collect();
            let changed: Vec<_> =
                names.into_iter().filter(|name| before.get(*name) != map.get(*name)).collect();
            let found: Vec<_> = ours.changes(&ours_before).map(|change| change.name).collect();
            assert_eq!(found, changed, "seed {seed}");
            assert_eq!(ours == ours_before, map == before);
            assert!(ours_before.iter().eq(&before), "a version that somebody holds does not change");
            assert!(map.iter().all(|(name, entry)| ours.get(name) == Some(entry)));
        }
    }
}

#[test]
fn it_is_written_and_read_as_a_map() {
    let map: BTreeMap<String, NodeStatus> =
        (0..200).map(|n| (format!("n{n}"), NodeStatus::default())).collect();
    let ours = NodeStatuses::from(map.clone());
    let text = serde_json::to_string(&ours).unwrap();
    assert_eq!(text, serde_json::to_string(&map).unwrap());
    assert_eq!(serde_json::from_str::<NodeStatuses>(&text).unwrap(), ours);
    assert_eq!(BTreeMap::from(ours), map);
}
