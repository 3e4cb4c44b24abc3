//! RTP on the wire: header, header extensions, payload descriptors, RTX and RED. Nothing here keeps state but
//! [`DdReader`], and nothing here allocates.

pub mod codec;
mod ext;
mod header;
pub mod red;
pub mod rtx;

#[cfg(test)]
pub(crate) use codec::dd_writer;
pub use codec::{
    DdError, DdInfo, DdReader, DecodeTarget, Indication, Indications, MAX_CHAINS, MAX_REFERENCES,
    MAX_REWRITTEN, MAX_TARGETS, PayloadInfo, attached_targets, inspect, rewrite_dd, rewrite_descriptor,
};
pub use ext::{AudioLevelExt, ExtensionIter, ExtensionValues, MAX_HEADER, RtpHeaderOut};
pub use header::{RtpHeader, payload_without_padding, set_padding};

#[cfg(test)]
mod tests;
