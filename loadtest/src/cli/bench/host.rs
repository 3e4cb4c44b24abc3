//! A relay of the tester's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use loadtest::run::{RelaySource, Target};
use loadtest::scenario::Scenario;
use loadtest::token::{ApiKey, Entry};
use serde::Deserialize;

/// How long the server may take to start.
const START: Duration = Duration::from_secs(20);

/// What the host prints when it is ready.
#[derive(Debug, Deserialize)]
struct Ready {
    ws: String,
    api_key: String,
    api_secret: String,
    metrics: String,
}

/// A server that ends with this.
pub(super) struct Host {
    process: Process,
    ready: Ready,
}

/// A folder, and the program that writes to it. Both go with this, be the program ready or not.
struct Process {
    folder: PathBuf,
    child: Option<Child>,
}

impl Process {
    fn start(program: &Path, shards: usize) -> anyhow::Result<Self> {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("curtain-bench-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut process = Self { folder, child: None };
        let child = Command::new(program)
            .args([
                "--json",
                "--http-port",
                "0",
                "--sfu-http-port",
                "0",
                "--udp-port",
                "0",
                "--control-port",
                "0",
            ])
            .args(["--page", "no-page", "--shards", &shards.to_string()])
            .arg("--data-dir")
            .arg(&process.folder)
            .stdout(std::fs::File::create(process.said())?)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        process.child = Some(child);
        Ok(process)
    }

    /// What the program says on its standard output.
    fn said(&self) -> PathBuf {
        self.folder.join("ready.json")
    }

    /// How it ended, if it did.
    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok()?
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Host {
    /// Starts a program with so many shards.
    pub(super) async fn start(program: &Path, shards: usize) -> anyhow::Result<Self> {
        let mut process = Process::start(program, shards)?;
        let until = Instant::now() + START;
        loop {
            let text = std::fs::read_to_string(process.said()).unwrap_or_default();
            if let Ok(ready) = serde_json::from_str(&text) {
                return Ok(Self { process, ready });
            }
            if let Some(status) = process.ended() {
                bail!("{} ends at its start: {status}", program.display());
            }
            if Instant::now() > until {
                bail!("{} does not start", program.display());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Its process id.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.child.as_ref().map(Child::id)
    }

    /// How bots join it, and where its own figures are.
    pub(super) fn target(&self, scenario: &Scenario) -> anyhow::Result<Target> {
        Ok(Target {
            url: self.ready.ws.clone(),
            trust: None,
            entry: Entry::Key(ApiKey {
                name: self.ready.api_key.clone(),
                secret: self.ready.api_secret.clone(),
            }),
            local: loadtest::run::local_towards(&self.ready.ws)?,
            threads: 0,
            relay: RelaySource {
                metrics: Some(self.ready.metrics.clone()),
                pid: self.id(),
                // What joins take is told from the seconds between.
                at_ends: !scenario.measure_joining,
            },
        })
    }
}
