"""A served classifier under faults: `python -m tests.faults.serve`, with `--full` for all counts.

Requests of every kind while 200 connections stand half open; kill -9 while classes are enrolled; a
pool of threads that asks a classifier and ends. Every figure is printed; what must not be ends it
with 1.
"""

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from io import BytesIO
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image

import fewshot as fs

HALF_OPEN = 200
SHAPE = (16, 16, 3)
RNG = random.Random(0)

POOL = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import fewshot as fs
fs.prepare()
classifier = fs.Classifier.load(sys.argv[1])
images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), np.uint8)
with ThreadPoolExecutor(4) as pool:
    found = [each[0] for each in pool.map(lambda image: classifier.predict(image), images)]
assert [f.facts() for f in found] == [classifier.predict(i)[0].facts() for i in images]
"""


def png(number: int) -> bytes:
    """Noise as a file."""
    pixels = np.random.default_rng(number).integers(0, 256, SHAPE, np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def first_file(folder: Path) -> Path:
    """A classifier of two classes, of a run of no step on noise."""
    rng = np.random.default_rng(0)
    np.savez(
        folder / "images.npz",
        images=rng.integers(0, 256, (60, *SHAPE), np.uint8), labels=np.arange(60) % 5,
    )  # fmt: skip
    command = [
        "run", "--data", folder / "images.npz", "--backbone", "conv4", "--set", "backbone.width=2",
        "--steps", "2", "--k-shot", "1", "--set", "evaluation.repeats=2", "--set",
        "split.val_fraction=0.4", "--set", "split.test_fraction=0.4", "--out", folder / "run",
    ]  # fmt: skip
    done = subprocess.run(fewshot(*command), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    file = folder / "noise.fewshot"
    few = {"a": [png_array(0)], "b": [png_array(1)]}
    fs.Classifier.load(folder / "run").enrol(few).save(file)
    return file


def png_array(number: int) -> np.ndarray:
    """The pixels of `png`."""
    return np.asarray(Image.open(BytesIO(png(number))))


def fewshot(*arguments: object) -> list[str]:
    """The command in a process of its own."""
    return [sys.executable, "-m", "fewshot", *map(str, arguments)]


class Served:
    """`fewshot serve` of a file, on a free port."""

    def __init__(self, file: Path) -> None:
        self.process = subprocess.Popen(
            fewshot("serve", file, "--port", 0),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.port = int(line.partition(" is at ")[2].partition(" ")[0].rpartition(":")[2])

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> int:
        """The status of an answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        reply = connection.getresponse()
        reply.read()
        connection.close()
        return reply.status

    def enrol(self, name: str, number: int) -> int:
        """Enrol an image of noise."""
        body = b"".join(
            [
                b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n' + name.encode(),
                b'\r\n--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n',
                b"\r\n" + png(number) + b"\r\n--x--\r\n",
            ]
        )
        return self.ask("POST", "/api/enrol", body, Content_Type="multipart/form-data; boundary=x")

    def end(self, how: signal.Signals = signal.SIGINT) -> str:
        """Its standard error."""
        self.process.send_signal(how)
        return self.process.communicate(timeout=60)[1]


def one_request(served: Served, number: int) -> tuple[str, bool]:
    """The kind of a request, and whether it was answered as it must be."""
    asked: dict[str, tuple[tuple[str, str, bytes], dict[str, str], tuple[int, ...]]] = {
        "image": (("POST", "/api/predict", png(number)), {}, (200,)),
        "classes": (("GET", "/api/classes", b""), {}, (200,)),
        "no image": (("POST", "/api/predict", RNG.randbytes(300)), {}, (400,)),
        "bad host": (("GET", "/", b""), {"Host": RNG.choice(["[::1", "evil", "a:b"])}, (400, 403)),
        "other site": (("GET", "/page.js", b""), {"Sec_Fetch_Site": "cross-site"}, (403,)),
        "other origin": (("POST", "/api/remove", b"{}"), {"Origin": "http://evil"}, (403,)),
        "deep JSON": (
            ("POST", "/api/remove", b"[" * 50_000), {"Content_Type": "application/json"}, (400,),
        ),
        "broken form": (
            ("POST", "/api/enrol", b"--x\r\n"),
            {"Content_Type": "multipart/form-data; boundary=x"}, (400,),
        ),
        "no page": (("GET", f"/{number}", b""), {}, (404,)),
    }  # fmt: skip
    kind = list(asked)[number % len(asked)]
    request, headers, right = asked[kind]
    try:
        return kind, served.ask(*request, **headers) in right
    except (OSError, HTTPException):
        return kind, False


def requests(file: Path, count: int) -> int:
    """Answer `count` requests with half-open connections standing; how many went wrong."""
    served = Served(file)
    idle = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(HALF_OPEN)]
    begun = [b"", b"GET / HT", b"POST /api/enrol HTTP/1.1\r\nContent-Length: 9\r\n"]
    for each, sent in zip(idle, cycle(begun), strict=False):
        each.sendall(sent)
    began, wrong, kinds = time.monotonic(), Counter[str](), Counter[str]()
    lock, waiting = threading.Lock(), iter(range(count))

    def work() -> None:
        while True:
            with lock:
                number = next(waiting, None)
            if number is None:
                return
            kind, right = one_request(served, number)
            with lock:
                kinds[kind] += 1
                wrong[kind] += not right

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in idle:
        each.close()
    said = served.end()
    print(
        f"{count} requests, {HALF_OPEN} connections half open: {count - wrong.total()} answered "
        f"rightly in {time.monotonic() - began:.0f} s {json.dumps(kinds)}; on stderr: {said!r}"
    )
    return wrong.total() + bool(said) + served.process.returncode


def kills(file: Path, count: int) -> int:
    """kill -9 at any moment of enrolling; how many acknowledged classes or files were lost."""
    known, lost = set(fs.Classifier.load(file).classes), 0
    for round_ in range(count):
        served = Served(file)
        timer = threading.Timer(RNG.uniform(0.1, 1.5), served.process.kill)
        timer.start()
        with suppress(OSError, HTTPException):
            for number in range(1000):
                name = f"{round_}-{number}"
                if served.enrol(name, 1000 * round_ + number) == 200:
                    known.add(name)
        timer.join()
        served.process.communicate()
        there = set(fs.Classifier.load(file).classes)
        lost += len(known - there)
        known = there
    left = [path.name for path in file.parent.iterdir() if path.name.startswith(".")]
    print(f"{count} kills while saving: {lost} of {len(known)} classes lost; left beside: {left}")
    return lost


def pools(file: Path, count: int) -> int:
    """Processes that ask from four threads and end; how many did not end with 0."""
    codes = Counter(
        subprocess.run([sys.executable, "-c", POOL, str(file)], check=False).returncode
        for _ in range(count)
    )
    print(f"{count} processes that predict from 4 threads ended with: {dict(codes)}")
    return count - codes[0]


def main() -> int:
    """Everything; how many faults there were."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true")
    full = parser.parse_args().full
    with tempfile.TemporaryDirectory() as folder:
        file = first_file(Path(folder))
        faults = requests(file, 1000 if full else 90)
        faults += pools(file, 20 if full else 3)
        faults += kills(file, 30 if full else 3)
    print("no fault" if not faults else f"{faults} FAULTS")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
