//! The label by which Jobs and pods of ours are watched is put back where somebody has taken it away.
//!
//! `kubectl label --all` may take it off, or a policy that cleans up. Nothing that happens to such an object is
//! told from then on; it is found by reads alone, see `observe::watches::unselected`. Only what is ours by its owner
//! and by its name gets it back: the label of anybody else's object is not our business.

use super::model::{
    action::{Action, Target},
    effects::Effects,
    id::OpRef,
    object_name,
    snapshot::{JobView, PodView, Role, Snapshot},
};

pub fn sweep(snapshot: &Snapshot) -> Effects {
    let unselected = &snapshot.unselected;
    let jobs = unselected.jobs.iter().filter(|job| !job.deleting).filter_map(|job| {
        let op = of_job(snapshot, job)?.name;
        Some(Action::LabelJob { job: Target::of_job(job), op })
    });
    let pods = unselected.pods.iter().filter(|pod| !pod.deleting && !pod.phase.is_final());
    let pods = pods.filter_map(|pod| {
        let op = of_pod(snapshot, pod)?.name;
        Some(Action::LabelPod { pod: Target::of(pod), op })
    });
    Effects::act(jobs.chain(pods))
}

/// The NodeOp for which we made the Job, if it is there.
fn of_job(snapshot: &Snapshot, job: &JobView) -> Option<OpRef> {
    let owner = &job.owner;
    object_name::attempt((&owner.name, &owner.uid), &job.node, "", &job.name)?;
    let op = OpRef { namespace: job.namespace.clone(), name: owner.name.clone(), uid: owner.uid.clone() };
    (owner.is_nodeop() && snapshot.op(&op).is_some()).then_some(op)
}

/// The NodeOp for which we, or its Job, made the pod.
fn of_pod(snapshot: &Snapshot, pod: &PodView) -> Option<OpRef> {
    let of = |name: &str, uid: &str| OpRef {
        namespace: pod.namespace.clone(),
        name: name.into(),
        uid: uid.into(),
    };
    let owner = &pod.owner;
    match pod.role {
        Role::Job => {
            let job = snapshot.jobs.get(&(pod.namespace.clone(), owner.name.clone()))?;
            of_job(snapshot, job).filter(|_| job.uid == owner.uid)
        }
        Role::Waiter | Role::Preflight => {
            Some(of(&owner.name, &owner.uid)).filter(|op| snapshot.op(op).is_some())
        }
        Role::Facts | Role::Stranger => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::plan::{
        fixtures,
        model::snapshot::{JobState, Owner},
        node::fixtures::World,
    };

    #[test]
    fn what_is_ours_by_owner_and_name_is_labelled_again_and_nothing_else() {
        let mut world = World::new(json!({"phase": "Pending"}));
        let name = fixtures::job_name();
        let job =
            |name: &str, owner: Owner| Arc::new(JobView { owner, ..fixtures::job(name, JobState::Active) });
        let ours = job(&name, Owner::nodeop("op", "u"));
        let pod = |uid: &str, role, owner| Arc::new(fixtures::pod(role, uid, owner, "n1"));
        let waiter = world.waiter(0);
        world.snapshot.jobs.insert(("ns".into(), name.clone()), ours.clone());
        world.snapshot.unselected.jobs = vec![
            ours,
            job("by-the-go-operator", Owner::nodeop("op", "u")),
            job(&name, Owner::nodeop("op", "of-another-life")),
            job(&name, Owner::job("op", "u")),
        ];
        world.snapshot.unselected.pods = vec![
            Arc::new(PodView { deleting: true, ..waiter.clone() }),
            Arc::new(waiter.clone()),
            pod("of-the-job", Role::Job, Owner::job(&name, "ju")),
            pod("of-another-job", Role::Job, Owner::job(&name, "another")),
            pod("theirs", Role::Stranger, Owner::nodeop("op", "u")),
        ];
        let labelled: Vec<String> = sweep(&world.snapshot).actions.iter().map(ToString::to_string).collect();
        let expected =
            [format!("Job ns/{name}"), format!("pod ns/{}", waiter.name), "pod ns/of-the-job".into()];
        let expected =
            expected.map(|of| format!("putting back our label on {of}, from which somebody has taken it"));
        assert_eq!(labelled, expected);
    }
}
