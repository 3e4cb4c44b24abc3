//! A bot of the fleet: a real client by LiveKit's protocol that publishes and watches as a page would, and measures what
//! it gets. Many of them share a thread: each is a task that sleeps until its next deadline or datagram.

mod join;
mod link;
mod publish;
mod session;
mod signal;
mod transport;
mod trouble;
mod trust;
mod view;

pub use self::join::{Visit, VisitReport, VisitStream, join};
pub use self::link::LinkSpec;
pub use self::session::{BotPlan, Context, Play, run_bot};
pub(crate) use self::trouble::CLOCK_SPARE;
pub use self::trust::Trust;
