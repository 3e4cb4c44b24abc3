"""What live.py and unit_host.py share: asking the services, waiting for them, tokens, and a participant of an encrypted call."""

import base64
import hashlib
import hmac
import json
import re
import ssl
import time
import urllib.error
import urllib.request


def need(condition, text):
    if not condition:
        raise SystemExit(f"check: {text}")


def get(url):
    """The body of an answer, or nothing. Whose certificate it is, is not asked here."""
    context = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(url, context=context, timeout=2) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError):
        return ""


def wait(what, condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        need(time.monotonic() < end, f"{what} took more than {seconds} s")
        time.sleep(0.2)


def link_is_up():
    return "\ncurtain_signaling_relay_link_up 1\n" in get("http://127.0.0.1:7889/metrics")


def token(site, identity):
    """An access token by the key of a site."""
    text = open(f"{site}/signaling.toml").read()
    key, secret = re.search(r'^(API\w+) = "(.*)"$', text, re.M).groups()
    part = lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=")
    body = {
        "iss": key,
        "sub": identity,
        "exp": int(time.time()) + 600,
        "video": {"roomJoin": True, "room": "visit"},
    }
    head = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(body).encode())
    return (head + b"." + part(hmac.digest(secret.encode(), head, hashlib.sha256))).decode()


def participant(binaries, site, identity, url, seconds):
    """Command and environment of one who joins and publishes, and trusts the site's own certificate."""
    command = [f"{binaries}/loadtest", "join", "--url", url, "--ca", f"{site}/fullchain.pem", "--key", "passphrase"]
    command += ["--audio", "--video", "--seconds", str(seconds)]
    return command, {"CURTAIN_TOKEN": token(site, identity)}
