//! Strangers at the front door: connections that say half of a request and no more.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use kairos_sim::Cluster;

use super::rig::{PROBES, Rig};

/// The server closes all but a few; this number of ours is kept open here.
const KEPT: usize = 500;

fn probe(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}

fn flood(address: SocketAddr, connections: usize) {
    let half = format!("GET /healthz HTTP/1.1\r\nX: {}", "x".repeat(7000));
    let mut open = VecDeque::new();
    for number in 0..connections {
        let mut stream = TcpStream::connect(address).unwrap();
        // One that the server has closed by now, for a newer one, takes no more.
        let _ = stream.write_all(half.as_bytes());
        open.push_back(stream);
        if open.len() > KEPT {
            open.pop_front();
        }
        if number % 1000 == 999 {
            assert_eq!(probe(address).unwrap(), "200", "with {number} half open");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_half_open_connections_cost_no_memory_and_no_probe_its_answer() {
    let mut rig = Rig::idle(Cluster::builder().nodes(1).control_planes(1)).await;
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    rig.start(&[&format!("{PROBES}={address}")]);
    rig.labelled().await;
    let flooded = tokio::task::spawn_blocking(move || flood(address, 100));
    flooded.await.unwrap();
    let before = rig.operators[0].memory();
    tokio::task::spawn_blocking(move || flood(address, 10_000)).await.unwrap();
    let more = rig.operators[0].memory().saturating_sub(before);
    // What was sent is 70 MB.
    assert!(more < 10_000, "{more} kB more than {before}");
}
