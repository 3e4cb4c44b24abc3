#!/usr/bin/env python3
"""Measures what the values in curtain.conf change, on this machine: how much a shard's UDP socket holds and loses.

    deploy/sysctl/measure.py            as root: it shapes an interface in a network namespace of its own

The relay asks for 4 MiB each way (sfu/udp); the kernel gives it no more than net.core.rmem_max and wmem_max, whose default is
212992. Each size is asked for here as the relay would get it. Nothing of the machine is changed.
"""

import os
import socket
import subprocess
import sys
import time

SIZES = [212_992, 1 << 20, 4 << 20]
PAYLOAD = bytes(1100)
GSO = 103  # UDP_SEGMENT


def receiver(size):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    given = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
    if given < size:
        sys.exit(f"this machine gives {given} bytes of {size}: raise net.core.rmem_max before measuring")
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def holds(size):
    """Datagrams of a shard's usual size that wait in the buffer while nobody reads."""
    sock = receiver(size)
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(20_000):
        out.sendto(PAYLOAD, sock.getsockname())
    count = 0
    try:
        while sock.recv(2048):
            count += 1
    except BlockingIOError:
        return count


def loses(size, rate, stall):
    """Share lost in 4 s at `rate` datagrams a second, when the reader is away for `stall` seconds twice a second."""
    sock = receiver(size)
    sent = 0

    def send():
        nonlocal sent
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        start = time.monotonic()
        while (now := time.monotonic()) < start + 4:
            due = int((now - start) * rate)
            while sent < due:
                out.sendto(PAYLOAD, sock.getsockname())
                sent += 1
            time.sleep(0.001)

    child, pipe = os.pipe()
    pid = os.fork()
    if pid == 0:  # the reader, a process of its own, as the interpreter runs one thread at a time
        os.close(child)
        got, away, quiet = 0, time.monotonic() + 0.25, time.monotonic()
        while time.monotonic() < quiet + 1.5:
            try:
                while sock.recv(2048):
                    got += 1
                    quiet = time.monotonic()
                    if quiet > away:
                        break
            except BlockingIOError:
                time.sleep(0.0002)
            if time.monotonic() > away:
                time.sleep(stall)
                away += 0.5
        os.write(pipe, str(got).encode())
        os._exit(0)
    os.close(pipe)
    send()
    got = int(os.read(child, 32))
    os.waitpid(pid, 0)
    os.close(child)
    return 1 - got / sent


def refused(size, burst):
    """Datagrams of `burst` bytes handed over at once that a link of 1 Gbit/s makes the kernel refuse, and of how many."""
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    if out.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2 < size:
        sys.exit("raise net.core.wmem_max before measuring")
    out.setblocking(False)
    # As the relay sends: runs of a frame's packets, cut by the kernel.
    run = 8
    out.setsockopt(socket.IPPROTO_UDP, GSO, len(PAYLOAD))
    count = burst // (len(PAYLOAD) * run)
    lost = 0
    for _ in range(count):
        try:
            out.sendto(PAYLOAD * run, ("192.0.2.2", 9))
        except BlockingIOError:
            lost += run
    return lost, count * run


def command(*words):
    subprocess.run(words, check=True)


def sending():
    command("ip", "link", "set", "lo", "up")
    command(*"ip link add d0 type veth peer name d1".split())
    command("ip", "link", "set", "d1", "up")
    command("ip", "addr", "add", "192.0.2.1/24", "dev", "d0")
    command("ip", "link", "set", "d0", "up")
    command("ip", "neigh", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:02", "dev", "d0")
    command(*"tc qdisc add dev d0 root tbf rate 1gbit burst 128kb limit 64mb".split())
    print("refused of a burst, link of 1 Gbit/s  " + "".join(f"{b / 1e6:>12.1f} MB" for b in BURSTS))
    for size in SIZES:
        row = []
        for burst in BURSTS:
            lost, count = refused(size, burst)
            row.append(f"{lost / count:>14.1%} ")
            time.sleep(0.3)
        print(f"  wmem_max {size:>8}                   " + "".join(row))


BURSTS = [300_000, 1_000_000, 3_000_000]

if __name__ == "__main__":
    if sys.argv[1:] == ["sending"]:
        sending()
        sys.exit()
    for size in SIZES:
        held = holds(size)
        print(f"rmem_max {size:>8}: holds {held:>5} datagrams of {len(PAYLOAD)} bytes, {held / 10:.0f} ms at 10000 a second")
    stalls = [0.01, 0.05, 0.1]
    print("lost at 10000 a second, reader away twice a second for " + "".join(f"{s * 1000:>7.0f} ms" for s in stalls))
    for size in SIZES:
        row = "".join(f"{loses(size, 10_000, stall):>10.1%}" for stall in stalls)
        print(f"  rmem_max {size:>8}                                    {row}")
    sys.stdout.flush()
    command("unshare", "--net", sys.executable, os.path.abspath(__file__), "sending")
