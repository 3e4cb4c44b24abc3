//! Two shards on two threads, each pinned to a core of its own: a room of two shards, or two rooms.
//!
//! The threads go in step: nothing of a frame is left when the next one comes, and none of them is ahead of the other by
//! the virtual clock. Waiting for each other is not measured; that the second shard is woken for what it is handed is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sfu_media::relay::link;
use sfu_udp::{Waker, pin_to_cpu};

use crate::Shape;
use crate::call::{Call, Cost, Side};
use crate::floor::Floor;

/// What the second thread does.
enum Ask {
    /// [`Call::check_and_close`].
    Check,
    /// A frame.
    Turn { frame: usize, payload: usize, key: bool, audio: bool },
    /// What it cost since it was asked last.
    Cost,
    /// Frames of a shape until told to stop, of the product or of the floor.
    Busy { shape: Shape, audio: bool, floor: bool, stop: Arc<AtomicBool> },
}

/// A call on this thread and one on another. See the module's documentation.
#[derive(Debug)]
pub struct Pair {
    /// The call of this thread.
    pub first: Call,
    asks: Option<mpsc::Sender<Ask>>,
    answers: mpsc::Receiver<Result<Cost>>,
    thread: Option<JoinHandle<()>>,
}

impl Pair {
    /// One room, half of whose subscribers live on the shard of the publisher and half on the other.
    ///
    /// # Errors
    /// When there are no two cores, or as [`Call::new`].
    pub fn split(receivers: usize) -> Result<Self> {
        let waker = Waker::new()?;
        let mut links = link::connect(2).into_iter();
        let (home, guest) = links.next().zip(links.next()).context("two ends")?;
        let second = Side::Guest(guest, waker.clone());
        Self::start(Side::Home(home, waker), receivers - receivers / 2, second, receivers / 2)
    }

    /// Two rooms of so many subscribers each.
    ///
    /// # Errors
    /// When there are no two cores, or as [`Call::new`].
    pub fn two_rooms(receivers: usize) -> Result<Self> {
        Self::start(Side::Alone, receivers, Side::Alone, receivers)
    }

    fn start(side: Side, receivers: usize, other: Side, others: usize) -> Result<Self> {
        let now = Instant::now();
        let (asks, asked) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let (pinned, core) = mpsc::channel();
        let thread = std::thread::Builder::new().name("second".into()).spawn(move || {
            let _ = pinned.send(pin_to_cpu(1));
            let mut call = match Call::of(other, others, now) {
                Ok(call) => {
                    let _ = answer.send(Ok(Cost::default()));
                    call
                }
                Err(error) => {
                    let _ = answer.send(Err(error));
                    return;
                }
            };
            let mut floor = None;
            while let Ok(ask) = asked.recv() {
                if answer.send(carry_out(&mut call, &mut floor, ask)).is_err() {
                    return;
                }
            }
        })?;
        let first = pin_to_cpu(0)?;
        ensure!(core.recv()?? != first, "two shards that are busy at once need two cores");
        let first = Call::of(side, receivers, now)?;
        let pair = Self { first, asks: Some(asks), answers, thread: Some(thread) };
        pair.answer()?;
        Ok(pair)
    }

    /// [`Call::check_and_close`] of both.
    ///
    /// # Errors
    /// When a subscriber of either did not get a whole frame that it can decrypt.
    pub fn check_and_close(&mut self) -> Result<()> {
        self.ask(Ask::Check)?;
        self.first.check_and_close()?;
        self.answer().map(drop)
    }

    /// [`Call::turn_of`] of both at once. Returns the packets that both forwarded.
    ///
    /// # Errors
    /// As there.
    pub fn turn_of(&mut self, frame: usize, payload: usize, key: bool, audio: bool) -> Result<u64> {
        self.ask(Ask::Turn { frame, payload, key, audio })?;
        let packets = self.first.turn_of(frame, payload, key, audio)?;
        Ok(packets + self.answer()?.packets)
    }

    /// What both spent since the last call.
    ///
    /// # Errors
    /// When the second thread is gone.
    pub fn take_cost(&mut self) -> Result<Cost> {
        self.ask(Ask::Cost)?;
        let Cost { cpu, feedback, .. } = self.answer()?;
        let first = self.first.take_cost();
        Ok(Cost { packets: 0, cpu: cpu + first.cpu, feedback: feedback + first.feedback })
    }

    /// Runs while the second thread is busy with such frames, and returns what it spent meanwhile, too.
    ///
    /// # Errors
    /// When either fails.
    pub fn while_busy<T>(
        &mut self,
        shape: Shape,
        audio: bool,
        floor: bool,
        run: impl FnOnce(&mut Call) -> Result<T>,
    ) -> Result<(T, Cost)> {
        let stop = Arc::new(AtomicBool::new(false));
        self.ask(Ask::Busy { shape, audio, floor, stop: Arc::clone(&stop) })?;
        let result = run(&mut self.first);
        stop.store(true, Ordering::Release);
        let second = self.answer()?;
        Ok((result?, second))
    }

    fn ask(&self, ask: Ask) -> Result<()> {
        let asks = self.asks.as_ref().context("it runs until it is dropped")?;
        asks.send(ask).ok().context("the second thread is gone")
    }

    fn answer(&self) -> Result<Cost> {
        self.answers.recv().context("the second thread is gone")?
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        drop(self.asks.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn carry_out(call: &mut Call, floor: &mut Option<(Shape, Floor)>, ask: Ask) -> Result<Cost> {
    match ask {
        Ask::Check => call.check_and_close().map(|()| Cost::default()),
        Ask::Turn { frame, payload, key, audio } => {
            let packets = call.turn_of(frame, payload, key, audio)?;
            Ok(Cost { packets, ..Cost::default() })
        }
        Ask::Cost => Ok(call.take_cost()),
        Ask::Busy { shape, audio, floor: false, stop } => {
            call.take_cost();
            let mut packets = 0;
            while !stop.load(Ordering::Acquire) {
                packets += call.turn_of(shape.frame, shape.payload, false, audio)?;
            }
            Ok(Cost { packets, ..call.take_cost() })
        }
        Ask::Busy { shape, floor: true, stop, .. } => {
            if floor.as_ref().is_none_or(|(have, _)| *have != shape) {
                *floor = Some((shape, Floor::new(shape, &call.sinks(), true)?));
            }
            let (_, floor) = floor.as_mut().context("made above")?;
            floor.take_cpu();
            let mut packets = 0;
            while !stop.load(Ordering::Acquire) {
                packets += floor.turn()?;
            }
            Ok(Cost { packets, cpu: floor.take_cpu(), ..Cost::default() })
        }
    }
}
