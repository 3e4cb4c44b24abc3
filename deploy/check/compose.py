#!/usr/bin/env python3
"""Checks deploy/containers: Compose's own schema, that every service is closed, and that the site of new-site.sh, the
Dockerfile and the compose file go together. Starts no container."""

import os
import re
import subprocess
import sys
import tempfile

import yaml

DEPLOY = os.path.realpath(os.path.join(os.path.dirname(__file__), ".."))
HERE = f"{DEPLOY}/containers"
OWN = ["sfu", "signaling", "coturn"]


def need(condition, text):
    if not condition:
        raise SystemExit(f"compose: {text}")


def main():
    with tempfile.TemporaryDirectory() as work:
        site = f"{work}/site"
        subprocess.run(
            [f"{DEPLOY}/new-site.sh", "--containers", "--self-signed"]
            + ["--host", "visit.test", "--address", "203.0.113.10", site],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        said = subprocess.run(
            ["docker-compose", "--file", f"{HERE}/compose.yaml", "config"],
            env={**os.environ, "CURTAIN_SITE": site},
            capture_output=True,
            text=True,
        )
        need(said.returncode == 0, said.stderr)
        compose = yaml.safe_load(said.stdout)
        text = {name: open(f"{site}/{name}").read() for name in os.listdir(site)}

    services = compose["services"]
    for name, service in services.items():
        need(service.get("read_only") is True, f"{name} may write")
        need(service.get("cap_drop") == ["ALL"] and not service.get("cap_add"), f"{name} has capabilities")
        need("no-new-privileges:true" in service.get("security_opt", []), f"{name} may gain privileges")
        need(service.get("user", "0").split(":")[0] not in ("0", "root"), f"{name} runs as root")
        need(not service.get("privileged"), f"{name} is privileged")
        for volume in service.get("volumes", []):
            source, _, rest = volume.partition(":")
            if source.startswith("/"):
                need(os.path.exists(source), f"{name}: {source} does not exist")
                need(rest.endswith(":ro"), f"{name} may write to {source}")

    # As written: Compose's own output takes ports apart.
    written = yaml.safe_load(open(f"{HERE}/compose.yaml"))["services"].values()
    published = {port for service in written for port in service.get("ports", [])}
    world = {port for port in published if not port.startswith("127.0.0.1:")}
    need(world == {"443:8443"}, f"published to the world: {world}")

    # What the configurations name is there under that name, and nothing is missing at the site.
    given = {name: {s["source"] for s in services[name].get("secrets", [])} for name in services}
    for name, file in [("sfu", "sfu.toml"), ("signaling", "signaling.toml"), ("coturn", "turnserver.conf")]:
        live = "\n".join(line for line in text[file].splitlines() if not line.startswith("#"))
        wanted = {os.path.basename(word) for word in re.findall(r"[\w./-]+\.(?:pem|key)\b", live)} | {file}
        need(given[name] == wanted, f"{name} is given {sorted(given[name])} and reads {sorted(wanted)}")
    for secret, source in compose["secrets"].items():
        need(os.path.basename(source["file"]) == secret and secret in text, f"new-site.sh makes no {secret}")

    # The addresses on the bridge.
    gateway = compose["networks"]["link"]["ipam"]["config"][0]["gateway"]
    need(f'listen = "{gateway}:7879"' in text["sfu.toml"], "the relay's control link is not on the bridge")
    need(f'address = "{gateway}:7879"' in text["signaling.toml"], "signaling looks for the relay elsewhere")
    scraped = open(f"{HERE}/prometheus.yml").read()
    need(f'listen = "{gateway}:7881"' in text["sfu.toml"] and f'"{gateway}:7881"' in scraped, "relay metrics")
    need('bind = "0.0.0.0:7889"' in text["signaling.toml"] and '"signaling:7889"' in scraped, "signaling metrics")

    dockerfile = open(f"{HERE}/Dockerfile").read()
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", dockerfile, re.M))
    stages = re.split(r"^FROM ", dockerfile, flags=re.M)[1:]
    for name in OWN:
        need(services[name]["build"]["target"] in targets, f"the Dockerfile has no target {name}")
        stage = next(s for s in stages if re.match(rf"\S+ AS {name}\n", s))
        need(re.search(r"^USER 65532:65532$", stage, re.M), f"the image of {name} runs as root")
    built = re.search(r"^ARG BUILD=build$", dockerfile, re.M) and 'make "${BUILD}"' in dockerfile
    need(built, "the images are not built as everything else is")
    print(f"compose: {len(services)} services, none root, all read-only without capabilities; site, images and ports agree")


if __name__ == "__main__":
    sys.exit(main())
