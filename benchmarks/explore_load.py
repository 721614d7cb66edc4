"""The explorer's server under load: many people search at once, and texts that wait are encoded together.

    python benchmarks/explore_load.py [--images 1000] [--clients 50] [--seconds 30] [--threads N]

Scenes pictures (made here) are scored with the packaged CLIP; a real server on loopback, a process of its own, then
answers clients that each send the next sentence as soon as the last answer is there. Every sentence is another one,
and there is no cache. The rival, in the same run, is the same server calling the model for one text at a time
(`make_app(batch=1)`). Reported: answers a second, time to an answer (p50, p99), errors, the server's memory after the
warm-up and at the end. The floor: one text through the model and one pass over the images' vectors, called directly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from measure import table

WARM = 5.0  # seconds before anything counts
ASSETS = Path(__file__).resolve().parents[1] / "src" / "tiir" / "assets"


def prepare(folder: Path, images: int) -> None:
    from tiir import models
    from tiir.data.sources import scenes
    from tiir.report.chunks import data_script
    from tiir.scoring.dense import score_dual

    data = scenes.prepare(folder / "data", split="test", n=images)
    data.save(folder / "data")
    score_dual(models.load(str(ASSETS / "scenes-clip"), device="cpu"), data, folder / "data", folder / "clip")
    (folder / "site" / "data").mkdir(parents=True)
    (folder / "site" / "index.html").write_text("<!doctype html>")
    (folder / "site" / "data" / "site.js").write_text(data_script("site", {"runs": [{"name": "clip"}]}))


def load(folder: Path):  # -> Dataset, Search
    from tiir.data.dataset import Dataset
    from tiir.data.protocols import resolve
    from tiir.report.live import live_runs
    from tiir.report.search import Search
    from tiir.scoring.run import Run

    data = Dataset.load(folder / "data")
    return data, Search(live_runs([Run.load(folder / "clip")], data, device="cpu"), resolve("own", data))


def server(folder: Path, batch: int, threads: int) -> None:
    import torch

    from tiir.report.explore import listen, serve
    from tiir.report.guard import LOG
    from tiir.report.judged import JudgementFile
    from tiir.report.serve import make_app

    torch.set_num_threads(threads)
    data, search = load(folder)
    judged = JudgementFile(folder / "judgements.jsonl", data)
    app = make_app(folder / "site", data, search, judged, batch=batch)
    bound = listen("127.0.0.1", 0)
    LOG.addHandler(__import__("logging").NullHandler())
    (folder / "port").write_text(str(bound.getsockname()[1]))
    serve(app, bound, "127.0.0.1", None, say=lambda text: None)


class Client:
    """HTTP/1.1 over one kept connection: as little work as possible, since it shares the machine with the server."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def search(self, text: str) -> tuple[int, dict]:
        body = json.dumps({"text": text, "depth": 10}).encode()
        self.writer.write(
            b"POST /api/search/text HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Tiir: 1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        head = await self.reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        answer = await self.reader.readexactly(int(fields[b"content-length"]))
        return int(head.split()[1]), json.loads(answer)


async def drive(port: int, process: psutil.Process, clients: int, seconds: float, texts: list[str]) -> dict:
    times: list[float] = []
    errors, n, start = 0, 0, time.perf_counter()
    memory: list[int] = []

    async def person() -> None:
        nonlocal errors, n
        client = Client(port)
        await client.open()
        while (now := time.perf_counter()) < start + WARM + seconds:
            text = f"{texts[n % len(texts)]} {n}"
            n += 1
            status, answer = await client.search(text)
            if now >= start + WARM:
                times.append(time.perf_counter() - now)
                errors += status != 200 or len(answer["results"][0]["candidates"]) != 10

    async def watch() -> None:
        await asyncio.sleep(WARM)
        while time.perf_counter() < start + WARM + seconds:
            memory.append(process.memory_info().rss)
            await asyncio.sleep(0.5)

    await asyncio.gather(watch(), *(person() for _ in range(clients)))
    spent = time.perf_counter() - start - WARM
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "rate": len(times) / spent,
        "p50": p50,
        "p99": p99,
        "errors": errors,
        "answers": len(times),
        "memory": (memory[0], memory[-1]),
    }


def measure(folder: Path, batch: int, threads: int, clients: int, seconds: float, texts: list[str]) -> dict:
    port = folder / "port"
    port.unlink(missing_ok=True)
    command = [
        sys.executable,
        __file__,
        "--serve",
        str(folder),
        "--batch",
        str(batch),
        "--threads",
        str(threads),
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            while not port.exists() or not port.read_text():
                if process.poll() is not None:
                    raise SystemExit("the server did not start")
                time.sleep(0.1)
            return asyncio.run(
                drive(int(port.read_text()), psutil.Process(process.pid), clients, seconds, texts)
            )
        finally:
            process.terminate()


def floor(folder: Path, texts: list[str], threads: int) -> tuple[float, float]:
    """Median seconds of one text through the model, and of one pass over the vectors with the search's own top 10."""
    import torch

    torch.set_num_threads(threads)
    _, search = load(folder)
    encoded, searched = [], []
    for text in texts[:60]:
        start = time.perf_counter()
        (vectors,) = search.encode([text])
        middle = time.perf_counter()
        search.text(text, vectors, 10)
        encoded.append(middle - start)
        searched.append(time.perf_counter() - middle)
    return float(np.median(encoded[10:])), float(np.median(searched[10:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="of torch")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=32, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        server(options.serve, options.batch, options.threads)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.images)
        texts = list(load(folder)[0].captions)
        random.Random(0).shuffle(texts)
        encoded, searched = floor(folder, texts, options.threads)
        print(
            f"{options.images:,} images, {options.threads} torch threads; floor: {1000 * encoded:.1f} ms for a text "
            f"through the model, {1000 * searched:.2f} ms for its ten best images",
            flush=True,
        )
        found, rows = {}, []
        for what, batch in (("one text at a time", 1), ("texts together", 32)):
            found[what] = got = measure(
                folder, batch, options.threads, options.clients, options.seconds, texts
            )
            before, after = (size / 2**20 for size in got["memory"])
            times = f"{1000 * got['p50']:.0f}", f"{1000 * got['p99']:.0f}"
            errors = f"{got['errors']} of {got['answers']:,}"
            rows.append((what, f"{got['rate']:.0f}", *times, errors, f"{before:.0f} -> {after:.0f}"))
    print(f"{options.clients} clients search for {options.seconds:.0f} s")
    table(["", "answers/s", "p50, ms", "p99, ms", "errors", "memory, MB"], rows)
    alone, together = found["one text at a time"], found["texts together"]
    grown = together["memory"][1] / together["memory"][0]
    print(
        f"together {together['rate'] / alone['rate']:.2f}x the answers; memory x{grown:.3f} (at most 1.1), no error"
    )
    if grown > 1.1 or alone["errors"] or together["errors"]:
        raise SystemExit("the claim does not hold here")


if __name__ == "__main__":
    main()
