//! A calm world to play scenarios in, and the text of what happened.

use std::{fs, path::Path};

use crate::simulation::{operator::Operator, world::World};

pub struct Stage {
    pub world: World,
    operator: Operator,
}

impl Stage {
    /// `c1` and workers, `nodes` in all.
    pub fn new(nodes: usize) -> Self {
        let mut world = World::new(1);
        world.add_node("c1", true);
        for number in 1..nodes {
            world.add_node(&format!("w{number}"), false);
        }
        for name in world.machines.keys().cloned().collect::<Vec<_>>() {
            world.set_node(&name, |node| {
                drop(node.labels.insert("kubernetes.io/hostname".into(), name.clone()))
            });
        }
        // Workload that finds no other node must not block a drain here.
        world.faults = false;
        let mut operator = Operator::new(0, &world);
        operator.calm = true;
        Self { world, operator }
    }

    pub fn play(&mut self, ticks: usize) {
        self.play_until(ticks, |_| false);
    }

    /// The operator plans until it wants nothing more, then everybody else takes a step.
    pub fn play_until(&mut self, ticks: usize, end: impl Fn(&World) -> bool) {
        for _ in 0..ticks {
            if end(&self.world) {
                return;
            }
            while self.operator.plan_and_act(&mut self.world) {}
            self.world.job_controller();
            for node in self.world.machines.keys().cloned().collect::<Vec<_>>() {
                self.world.kubelet(&node);
            }
            self.world.garbage();
            self.world.workload();
            self.world.node_controller();
            self.world.end_tick();
        }
    }

    /// Compares what happened with the golden file of that name.
    pub fn compare(mut self, name: &str) {
        self.world.check_rest();
        assert!(self.world.history.broken.is_empty(), "{:#?}", self.world.history.broken);
        let text = self.world.log.iter().map(|line| masked(line) + "\n").collect::<String>();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &text).expect("the golden file can be written");
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        let differs = text.lines().zip(golden.lines()).position(|(new, old)| new != old);
        let at = differs.unwrap_or_else(|| text.lines().count().min(golden.lines().count()));
        assert!(
            text == golden,
            "{name}.txt differs in line {}:\n  new {:?}\n  old {:?}\nUPDATE_GOLDEN=1 cargo test --test it golden",
            at + 1,
            text.lines().nth(at),
            golden.lines().nth(at)
        );
    }
}

/// A line without the hash at the end of an object's name.
fn masked(line: &str) -> String {
    let hash = |word: &str| word.len() == 10 && word.chars().all(|c| c.is_ascii_hexdigit());
    let mask = |word: &str| {
        let (body, tail) = word.split_at(word.trim_end_matches([':', ';', ',', '"']).len());
        match body.rsplit_once('-') {
            Some((head, last)) if hash(last) => format!("{head}-#{tail}"),
            _ => word.to_owned(),
        }
    };
    line.split(' ').map(mask).collect::<Vec<_>>().join(" ")
}
