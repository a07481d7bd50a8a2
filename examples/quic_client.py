"""Follows a run of an aob node over QUIC (docs/formats/stream.md, ALPN aob/1) and prints its events, one JSON a line.

    pip install aioquic
    python examples/quic_client.py [--url URL] [--after SEQ] [--cut-every N] RUN

It comes back from its cursor when the connection breaks. --cut-every breaks it itself after every N events, for tests.
The token is read from AOB_TOKEN. A node on this machine is known by the hash of its certificate, which GET /v1/node has.
"""

import argparse
import asyncio
import hashlib
import json
import os
import ssl
import sys
import urllib.request
from urllib.parse import urlsplit

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamDataReceived, StreamReset
from cryptography.hazmat.primitives.serialization import Encoding

EVENT, CLOSING, REFUSED, SUBSCRIBE = 0x01, 0x03, 0x07, 0x10
FRAME_BYTES_MAX = (16 << 20) + 64
LAST = ("run.completed", "run.failed", "run.cancelled")


class Broken(Exception):
    """The stream has to be taken up again."""


def take_varint(data, at=0):
    """A number of RFC 9000, 16, and where the next byte is; None when it is not whole."""
    if at >= len(data):
        return None
    length = 1 << (data[at] >> 6)
    if at + length > len(data):
        return None
    return int.from_bytes(data[at:at + length], "big") & ((1 << (8 * length - 2)) - 1), at + length


class Reader(QuicConnectionProtocol):
    """Hands the bytes of the one stream on; an empty piece is its end."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.pieces = asyncio.Queue()

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            if event.data:
                self.pieces.put_nowait(event.data)
            if event.end_stream:
                self.pieces.put_nowait(b"")
        elif isinstance(event, (StreamReset, ConnectionTerminated)):
            self.pieces.put_nowait(b"")

    def subscribe(self, path, headers):
        body = json.dumps({"version": 1, "path": path, "headers": headers}).encode()
        stream = self._quic.get_next_available_stream_id()
        length = (len(body) + 1) | 0x80000000
        self._quic.send_stream_data(stream, length.to_bytes(4, "big") + bytes([SUBSCRIBE]) + body)
        self.transmit()

    async def frames(self):
        held = bytearray()
        while piece := await self.pieces.get():
            held += piece
            while (head := take_varint(held)) is not None:
                length, start = head
                if not 1 <= length <= FRAME_BYTES_MAX:
                    sys.exit(f"a frame of {length} bytes")
                if len(held) < start + length:
                    break
                yield held[start], bytes(held[start + 1:start + length])
                del held[:start + length]


def about(url, headers):
    """Where QUIC is served, and the hash of the certificate that the node made for itself."""
    with urllib.request.urlopen(urllib.request.Request(url + "/v1/node", headers=headers), timeout=10) as answer:
        quic = json.load(answer).get("quic") or {}
    where = urlsplit("//" + quic["address"]) if quic.get("address") else urlsplit(url)
    return urlsplit(url).hostname, where.port, quic.get("certificate_sha256")


async def read(asked, headers, cursor):
    """Reads on after the cursor until the run ends; gives its number, and whether that was the end."""
    host, port, known = about(asked.url, headers)
    config = QuicConfiguration(is_client=True, alpn_protocols=["aob/1"], server_name=host)
    if known:
        config.verify_mode = ssl.CERT_NONE  # The hash is compared below, before anything is said.
    elif os.environ.get("AOB_CA_FILE"):
        config.load_verify_locations(os.environ["AOB_CA_FILE"])
    async with connect(host, port, configuration=config, create_protocol=Reader) as reader:
        shown = reader._quic.tls._peer_certificate.public_bytes(Encoding.DER)
        if known and hashlib.sha256(shown).hexdigest() != known:
            sys.exit("whoever answers is not the node")
        reader.subscribe(f"/v1/runs/{asked.run}/events?after={cursor}", headers)
        count = 0
        async for kind, body in reader.frames():
            if kind == REFUSED:
                problem = json.loads(body)
                if problem.get("retryable"):
                    raise Broken(problem["code"])
                sys.exit(f"{problem['detail']} ({problem['code']})")
            if kind == CLOSING:
                said = json.loads(body)
                return (said["seq"] if said["reason"] == "resync" else cursor), False
            if kind != EVENT:
                continue
            seq, start = take_varint(body, 16)
            if seq != cursor + 1:
                sys.exit(f"event {seq} came after {cursor}")
            sys.stdout.buffer.write(body[start:] + b"\n")
            cursor, count = seq, count + 1
            if json.loads(body[start:])["type"] in LAST:
                return cursor, True
            if asked.cut_every and count >= asked.cut_every:
                return cursor, False
    return cursor, False


async def follow(asked):
    headers = {"authorization": f"Bearer {os.environ['AOB_TOKEN']}"} if os.environ.get("AOB_TOKEN") else {}
    cursor, failures = asked.after, 0
    while True:
        try:
            before = cursor
            cursor, ended = await read(asked, headers, cursor)
            failures = 0 if cursor != before else failures + 1
            if ended:
                return
        except (OSError, Broken) as error:
            failures += 1
            print(f"coming back: {error}", file=sys.stderr)
        if failures > 10:
            sys.exit("given up")
        await asyncio.sleep(min(0.2 * 2**failures, 8) if failures else 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default=os.environ.get("AOB_URL", "http://127.0.0.1:7400"))
    parser.add_argument("--after", type=int, default=0)
    parser.add_argument("--cut-every", type=int, default=0)
    parser.add_argument("run")
    asyncio.run(follow(parser.parse_args()))
