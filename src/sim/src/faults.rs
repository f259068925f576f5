//! What goes wrong, drawn from the seed.

use std::time::Duration;

use base::NodeId;
use base::env::sim_disk::Crash;
use base::env::{Random, SeededRandom};
use consensus::net::sim_net::Weather;

use crate::world::World;

/// Longest time between two faults, in milliseconds.
const PAUSE_MS: u64 = 2_000;

/// How a node crashes.
pub(crate) fn kind(random: &SeededRandom) -> Crash {
    match random.below(3) {
        0 => Crash::Process,
        1 => Crash::LoseUnsynced,
        _ => Crash::TearUnsynced,
    }
}

fn pick(random: &SeededRandom, nodes: &[NodeId]) -> Option<NodeId> {
    let number = random.below(nodes.len() as u64);
    nodes.get(usize::try_from(number).unwrap_or(0)).copied()
}

/// Breaks and mends things for some time. Leaves them as they are.
pub async fn run(world: &World, random: &SeededRandom, time: Duration) {
    let until = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50 + random.below(PAUSE_MS))).await;
        world.reap(random).await;
        restart_some(world, random).await;
        one_fault(world, random).await;
    }
}

async fn restart_some(world: &World, random: &SeededRandom) {
    for node in world.down() {
        match random.below(10) {
            0..5 => world.start(node).await,
            // The power may fail again while the node recovers.
            5 => {
                world.arm(node, 1 + random.below(60));
                world.start(node).await;
            }
            _ => {}
        }
    }
}

async fn one_fault(world: &World, random: &SeededRandom) {
    let up = world.up();
    let nodes = world.nodes();
    let (Some(one), Some(other)) = (pick(random, &nodes), pick(random, &nodes)) else { return };
    match random.below(12) {
        0..3 => {
            if let Some(node) = pick(random, &up) {
                world.crash(&[node], kind(random)).await;
            }
        }
        3 if random.below(2) == 0 => world.crash(&up, kind(random)).await,
        3 | 4 => {
            if let Some(node) = pick(random, &up) {
                world.arm(node, 1 + random.below(300));
            }
        }
        5 | 6 => {
            world.note(format!("node {one} is cut off"));
            for other in nodes.iter().filter(|n| **n != one) {
                world.net.cut(one, *other);
                world.net.cut(*other, one);
            }
        }
        7 if one != other => {
            world.note(format!("nothing goes from node {one} to node {other}"));
            world.net.cut(one, other);
        }
        8 => {
            let slow = 1_000 + random.below(150_000);
            let loss_one_in = 20 + random.below(200);
            let weather = Weather { delay_us: (200, slow), loss_one_in, ..Weather::CALM };
            world.note(format!("{weather:?}"));
            world.net.set_weather(weather);
        }
        _ => {
            world.note("the network is whole".to_owned());
            world.net.heal();
            world.net.set_weather(Weather::CALM);
        }
    }
}
