"""Runs inside the container of units.sh, beside the two services: an encrypted call through them, a restart of the
signalling service under it, and what the sandbox and the services' logs say."""

import asyncio
import glob
import json
import os
import re
import subprocess

from services import get, link_is_up, need, participant, wait

CURTAIN = ["curtain-sfu", "curtain-signaling"]


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def call():
    async def join(identity):
        command, environment = participant("/usr/local/bin", "/etc/curtain", identity, "wss://127.0.0.1", 6)
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
        need(process.returncode == 0, f"a participant failed: {err.decode()}")
        return json.loads(out.decode().strip().splitlines()[-1])

    reports = await asyncio.gather(join("clinician"), join("patient"))
    for report in reports:
        streams = list(report["streams"].values())
        opened = {s["kind"]: s["opened"] for s in streams}
        need(set(opened) == {"audio", "video"}, f"streams are missing: {report}")
        need(opened["audio"] > 100 and opened["video"] > 50, f"too few frames: {report}")
        need(not any(s["failed"] or s["clear"] for s in streams), f"frames are not encrypted: {report}")
    return reports


def properties(unit, *names):
    text = run("systemctl", "show", unit, *(f"--property={n}" for n in names))
    return dict(line.split("=", 1) for line in text.splitlines())


def sandbox(unit, port_caps):
    pid = properties(unit, "MainPID")["MainPID"]
    status = dict(
        line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\t" in line
    )
    need(status["Uid"].split()[0] != "0", f"{unit} runs as root")
    need(status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", f"{unit} is not confined")
    need(int(status["CapEff"], 16) == port_caps, f"{unit} has capabilities {status['CapEff']}")
    mounts = [line.split() for line in open(f"/proc/{pid}/mountinfo")]
    usr = [m for m in mounts if m[4] in ("/", "/usr")]
    need(usr and all("ro" in m[5].split(",") for m in usr), f"{unit} may write: {usr}")
    return pid


def main():
    for unit in CURTAIN:
        wait(f"start of {unit}", lambda: properties(unit, "ActiveState")["ActiveState"] == "active")
    wait("the relay", lambda: get("http://127.0.0.1:7881/readyz") == "ready")
    wait("the control link", link_is_up)
    need("<html" in get("https://127.0.0.1/").lower(), "the page is not served on port 443")
    # The tester and this script are root; the services are not.
    sandbox("curtain-sfu", 0)
    sandbox("curtain-signaling", 1 << 10)

    reports = asyncio.run(call())
    shards = re.findall(r'curtain_shard_cpu_seconds\{shard="(\d+)"\}', get("http://127.0.0.1:7881/metrics"))
    need(shards, "the relay's metrics name no shard")

    run("systemctl", "restart", "curtain-signaling")
    wait("the control link after a restart", link_is_up)
    entries = run("/usr/local/bin/signaling", "--config", config_for_verification(), "--verify-audit").strip()
    need(re.match(r"\d+ entries, chain unbroken", entries), entries)

    run("systemctl", "stop", *CURTAIN)
    for unit in CURTAIN:
        state = properties(unit, "Result", "NRestarts")
        need(state == {"Result": "success", "NRestarts": "0"}, f"{unit}: {state}")
        log = run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")
        bad = [line for line in log.splitlines() if '"WARN"' in line or '"ERROR"' in line]
        # The relay is away while this script stops both.
        bad = [line for line in bad if "link" not in line or unit != "curtain-signaling"]
        need(not bad, f"{unit} complains: {bad}")
    frames = sum(s["opened"] for r in reports for s in r["streams"].values())
    written = glob.glob("/var/lib/curtain/*")
    need(written and all(os.stat(f).st_mode & 0o077 == 0 for f in written), f"modes of {written}")
    print(f"units: an encrypted call ran in the sandbox, {frames} frames opened, {len(shards)} shards; audit: {entries}")
    open("/check/out/good", "w").close()


def config_for_verification():
    """The audit trail is looked at while the service runs; only the path matters."""
    return "/etc/curtain/signaling.toml"


try:
    main()
except BaseException:
    for unit in CURTAIN:
        print(run("journalctl", "--no-pager", "--output=cat", "--lines=10", f"--unit={unit}"), flush=True)
    raise
