"""Ten thousand bodies that mean no good: never a 500, never a dead worker, bounded memory."""

import asyncio
import gzip
import json
import random
import zlib
from contextlib import suppress

import httptools
import psutil
import pytest

BODIES = 10_000
CONNECTIONS = 8
GOOD = b'{"files": 700, "stage": "prod"}'
SCALARS = [
    b"1", b"-1", b"1e400", b"-1e400", b"NaN", b"Infinity", b"1e-400", b"9" * 400, b"9" * 5_000, b"0x10", b"01", b"1.", b"true",
    b"null", b'""', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\xff\xfe"', '"ℵ\U0001f4a9"'.encode(), b'"' + b"a" * 50_000 + b'"',
    b"[]", b"{}", b"[[[[[]]]]]", b'{"files":{"files":{}}}', b"'x'", b"undefined", b"\x00", b"1,", b'"\\x41"', b'"\n"', b"-0", b"1e5",
]  # fmt: skip
WHOLE = [
    b"", b" ", b"[]", b"{}", b"null", b"[" * 100_000, b'{"a":' * 40_000, b"[" * 100_000 + b"]" * 100_000, GOOD + GOOD, GOOD * 9,
    b"\xef\xbb\xbf" + GOOD, GOOD.decode().encode("utf-16"), gzip.compress(b"0" * 10_000_000), zlib.compress(GOOD), b"[" + b"1," * 90_000 + b"1]",
    b'{"files": 1, "files": 2, "stage": "prod"}', b"{" + b",".join(b'"%d":1' % n for n in range(20_000)) + b"}",
    b'{"files": 1, "stage": "prod", "\\ud800": 1}', b'{"__proto__": 1}', b'{"files": 1, "stage": "prod"' , b"a=1&b=2", b"<a/>", b"\x00" * 1_000,
    b'[{"files": 1, "stage": "prod"}, 3]', b"[null]", b"[[{}]]", b"{}" * 2_000, b"[" + b"{}," * 30_000 + b"{}]", b'{"files": 1e5, "stage": "prod"}',
]  # fmt: skip


def hostile(drawn: random.Random) -> bytes:
    """A body: a strange value in a good record, a good record cut, changed or repeated, or something else altogether."""
    kind = drawn.random()
    if kind < 0.35:
        return b'{"files": %s, "stage": %s}' % (drawn.choice([b"7", *SCALARS]), drawn.choice([b'"prod"', *SCALARS]))
    if kind < 0.5:
        return GOOD[: drawn.randrange(len(GOOD))]
    if kind < 0.7:
        changed = bytearray(GOOD)
        for _ in range(drawn.randint(1, 4)):
            changed[drawn.randrange(len(changed))] = drawn.randrange(256)
        return bytes(changed)
    if kind < 0.8:
        return json.dumps(
            {drawn.choice(["files", "stage", "é", "x" * 300]): drawn.choice([1, "a", [1], {"b": 2}, None])}
        ).encode()
    if kind < 0.9:
        return b"[" + b",".join(hostile(drawn)[:2_000] for _ in range(3)) + b"]"
    return drawn.choice(WHOLE)


class Answer:
    """Reads one answer."""

    def __init__(self) -> None:
        self.is_complete = False
        self.body = b""

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.is_complete = True


async def post(port: int, path: bytes, bodies: list[bytes], statuses: list[int]) -> None:
    reader = writer = None
    for body in bodies:
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % (path, len(body)) + body)
        answer = Answer()
        parser = httptools.HttpResponseParser(answer)
        while not answer.is_complete:
            received = await asyncio.wait_for(reader.read(65_536), 20)
            assert received, f"the connection ended without an answer to {body[:80]!r}"
            parser.feed_data(received)
        statuses.append(parser.get_status_code())
        if statuses[-1] != 200:
            problem = json.loads(answer.body)
            assert problem["what"], body[:80]
            assert len(answer.body) < 20_000, body[:80]
        if not parser.should_keep_alive():
            writer.close()
            writer = None
    if writer is not None:
        writer.close()


@pytest.mark.parametrize("path", ["predict", "predict/batch", "outcomes"])
def test_no_body_is_too_hostile(served, path):
    drawn = random.Random(path)
    bodies = [hostile(drawn) for _ in range(BODIES // 3 + 1)]
    statuses: list[int] = []
    process = psutil.Process(served.process.pid)
    before = process.memory_info().rss

    async def send() -> None:
        url = f"/v1/models/risk/{path}".encode()
        await asyncio.gather(*(post(served.port, url, bodies[n::CONNECTIONS], statuses) for n in range(CONNECTIONS)))

    asyncio.run(send())
    assert set(statuses) <= {200, 400, 413, 422}
    assert len(statuses) == len(bodies)
    assert process.memory_info().rss - before < 150 * 2**20
    assert served.predict({"files": 1, "stage": "prod"}).status == 200


def test_a_body_that_never_ends_is_given_up(served):
    """The limits of a record hold for chunks too, whose length is not declared."""

    async def send() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        head = b"POST /v1/models/risk/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(10):  # one by one: what is sent to a connection that is closed already loses the answer
            writer.write(b"10000\r\n" + b" " * 65_536 + b"\r\n")
            with suppress(TimeoutError):
                return await asyncio.wait_for(reader.read(100), 1)
        return b""

    assert asyncio.run(send()).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b'{"files": 1, "files": 2, "stage": "prod"}', 422, "files stands twice"),
        (b'{"files": 1, "stage": "a:b", "stage": "prod"}', 422, "stage stands twice"),
        (b'{"files": NaN, "stage": "prod"}', 400, "not JSON"),
        (b'{"files": 1, "stage": "prod"', 400, "not JSON"),
        (b"[" * 5_000, 400, "nested too deeply"),
        (b"[1]", 422, "not one JSON object"),
        (b'"\xff"', 400, "not JSON"),
    ],
)
def test_a_refusal_says_what_is_wrong(served, body, status, says):
    answer = served.predict(body)
    assert (answer.status, says in answer.json["what"]) == (status, True)
