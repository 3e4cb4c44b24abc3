#!/usr/bin/env python3
"""Runs both services with a site of new-site.sh, an encrypted call, and Prometheus with our configuration and rules beside
them, in a network of its own; then asks Prometheus for everything that rules and dashboard ask for.

    deploy/check/live.py BIN            folder of the binaries (target/release)
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse

from services import get, link_is_up, need, participant, wait

DEPLOY = os.path.realpath(os.path.join(os.path.dirname(__file__), ".."))
# Queries of the dashboard that a good call leaves without an answer.
SILENT = ["curtain_drops_total", "curtain_signaling_closes_total", "curtain_signaling_twirp_requests_total"]


def edit(path, *pairs):
    text = open(path).read()
    for old, new in pairs:
        need(old in text, f"{os.path.basename(path)} has no {old!r}")
        text = text.replace(old, new)
    open(path, "w").write(text)


def query(expression):
    answer = get("http://127.0.0.1:9090/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
    answer = json.loads(answer or '{"status": "no answer"}')
    need(answer["status"] == "success", f"{expression}: {answer}")
    return answer["data"]["result"]


def main(binaries):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    work = tempfile.TemporaryDirectory()
    site = f"{work.name}/site"
    subprocess.run(
        [f"{DEPLOY}/new-site.sh", "--host", "visit.test", "--address", "127.0.0.1", "--self-signed", site],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    edit(
        f"{site}/signaling.toml",
        ("page = ", "# page = "),
        ("/var/lib/curtain/", f"{work.name}/"),
    )
    for name in ("prometheus.yml", "curtain.rules.yml"):
        with open(f"{DEPLOY}/prometheus/{name}") as source, open(f"{work.name}/{name}", "w") as copy:
            copy.write(source.read())
    edit(f"{work.name}/prometheus.yml", ("interval: 10s", "interval: 1s"))

    log = open(f"{work.name}/log", "w")
    started = []

    def start(*command, **more):
        started.append(subprocess.Popen(command, stdout=log, stderr=log, **more))
        return started[-1]

    try:
        start(f"{binaries}/sfu", "--config", "sfu.toml", cwd=site)
        start(f"{binaries}/signaling", "--config", f"{site}/signaling.toml")
        start(
            "prometheus",
            f"--config.file={work.name}/prometheus.yml",
            f"--storage.tsdb.path={work.name}/tsdb",
            "--web.listen-address=127.0.0.1:9090",
        )
        wait("the control link", link_is_up)
        wait("Prometheus", lambda: "Ready" in get("http://127.0.0.1:9090/-/ready"))
        calls = []
        for identity in ("clinician", "patient"):
            command, environment = participant(binaries, site, identity, "wss://127.0.0.1", 30)
            calls.append(start(*command, env=environment))
        time.sleep(12)
        look()
        for call in calls:
            need(call.poll() is None, "a participant left early")
    except BaseException:
        log.flush()
        sys.stderr.write(open(f"{work.name}/log").read()[-8000:])
        raise
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()
        work.cleanup()


def look():
    targets = json.loads(get("http://127.0.0.1:9090/api/v1/targets"))["data"]["activeTargets"]
    health = {t["labels"]["job"]: t["health"] for t in targets}
    need(health == {"curtain-sfu": "up", "curtain-signaling": "up"}, f"targets: {targets}")

    groups = json.loads(get("http://127.0.0.1:9090/api/v1/rules"))["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    need(len(rules) > 15, f"only {len(rules)} rules")
    for rule in rules:
        need(rule["health"] == "ok", f"{rule['name']}: {rule.get('lastError')}")
        need(rule["state"] == "inactive", f"{rule['name']} is {rule['state']} in a good call: {rule['query']}")

    dashboard = json.load(open(f"{DEPLOY}/grafana/curtain.json"))
    asked = silent = 0
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "8s").replace("$instance", ".*")
            found = query(expression)
            asked += 1
            if not found:
                silent += 1
                need(any(name in expression for name in SILENT), f"panel {panel['title']!r}: no answer to {expression}")
    participants = query("curtain_participants")
    need(participants and participants[0]["value"][1] == "2", f"participants: {participants}")
    print(f"live: {len(rules)} rules are quiet in a good call; {asked - silent} of {asked} dashboard queries have an answer")


if __name__ == "__main__":
    if os.environ.get("CURTAIN_OWN_NETWORK") != "yes":
        own = ["unshare", "--net"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
        os.environ["CURTAIN_OWN_NETWORK"] = "yes"
        os.execvp(own[0], own + [sys.executable, os.path.realpath(__file__), *sys.argv[1:]])
    main(os.path.realpath(sys.argv[1]))
