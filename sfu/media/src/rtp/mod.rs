//! RTP on the wire: header, header extensions, payload descriptors, RTX and RED. Nothing here keeps state but
//! [`DdReader`], and nothing here allocates.

pub mod codec;
mod ext;
mod header;
pub mod red;
pub mod rtx;

pub use codec::{DdError, DdInfo, DdReader, PayloadInfo, inspect, rewrite_descriptor};
pub use ext::{AudioLevelExt, ExtensionIter, ExtensionValues, MAX_HEADER, RtpHeaderOut};
pub use header::{RtpHeader, payload_without_padding};

#[cfg(test)]
mod tests;
