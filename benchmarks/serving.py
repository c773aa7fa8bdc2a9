"""What ``skd serve`` does under load: 10,000 requests by 32 clients, 200 malformed uploads, made-up requests.

    python -m benchmarks.serving [--requests N] [--malformed N] [--json FILE]

A real ``skd serve`` process on this machine answers about one PNG of 128 x 128 a request; its student is an untrained
small:convnet for 64 x 64. The clients are 32 connections of one process, which send the next request as soon as they
have an answer; they take CPU from the server. Latency is from the first byte sent to the last received; beside p50 and
p99 of all requests stand the least and most of ten equal parts of the run. RSS is the server's, after 1,000 requests of
warming up (or a tenth), and at the end. Slow uploads send a byte a second until they are cut, all at the same time.
Schemathesis then makes up requests from the OpenAPI document; that whatever fits the document is accepted is not asked
of it: any bytes fit, and need be no image.
"""

import argparse
import asyncio
import collections
import contextlib
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.machine import describe_machine
from benchmarks.predict_throughput import make_bundle

CLIENTS, PARTS, BOUNDARY = 32, 10, "----benchmark"
KINDS = {"truncated": 422, "bomb": 422, "wrong type": 422, "empty": 422, "huge": 413, "slow": 408}


def png(pixels: np.ndarray | Image.Image) -> bytes:
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, "PNG")
    return file.getvalue()


