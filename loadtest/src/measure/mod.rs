//! What is measured, stream by stream and in sum.

mod assembler;
mod dist;
mod meter;
mod tally;

pub use self::assembler::{Assembler, Frame};
pub use self::dist::Dist;
pub use self::meter::{LOST_AFTER, Meter, Window};
pub use self::tally::{
    Board, Disconnect, Join, JoinOutcome, Kind, KindTotals, Quantiles, Second, StreamResult, Tally, Tester,
};
