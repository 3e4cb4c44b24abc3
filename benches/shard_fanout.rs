//! The relay's whole forwarding path against the floor, in turns within one process: CPU nanoseconds per forwarded packet.
//!
//! ```text
//! cargo bench -p benches --bench shard_fanout -- [--json] [--receivers 50] [--frame 8] [--payload 1100] [--seconds 1] [--best]
//!     [--rest 1]
//! ```
//!
//! Not by criterion: it runs one function after another, and on a shared machine the ratio of two is known only where both
//! run in turns. A figure is the median of blocks of a tenth of a second of the call; with `--best`, their
//! tenth percentile, which other work on the machine disturbs less. `--rest` sleeps so many milliseconds before each frame, as a
//! thread of a quiet call does: what is forwarded then finds little of itself in the caches.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use benches::Shape;
use benches::call::{Call, Cost};
use benches::floor::Floor;
use benches::timing::{best_tenth, median};

const RECEIVERS: [usize; 5] = [2, 10, 50, 200, 1000];
const FRAMES: [usize; 3] = [1, 4, 8];
const PAYLOADS: [usize; 2] = [1100, 120];
/// Frames of one block.
const BLOCK: usize = 10;
/// Blocks at least.
const BLOCKS: usize = 8;

struct Options {
    json: bool,
    receivers: Option<usize>,
    frame: Option<usize>,
    payload: Option<usize>,
    seconds: f64,
    product_only: bool,
    best: bool,
    rest: Duration,
}

fn options() -> Result<Options> {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let number = |name: &str| value(name).map(|text| text.parse().context(name.to_owned())).transpose();
    Ok(Options {
        json: args.iter().any(|arg| arg == "--json"),
        receivers: number("--receivers")?,
        frame: number("--frame")?,
        payload: number("--payload")?,
        seconds: value("--seconds").map_or(Ok(1.0), |text| text.parse())?,
        product_only: args.iter().any(|arg| arg == "--product-only"),
        best: args.iter().any(|arg| arg == "--best"),
        rest: Duration::from_millis(number("--rest")?.unwrap_or(0) as u64),
    })
}

/// Figures of one shape, in nanoseconds per forwarded packet.
struct Figures {
    ns: f64,
    floor: f64,
    feedback: f64,
    /// Packets that waited in a pacer, of all.
    paced: f64,
}

fn measure(call: &mut Call, shape: Shape, options: &Options) -> Result<Figures> {
    let Shape { receivers, frame, payload } = shape;
    // A lone small packet is one of audio.
    let audio = frame == 1 && payload < 200;
    let sinks = call.sinks();
    let mut floors = [Floor::new(shape, &sinks, false)?, Floor::new(shape, &sinks, true)?];
    call.warm_up(600, frame, payload, audio)?;
    let paced_before = call.stats().paced_packets;
    let (mut product, mut bare, mut feedback) = (Vec::new(), [Vec::new(), Vec::new()], Vec::new());
    let rest = || {
        if !options.rest.is_zero() {
            std::thread::sleep(options.rest);
        }
    };
    let (start, mut packets) = (Instant::now(), 0);
    while product.len() < BLOCKS || start.elapsed() < Duration::from_secs_f64(options.seconds) {
        let mut cost = Cost::default();
        let mut floor_packets = [0; 2];
        for _ in 0..BLOCK {
            rest();
            cost.packets += call.turn_of(frame, payload, false, audio)?;
            if !options.product_only {
                for (floor, packets) in floors.iter_mut().zip(&mut floor_packets) {
                    rest();
                    *packets += floor.turn()?;
                }
            }
        }
        let Cost { cpu, feedback: spent, .. } = call.take_cost();
        (cost.cpu, cost.feedback) = (cpu, spent);
        packets += cost.packets;
        let wanted = (BLOCK * frame * receivers) as u64;
        anyhow::ensure!(
            cost.packets * 10 >= wanted * 9,
            "{} of {wanted} packets were forwarded",
            cost.packets
        );
        product.push(cost.ns());
        feedback.push(cost.feedback_ns());
        for ((floor, packets), bare) in floors.iter_mut().zip(floor_packets).zip(&mut bare) {
            bare.push(floor.take_cpu().as_nanos() as f64 / packets.max(1) as f64);
        }
    }
    let paced = (call.stats().paced_packets - paced_before) as f64 / packets as f64;
    let figure = if options.best { best_tenth } else { median };
    let floor = bare.map(|mut figures| figure(&mut figures)).into_iter().fold(f64::INFINITY, f64::min);
    Ok(Figures { ns: figure(&mut product), floor, feedback: figure(&mut feedback), paced })
}

fn main() -> Result<()> {
    let options = options()?;
    let keep = |wanted: Option<usize>| move |value: &usize| wanted.is_none_or(|wanted| wanted == *value);
    let receivers: Vec<_> = match options.receivers {
        Some(receivers) => vec![receivers],
        None => RECEIVERS.to_vec(),
    };
    if !options.json {
        println!("CPU nanoseconds per forwarded packet, all of a call switched on, against the bare loop:");
        println!(
            "{:>9} {:>5} {:>7} {:>8} {:>8} {:>6} {:>9} {:>6}",
            "receivers", "frame", "payload", "ns", "floor", "ratio", "feedback", "paced"
        );
    }
    for receivers in receivers {
        let mut call =
            Call::new(receivers).context("a subscriber takes one file descriptor: ulimit -n 8192")?;
        call.check_and_close()?;
        for frame in FRAMES.into_iter().filter(keep(options.frame)) {
            for payload in PAYLOADS.into_iter().filter(keep(options.payload)) {
                let figures = measure(&mut call, Shape { receivers, frame, payload }, &options)?;
                let Figures { ns, floor, feedback, paced } = figures;
                let ratio = ns / floor;
                if options.json {
                    println!(
                        r#"{{"bench":"shard_fanout","receivers":{receivers},"frame":{frame},"payload":{payload},"ns":{ns:.1},"floor_ns":{floor:.1},"ratio":{ratio:.3}}}"#
                    );
                } else {
                    println!(
                        "{receivers:>9} {frame:>5} {payload:>7} {ns:>8.1} {floor:>8.1} {ratio:>6.2} {feedback:>9.1} {paced:>6.3}"
                    );
                }
            }
        }
    }
    Ok(())
}