def request(content: bytes) -> bytes:
    """Give the bytes of a POST with one file."""
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'.encode()
    body = part + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    head = (
        "POST /v1/predictions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def receive(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read an answer: its status and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.I)
    return int(head.split()[1]), await reader.readexactly(int(length[1]) if length else 0)


async def load(port: int, contents: list[bytes], count: int) -> tuple[list[float], collections.Counter]:
    """Send requests from all clients at once; give seconds in the order of their ends, and statuses."""
    numbers, seconds, statuses = iter(range(count)), [], collections.Counter()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            started = time.perf_counter()
            writer.write(contents[number % len(contents)])
            status, body = await receive(reader)
            seconds.append(time.perf_counter() - started)
            good = status == 200 and json.loads(body)["predictions"][0]["error"] is None
            statuses["200" if good else f"{status}, bad"] += 1
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return seconds, statuses


async def malformed(port: int, kind: str, content: bytes) -> str:
    """Send one bad upload; give the status and whether a message came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        whole = request(content)
        head = len(whole) - len(content) - 100 if kind == "slow" else len(whole)
        writer.write(whole[:head])
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            for byte in whole[head:]:
                await asyncio.sleep(1)
                writer.write(bytes([byte]))
                await writer.drain()

    sending = asyncio.create_task(send())
    status, body = await asyncio.wait_for(receive(reader), 120)
    sending.cancel()
    writer.close()
    message = all(json.loads(body)["error"][key] for key in ("where", "found", "expected"))
    return f"{status}{'' if message else ' without a message'}"


async def all_malformed(port: int, contents: dict[str, bytes], count: int) -> dict[str, dict[str, int]]:
    """Send bad uploads of all kinds in turn, slow ones side by side with each other and with the rest."""
    order = [list(contents)[number % len(contents)] for number in range(count)]
    slow = asyncio.gather(*(malformed(port, kind, contents[kind]) for kind in order if kind == "slow"))
    found = {kind: collections.Counter() for kind in contents}
    for kind in order:
        if kind != "slow":
            found[kind][await malformed(port, kind, contents[kind])] += 1
    found["slow"] = collections.Counter(await slow)
    return {kind: dict(statuses) for kind, statuses in found.items()}


def resident(process: int) -> float:
    """Give a process's resident memory in MiB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[1]) / 1024


def schemathesis(port: int, folder: Path) -> dict[str, object]:
    """Run Schemathesis on the OpenAPI document."""
    run = "from schemathesis.cli import schemathesis; schemathesis()"
    options = ["--exclude-checks", "positive_data_acceptance", "--max-examples", "200", "--seed", "1", "--no-color"]
    command = [sys.executable, "-c", run, "run", f"http://127.0.0.1:{port}/openapi.json", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    cases = re.search(r"Test cases:\s+(.+)", done.stdout)
    return {"exit": done.returncode, "cases": cases[1] if cases else done.stdout[-2000:]}


def quantiles(seconds: list[float]) -> dict[str, float]:
    return {"p50": 1000 * statistics.median(seconds), "p99": 1000 * float(np.quantile(seconds, 0.99))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--malformed", type=int, default=200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    images = [png(np.clip(random.normal(m, 30, (128, 128)), 0, 255).astype(np.uint8)) for m in range(40, 200, 5)]
    bad = {
        "truncated": images[0][:-2000],
        "bomb": png(Image.new("1", (12_000, 12_000))),
        "wrong type": b"%PDF-1.7 no image at all",
        "empty": b"",
        "huge": bytes(33 * 2**20),
        "slow": images[0],
    }
    with tempfile.TemporaryDirectory() as name:
        make_bundle(Path(name), 64)
        command = [sys.executable, "-m", "subclass_kd.cli", "serve", name, "--port", "0"]
        log = Path(name) / "log"
        environment = {key: value for key, value in os.environ.items() if key != "SKD_TOKEN"}
        with log.open("w") as file, subprocess.Popen(command, stderr=file, env=environment) as server:
            try:
                result = measure(server, log, [request(image) for image in images], bad, arguments)
            finally:
                server.terminate()
    result["exit"] = server.returncode
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def measure(
    server: subprocess.Popen, log: Path, good: list[bytes], bad: dict[str, bytes], arguments: argparse.Namespace
) -> dict:
    while (address := re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text())) is None:
        assert server.poll() is None, log.read_text()
        time.sleep(0.05)
    port = int(address[1])
    asyncio.run(load(port, good, min(1000, arguments.requests // 10)))
    before = resident(server.pid)
    started = time.perf_counter()
    seconds, statuses = asyncio.run(load(port, good, arguments.requests))
    taken = time.perf_counter() - started
    after = resident(server.pid)
    parts = [quantiles([float(one) for one in part]) for part in np.array_split(seconds, PARTS)]
    found = asyncio.run(all_malformed(port, bad, arguments.malformed))
    _, then = asyncio.run(load(port, good, CLIENTS))
    return {
        "machine": describe_machine(),
        "clients": CLIENTS,
        "requests": arguments.requests,
        "statuses": dict(statuses),
        "requests_per_second": arguments.requests / taken,
        "milliseconds": quantiles(seconds),
        "milliseconds_of_tenths": {
            key: [min(part[key] for part in parts), max(part[key] for part in parts)] for key in ("p50", "p99")
        },
        "rss_mib": {"before": before, "after": after, "after_malformed": resident(server.pid)},
        "malformed": found,
        "afterwards": dict(then),
        "schemathesis": schemathesis(port, log.parent),
        "lives": server.poll() is None,
    }


def show(result: dict) -> None:
    spread, rss = result["milliseconds_of_tenths"], result["rss_mib"]
    print(f"{result['requests']:,} requests, {result['clients']} clients; answers {result['statuses']}")
    print(f"{result['requests_per_second']:.0f} a second; ", end="")
    for key in ("p50", "p99"):
        print(f"{key} {result['milliseconds'][key]:.1f} ms ({spread[key][0]:.1f} to {spread[key][1]:.1f}); ", end="")
    print(f"RSS {rss['before']:.1f} -> {rss['after']:.1f} MiB, after malformed {rss['after_malformed']:.1f}")
    for kind, statuses in result["malformed"].items():
        print(f"{kind}: {statuses}{'' if set(statuses) == {str(KINDS[kind])} else ' UNEXPECTED'}")
    print(f"afterwards {result['afterwards']}; schemathesis {result['schemathesis']}; exit {result['exit']}")


if __name__ == "__main__":
    main()
