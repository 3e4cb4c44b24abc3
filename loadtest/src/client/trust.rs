//! Whose certificates the bots trust when a server is spoken to over TLS.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;

/// The authorities of the system, and one more where the operator names it.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
    /// The one more, in PEM: testers on other machines need it too.
    authority: Option<String>,
}

impl Trust {
    /// With the authority in a PEM file, if one is named.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate.
    pub fn from_file(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Self::new(None) };
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::new(Some(text)).with_context(|| format!("{} holds no authority", path.display()))
    }

    /// With an authority in PEM, if there is one.
    ///
    /// # Errors
    /// It holds no certificate, or one that cannot be an authority.
    pub fn new(authority: Option<String>) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let more: Vec<CertificateDer<'static>> = match &authority {
            Some(pem) => {
                let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
                let found = found.map_err(|error| anyhow::anyhow!("damaged PEM: {error}"))?;
                ensure!(!found.is_empty(), "no certificate in PEM (-----BEGIN CERTIFICATE-----)");
                found
            }
            None => Vec::new(),
        };
        let verifier = Verifier::new_with_extra_roots(more, provider.clone())
            .context("the authorities that this machine trusts")?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous() // as rustls calls every verifier that is not its own
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config), authority })
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    pub(crate) fn authority(&self) -> Option<String> {
        self.authority.clone()
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("authority", &self.authority.is_some()).finish_non_exhaustive()
    }
}
