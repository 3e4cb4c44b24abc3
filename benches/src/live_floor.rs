//! Prints what a bare forwarder takes for the shapes of `loadtest bench`: see [`benches::live`].

use std::time::Duration;

use anyhow::Result;
use benches::live::{LiveShape, clients, run};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--clients") {
        return clients(&arguments[1..]);
    }
    let seconds = arguments.first().map_or(Ok(8), |seconds| seconds.parse())?;
    let shape = |rooms, publishers, watchers| LiveShape { rooms, publishers, watchers };
    let shapes = [
        ("1:10", shape(1, 1, 10)),
        ("1:25", shape(1, 1, 25)),
        ("1:50", shape(1, 1, 50)),
        ("4x4", shape(4, 4, 0)),
    ];
    println!("{:<8} {:>10} {:>10} {:>10} {:>10}", "shape", "us/packet", "packets/s", "messages/s", "wakes/s");
    for (name, shape) in shapes {
        let floor = run(shape, Duration::from_secs(seconds))?;
        println!(
            "{name:<8} {:>10.2} {:>10.0} {:>10.0} {:>10.0}",
            floor.micros_per_packet, floor.packets_per_s, floor.messages_per_s, floor.wakes_per_s
        );
    }
    Ok(())
}
