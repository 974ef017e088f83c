"""Pictures of the pages, taken by Chromium: `python -m docs --screens`, some minutes.

Whatever is in them is drawn signs. Chromium is spoken to over two pipes (its DevTools protocol), so
that nothing has to be installed beside it.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

import fewshot as fs
from fewshot.deploy.gallery import gallery
from fewshot.deploy.labelled import truth_of
from fewshot.deploy.serve import Desk, listening
from fewshot.reports.page import data_url

from .pictures import FOLDER, short_run

_ENROLLED, _OTHER = ("B", "E", "G", "L"), ("O", "U")
_CAMERA = """
const canvas = Object.assign(document.createElement("canvas"), { width: 240, height: 240 });
window.aim = async (source) => {
  const image = Object.assign(new Image(), { src: source });
  await image.decode();
  canvas.getContext("2d").drawImage(image, 0, 0, 240, 240);
};
window.sweep = (sources) => {
  let i = 0;
  clearInterval(window.sweeping);
  window.sweeping = setInterval(() => aim(sources[i++ % sources.length]), 120);
};
navigator.mediaDevices.getUserMedia = async () => canvas.captureStream(30);
"""


def take_all() -> None:
    """Take them all into `docs/pictures`."""
    with TemporaryDirectory() as place:
        take(short_run(Path(place) / "run", size=64))


def take(run: Path) -> None:
    """Take them of a run on drawn signs."""
    with TemporaryDirectory() as place, chromium() as browser:
        signs = _signs(Path(place))
        browser.size(1000, 1000)
        browser.open((run / "report.html").absolute().as_uri())
        _keep("report", browser.shot("section:has(.cards), section:has(#map)"))
        _answers(browser, run, signs, Path(place))
        _serve(browser, run, signs, Path(place))


def _keep(name: str, png: bytes) -> None:
    """A picture of photos, in a tenth of its bytes."""
    Image.open(BytesIO(png)).convert("RGB").save(FOLDER / f"{name}.webp", quality=85, method=6)


def _signs(folder: Path) -> dict[str, list[Path]]:
    """Pictures of the classes that no training has seen, as files."""
    from fewshot_asl.synthetic import SyntheticOptions, synthetic

    data = synthetic(SyntheticOptions(size=160, images=60))
    signs: dict[str, list[Path]] = {}
    for name in (*_ENROLLED, *_OTHER):
        (folder / name).mkdir()
        for i in np.flatnonzero(data.labels == data.classes.index(name))[:12]:
            path = folder / name / f"{i}.png"
            Image.fromarray(data[int(i)]).save(path)
            signs.setdefault(name, []).append(path)
    return signs


def _answers(browser: "Browser", run: Path, signs: dict[str, list[Path]], folder: Path) -> None:
    """Four classes enrolled, of each two pictures more asked about, and of two that are not."""
    mine = fs.Classifier.load(run).enrol({name: signs[name][:5] for name in _ENROLLED})
    asked = [path for name in (*_ENROLLED, *_OTHER) for path in signs[name][6:8]]
    page = folder / "answers.html"
    with gallery(page, mine, "signs.fewshot: answers", [str(folder)]) as written:
        for path, answer in zip(asked, mine.predict(asked, nearest=3), strict=True):
            written.add(str(path), answer, truth_of(str(path)))
    browser.size(1000, 800)
    browser.open(page.as_uri())
    _keep("answers", browser.shot("main"))


def _serve(browser: "Browser", run: Path, signs: dict[str, list[Path]], folder: Path) -> None:
    """Two classes enrolled from the camera, questions, a removal and its undoing."""
    desk = Desk(folder / "signs.fewshot", run)
    server = listening(desk, 0)
    threading.Thread(target=server.run, daemon=True).start()
    frames: list[tuple[bytes, int]] = []
    sources = {
        name: [data_url(np.array(Image.open(path)), 160) for path in of]
        for name, of in signs.items()
    }

    def frame(milliseconds: int) -> None:
        frames.append((browser.shot(), milliseconds))

    def show(name: str, i: int, expected: str) -> None:
        browser.run(f"clearInterval(sweeping); aim({json.dumps(sources[name][i])})")
        browser.wait(f'document.getElementById("answer").textContent === "{expected}"')
        time.sleep(1.5)  # until what is shown is of this picture alone
        frame(1600)

    browser.size(880, 560)
    browser.open(f"http://127.0.0.1:{server.effective_port}/")
    browser.wait("state !== null")
    browser.run(_CAMERA)
    frame(1800)
    browser.run('document.getElementById("start").click()')
    for name in ("L", "B"):
        browser.run(f"sweep({json.dumps(sources[name][:5])})")
        browser.run(f'document.getElementById("name").value = "{name}"')
        time.sleep(0.8)
        frame(1200)
        browser.run("void hold()")
        for _ in range(3):
            time.sleep(0.25)
            frame(350)
        browser.wait('Number(document.getElementById("taken").textContent.slice(2)) >= 12')
        browser.run("void release()")
        browser.wait('document.getElementById("status").textContent.includes("enrolled and saved")')
        time.sleep(0.5)
        frame(1200)
    for name in ("L", "B"):
        answers = desk.ask(partial(_predicted, signs[name][5:]))
        nearest = min(range(len(answers)), key=lambda i: answers[i].distance)
        show(name, 5 + nearest, name)

    asked = [(name, i) for name in ("G", "O", "E") for i in range(5)]
    answers = desk.ask(partial(_predicted, [signs[name][i] for name, i in asked]))
    farthest = max(range(len(asked)), key=lambda i: answers[i].distance)
    show(*asked[farthest], "unknown")
    browser.run('document.querySelector(".class:last-child h3 button").click()')
    browser.wait('!document.getElementById("undo").hidden')
    time.sleep(0.5)
    frame(1800)
    browser.run('document.getElementById("undo").click()')
    browser.wait('document.getElementById("status").textContent.includes("back")')
    time.sleep(0.5)
    frame(2200)
    browser.open("about:blank")
    time.sleep(1)  # until it has its last answer
    server.close()
    first, *others = (Image.open(BytesIO(png)).convert("RGB") for png, _ in frames)
    first.save(
        FOLDER / "serve.webp", save_all=True, append_images=others, loop=0, quality=60, method=6,
        duration=[milliseconds for _, milliseconds in frames],
    )  # fmt: skip


def _predicted(images: list[Path], mine: fs.Classifier) -> list[fs.Prediction]:
    return mine.predict(images)


class Browser:
    """A page in Chromium."""

    def __init__(self, to: int, of: int) -> None:
        self._to, self._of = os.fdopen(to, "wb", 0), os.fdopen(of, "rb", 0)
        self._numbers, self._read = count(1), b""
        self._session: str | None = None
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def _ask(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        asked = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            asked["sessionId"] = self._session
        self._to.write(json.dumps(asked).encode() + b"\0")
        while True:
            while b"\0" not in self._read:
                self._read += self._of.read(1 << 20)
            line, _, self._read = self._read.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == number:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def size(self, width: int, height: int) -> None:
        """The size of the window in pixels."""
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, mobile=False,
            deviceScaleFactor=1,
        )  # fmt: skip

    def run(self, script: str) -> Any:
        """What a script comes to in the page; its promise is waited for."""
        done = self._ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in done:
            sys.exit(f"{script[:80]}: {done['exceptionDetails']['exception']['description']}")
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until a script's value is true, for half a minute at most."""
        for _ in range(300):
            if self.run(condition):
                return
            time.sleep(0.1)
        sys.exit(f"never came true: {condition}")

    def open(self, address: str) -> None:
        """Go to a page."""
        self._ask("Page.navigate", url=address)
        self.wait(f"document.readyState === 'complete' && location.href === {json.dumps(address)}")

    def shot(self, selector: str | None = None) -> bytes:
        """A PNG of the window, or of all that a selector finds, however long."""
        clip = {}
        if selector is not None:
            box = self.run(
                f"""(() => {{ const all = [...document.querySelectorAll({json.dumps(selector)})]
                .map((each) => each.getBoundingClientRect());
                const top = Math.min(...all.map((of) => of.top)) + scrollY;
                return {{ x: 0, y: top, width: innerWidth, scale: 1,
                height: Math.max(...all.map((of) => of.bottom)) + scrollY - top }}; }})()"""
            )
            clip = {"clip": box, "captureBeyondViewport": True}
        return b64decode(self._ask("Page.captureScreenshot", **clip)["data"])


@contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium without a window."""
    found = [path for name in ("chromium", "google-chrome") if (path := shutil.which(name))]
    if not found:
        sys.exit("the pictures of the pages want Chromium or Chrome")
    (read, to), (of, write) = os.pipe(), os.pipe()
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        arguments = [
            "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--hide-scrollbars",
            f"--user-data-dir={profile}",
        ]  # fmt: skip
        process = _with_pipes([found[0], *arguments], read, write)
        os.close(read)
        os.close(write)
        try:
            yield Browser(to, of)
        finally:
            process.terminate()
            process.wait()


def _with_pipes(command: Sequence[str], read: int, write: int) -> subprocess.Popen[bytes]:
    """A process that reads its requests from descriptor 3 and writes to 4, as Chromium wants it."""
    return subprocess.Popen(
        ["sh", "-c", f'exec "$@" 3<&{read} 4>&{write}', "sh", *command],
        pass_fds=(read, write), stderr=subprocess.DEVNULL,
    )  # fmt: skip
