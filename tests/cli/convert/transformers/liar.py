#!/usr/bin/env python3
"""A transformer that does what its name says, and notes its process id next to its file."""
import os
import signal
import struct
import subprocess
import sys
import time

MODE = os.path.basename(sys.argv[0])
STDIN, STDOUT = sys.stdin.buffer, sys.stdout.buffer


def note(pid):
    with open(sys.argv[0] + ".pids", "a") as pids:
        print(pid, file=pids)


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def message(key, revision, create=None, version=1, lease=0):
    numbers = [revision if create is None else create, revision, version]
    out = b"\x0a" + varint(len(key)) + key
    for field, number in zip((2, 3, 4), numbers):
        out += bytes([field << 3]) + varint(number)
    return out + b"\x2a\x01v" + (b"\x30" + varint(lease) if lease else b"")


def frame(body):
    return struct.pack("<q", len(body)) + body


def say(*parts):
    for part in parts:
        STDOUT.write(part)
    STDOUT.flush()


GOOD = frame(message(b"/good", 4)) + frame(message(b"/fine", 5))

LIES = {
    "truncated-length": GOOD + b"\x05\0\0",
    "truncated-frame": GOOD + frame(message(b"/late", 6))[:-3],
    "huge": GOOD + struct.pack("<q", 1 << 62) + b"more",
    "large": GOOD + struct.pack("<q", 1 << 30) + b"not that much",
    "negative": GOOD + struct.pack("<q", -1) + b"more",
    "text": b"done: 2 nodes\n",
    "no-protobuf": GOOD + frame(b"\x0a\x7f/cut"),
    "wrong-type": GOOD + frame(b"\x08\x01"),
    "same-revision": GOOD + frame(message(b"/other", 5)),
    "same-key": GOOD + frame(message(b"/good", 6)),
    "revision-0": GOOD + frame(message(b"/zero", 0, create=0)),
    "revision-below-0": GOOD + frame(message(b"/minus", -1, create=-1)),
    "revision-too-high": GOOD + frame(message(b"/high", (1 << 62) + 1)),
    "created-later": GOOD + frame(message(b"/early", 6, create=7)),
    "version-0": GOOD + frame(message(b"/none", 6, version=0)),
    "unknown-lease": GOOD + frame(message(b"/leased", 6, lease=77)),
    "no-name": GOOD + frame(message(b"", 6)),
    "crash-behind-answers": GOOD,
}


def main():
    note(os.getpid())
    if MODE == "deaf":
        return 0
    if MODE == "hard-of-hearing":
        os.read(0, 10)
        os.close(0)
        say(GOOD)
        return 0
    if MODE == "crash":
        os.read(0, 10)
        return 3
    if MODE == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if MODE == "mute":
        time.sleep(1000)
    if MODE == "ahead":
        for revision in range(100, 20100):
            say(b'{"key":"/%d","value":"%s","mod_revision":%d}\n' % (revision, b"x" * 100, revision))
        STDIN.read()
        return 0
    if MODE == "endless-line":
        while True:
            say(b'{"key":"' + b"x" * (1 << 16))
    if MODE == "endless-frames":
        revision = 1
        while True:
            revision += 1
            say(frame(message(b"/%d" % revision, revision)))
    if MODE == "endless-directories":
        while True:
            say(b'{"dir":true}\n' * 4096)
    if MODE == "endless-twins":
        while True:
            say(GOOD)
    if MODE == "slow":
        for line in STDIN:
            time.sleep(0.15)
            say(line)
        return 0
    STDIN.read()
    if MODE == "hung":
        say(GOOD)
        time.sleep(1000)
    if MODE == "leaves-one-talking":
        note(subprocess.Popen(["sleep", "1000"]).pid)
        say(GOOD)
        return 0
    if MODE == "leaves-one":
        note(subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL).pid)
        say(GOOD)
        return 0
    say(LIES[MODE])
    return 1 if MODE.startswith("crash") else 0


sys.exit(main())
