//! What forwarding costs with two shards, in turns with one: CPU nanoseconds per forwarded packet, of both threads together.
//!
//! ```text
//! cargo bench -p benches --bench scaling -- [--json] [--receivers 50] [--frame 8] [--payload 1100] [--seconds 1]
//! ```
//!
//! - `two_shards`: two rooms, one on each shard, both busy all the time, against one room alone. What two threads of the bare
//!   loop lose against one is the machine's part of it: they share its memory, its kernel, and often more.
//! - `split_room`: one room, half of whose subscribers live on another shard, against the same room on one.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use benches::Shape;
use benches::call::{Call, Cost};
use benches::floor::Floor;
use benches::pair::Pair;
use benches::timing::median;

/// Subscribers, packets of a frame and bytes of each.
const SHAPES: [(usize, usize, usize); 5] =
    [(10, 8, 1100), (50, 8, 1100), (200, 8, 1100), (50, 1, 120), (200, 1, 120)];
/// Frames of one block.
const BLOCK: usize = 20;
/// Blocks at least.
const BLOCKS: usize = 8;

struct Options {
    json: bool,
    shapes: Vec<Shape>,
    seconds: f64,
}

fn options() -> Result<Options> {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let number = |name: &str| -> Result<Option<usize>> {
        value(name).map(|text| text.parse().context(name.to_owned())).transpose()
    };
    let (receivers, frame, payload) = (number("--receivers")?, number("--frame")?, number("--payload")?);
    let keep = |(r, f, p): &(usize, usize, usize)| {
        receivers.is_none_or(|n| n == *r) && frame.is_none_or(|n| n == *f) && payload.is_none_or(|n| n == *p)
    };
    let shapes = SHAPES.iter().filter(|shape| keep(shape));
    Ok(Options {
        json: args.iter().any(|arg| arg == "--json"),
        shapes: shapes
            .map(|(receivers, frame, payload)| Shape {
                receivers: *receivers,
                frame: *frame,
                payload: *payload,
            })
            .collect(),
        seconds: value("--seconds").map_or(Ok(1.0), |text| text.parse())?,
    })
}

/// A lone small packet is one of audio.
fn is_audio(shape: Shape) -> bool {
    shape.frame == 1 && shape.payload < 200
}

/// Nanoseconds a packet of a block on one shard.
fn block(call: &mut Call, shape: Shape) -> Result<f64> {
    call.take_cost();
    let mut packets = 0;
    for _ in 0..BLOCK {
        packets += call.turn_of(shape.frame, shape.payload, false, is_audio(shape))?;
    }
    expect(packets, shape)?;
    Ok(Cost { packets, ..call.take_cost() }.ns())
}

fn expect(packets: u64, shape: Shape) -> Result<()> {
    let wanted = (BLOCK * shape.frame * shape.receivers) as u64;
    anyhow::ensure!(packets * 10 >= wanted * 9, "{packets} of {wanted} packets were forwarded");
    Ok(())
}

fn floor_block(floor: &mut Floor) -> Result<f64> {
    floor.take_cpu();
    let mut packets = 0;
    for _ in 0..BLOCK {
        packets += floor.turn()?;
    }
    Ok(Cost { packets, cpu: floor.take_cpu(), ..Cost::default() }.ns())
}

struct Figures {
    one: f64,
    two: f64,
    floor_ratio: Option<f64>,
}

fn two_shards(shape: Shape, seconds: f64) -> Result<Figures> {
    let mut pair = Pair::two_rooms(shape.receivers)?;
    pair.check_and_close()?;
    let audio = is_audio(shape);
    for at in 0..300 {
        pair.turn_of(shape.frame, shape.payload, at % 50 == 0, audio)?;
    }
    let mut floor = Floor::new(shape, &pair.first.sinks(), true)?;
    let [mut one, mut two, mut floor_one, mut floor_two] = [const { Vec::new() }; 4];
    let start = Instant::now();
    while one.len() < BLOCKS || start.elapsed() < Duration::from_secs_f64(seconds) {
        one.push(block(&mut pair.first, shape)?);
        let (ns, other) = pair.while_busy(shape, audio, false, |call| block(call, shape))?;
        two.extend([ns, other.ns()]);
        floor_one.push(floor_block(&mut floor)?);
        let (ns, other) = pair.while_busy(shape, audio, true, |_| floor_block(&mut floor))?;
        floor_two.extend([ns, other.ns()]);
    }
    let floor_ratio = Some(median(&mut floor_two) / median(&mut floor_one));
    Ok(Figures { one: median(&mut one), two: median(&mut two), floor_ratio })
}

fn split_room(shape: Shape, seconds: f64) -> Result<Figures> {
    let mut split = Pair::split(shape.receivers)?;
    split.check_and_close()?;
    let mut whole = Call::new(shape.receivers)?;
    whole.check_and_close()?;
    let audio = is_audio(shape);
    whole.warm_up(300, shape.frame, shape.payload, audio)?;
    for at in 0..300 {
        split.turn_of(shape.frame, shape.payload, at % 50 == 0, audio)?;
    }
    let (mut one, mut two) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while one.len() < BLOCKS || start.elapsed() < Duration::from_secs_f64(seconds) {
        one.push(block(&mut whole, shape)?);
        split.take_cost()?;
        let mut packets = 0;
        for _ in 0..BLOCK {
            packets += split.turn_of(shape.frame, shape.payload, false, audio)?;
        }
        expect(packets, shape)?;
        two.push(Cost { packets, ..split.take_cost()? }.ns());
    }
    Ok(Figures { one: median(&mut one), two: median(&mut two), floor_ratio: None })
}

fn main() -> Result<()> {
    let options = options()?;
    if !options.json {
        println!(
            "CPU nanoseconds per forwarded packet with one shard and with two, of both threads together:"
        );
        println!(
            "{:<11} {:>9} {:>5} {:>7} {:>8} {:>8} {:>6} {:>12}",
            "", "receivers", "frame", "payload", "one", "two", "ratio", "of the floor"
        );
    }
    for (name, measure) in
        [("two_shards", two_shards as fn(Shape, f64) -> Result<Figures>), ("split_room", split_room)]
    {
        for shape in &options.shapes {
            let Shape { receivers, frame, payload } = *shape;
            let (shape, seconds) = (*shape, options.seconds);
            // A thread that was pinned stays so, and so do those that it starts.
            let figures = std::thread::spawn(move || measure(shape, seconds)).join();
            let figures = figures.map_err(|_| anyhow::anyhow!("{name} panicked"))?;
            let Figures { one, two, floor_ratio } =
                figures.context("a subscriber takes one file descriptor: ulimit -n 8192")?;
            let ratio = two / one;
            if options.json {
                let floor =
                    floor_ratio.map_or_else(String::new, |floor| format!(r#","floor_ratio":{floor:.3}"#));
                println!(
                    r#"{{"bench":"{name}","receivers":{receivers},"frame":{frame},"payload":{payload},"one_ns":{one:.1},"two_ns":{two:.1},"ratio":{ratio:.3}{floor}}}"#
                );
            } else {
                let floor = floor_ratio.map_or_else(|| "-".to_owned(), |floor| format!("{floor:.2}"));
                println!(
                    "{name:<11} {receivers:>9} {frame:>5} {payload:>7} {one:>8.1} {two:>8.1} {ratio:>6.2} {floor:>12}"
                );
            }
        }
    }
    Ok(())
}
