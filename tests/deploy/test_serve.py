"""The page that serves a classifier: what it answers, whom it refuses, and what it keeps."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from werkzeug.test import Client, TestResponse

import fewshot as fs
from fewshot.catalogue.loading import build_registry
from fewshot.core.errors import OutputError
from fewshot.deploy.serve import LARGEST_BODY, Desk, application, listening

HERE = {"base_url": "http://127.0.0.1:8100"}


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a few steps on small noise: enough to embed with."""
    from fewshot.experiments.config import resolve
    from fewshot.experiments.run import run

    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(7), 12)
    tints = rng.integers(0, 200, (7, 1, 1, 3))[labels]
    images = np.clip(rng.normal(tints, 30, (84, 16, 16, 3)), 0, 255).astype(np.uint8)
    np.savez(folder / "images.npz", images=images, labels=labels)
    registry, _ = build_registry()
    layer = {
        "dataset": {"name": "arrays", "path": str(folder / "images.npz")},
        "backbone": {"name": "conv4", "width": 4},
        "training": {"steps": 2, "validate_every": 2},
        "evaluation": {"k_shot": [1], "repeats": 2, "pairs": 20},
        "split": {"val_fraction": 0.3, "test_fraction": 0.3},
    }
    return run(resolve(registry, [layer]), registry, folder / "run")


@pytest.fixture
def path(untaught: Path, tmp_path: Path) -> Path:
    file = tmp_path / "signs.fewshot"
    fs.Classifier.load(untaught).enrol({"red": [pattern(1)], "blue": [pattern(2)]}).save(file)
    return file


@pytest.fixture
def client(path: Path) -> Client:
    return Client(application(Desk(path)))


def pattern(number: int) -> np.ndarray:
    """Coloured blocks that look like no other number's."""
    blocks = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def jpeg(image: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG")
    return file.getvalue()


def ask(client: Client, content: bytes, **more: Any) -> TestResponse:
    return client.post("/api/predict", data=content, **{**HERE, **more})


def enrol(client: Client, name: str, *images: bytes) -> TestResponse:
    files = [(BytesIO(image), f"{i}.jpg") for i, image in enumerate(images)]
    return client.post("/api/enrol", data={"name": name, "image": files}, **HERE)


def names(reply: Any) -> list[str]:
    return [each["name"] for each in reply.get_json()["classes"]]


# --------------------------------------------------------------------------- what it answers


def test_an_image_gets_the_answer_that_the_library_gives(client: Client, path: Path) -> None:
    content = jpeg(pattern(1))
    answer = ask(client, content).get_json()
    with Image.open(BytesIO(content)) as image:
        (expected,) = fs.Classifier.load(path).predict([image])
    assert answer["best"] == expected.best == "red"
    assert answer["distance"] == pytest.approx(expected.distance, abs=1e-5)
    assert len(answer["nearest"]) == 2


def test_what_is_enrolled_is_known_and_saved(client: Client, path: Path) -> None:
    reply = enrol(client, "grün", jpeg(pattern(3)), jpeg(pattern(4)))
    assert names(reply) == ["red", "blue", "grün"]
    assert ask(client, jpeg(pattern(3))).get_json()["nearest"][0]["label"] == "grün"
    assert fs.Classifier.load(path).counts() == {"red": 1, "blue": 1, "grün": 2}


def test_support_images_are_shown_and_removed_one_by_one(client: Client, path: Path) -> None:
    enrol(client, "red", jpeg(pattern(5)))
    of_red = client.get("/api/classes", **HERE).get_json()["classes"][0]["images"]
    assert len(of_red) == 2
    shown = client.get(f"/api/support/{of_red[1]['sha256']}.png", **HERE)
    assert Image.open(BytesIO(shown.data)).size == (16, 16)
    what = {"name": "red", "sha256": of_red[0]["sha256"]}
    assert client.post("/api/remove", json=what, **HERE).status_code == 200
    assert fs.Classifier.load(path).counts()["red"] == 1


def test_a_class_is_removed(client: Client, path: Path) -> None:
    assert names(client.post("/api/remove", json={"name": "red"}, **HERE)) == ["blue"]
    assert fs.Classifier.load(path).classes == ("blue",)


def test_the_last_change_is_taken_back_and_so_is_that(client: Client, path: Path) -> None:
    assert client.post("/api/undo", json={}, **HERE).status_code == 400
    before = client.get("/api/classes", **HERE).get_json()
    client.post("/api/remove", json={"name": "red"}, **HERE)
    assert client.post("/api/undo", json={}, **HERE).get_json() == before
    assert fs.Classifier.load(path).classes == ("red", "blue")
    assert names(client.post("/api/undo", json={}, **HERE)) == ["blue"]


def test_the_page_is_told_the_file_and_its_network_and_gives_it(client: Client, path: Path) -> None:
    told = client.get("/api/classes", **HERE).get_json()
    assert (told["file"], told["model"], told["shape"]) == ("signs.fewshot", "conv4", [16, 16, 3])
    assert client.get("/api/file", **HERE).data == path.read_bytes()


@pytest.mark.parametrize("file", ["", "page.js", "page.css"])
def test_the_page_names_no_other_address(client: Client, file: str) -> None:
    reply = client.get(f"/{file}", **HERE)
    assert reply.status_code == 200
    assert "default-src 'self'" in reply.headers["Content-Security-Policy"]
    assert "//" not in reply.text.replace("// ", "").replace("// -", "")


# ------------------------------------------------------------------------- whom it refuses


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "192.168.0.7:8100", "localhost.evil.example", "", "[::1", "[", "]", "@",
        "a@b:c", "127.0.0.1:x", "localhost:99999", "127.0.0.1:-1", "localhost:0", "[localhost]",
        "\xe4", "a b",
    ],
)  # fmt: skip
def test_another_host_name_is_refused(client: Client, host: str) -> None:
    """A name of someone else's that points to 127.0.0.1 would let their page read ours."""
    assert client.get("/", headers={"Host": host}).status_code in (400, 403)
    assert ask(client, jpeg(pattern(6)), headers={"Host": host}).status_code in (400, 403)


def test_another_sites_page_is_refused(client: Client, path: Path) -> None:
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:9999",
        "https://127.0.0.1:8100",
    ):
        headers = {"Origin": origin}
        assert ask(client, jpeg(pattern(6)), headers=headers).status_code == 403
        reply = client.post("/api/remove", json={"name": "red"}, headers=headers, **HERE)
        assert reply.status_code == 403
    assert "red" in fs.Classifier.load(path).classes
    own = {"Origin": "http://127.0.0.1:8100"}
    assert ask(client, jpeg(pattern(6)), headers=own).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_another_site_cannot_probe_by_images_and_scripts(client: Client, site: str) -> None:
    """Such requests have no Origin: what tells them is Sec-Fetch-Site."""
    (image,) = client.get("/api/classes", **HERE).get_json()["classes"][0]["images"]
    address = f"/api/support/{image['sha256']}.png"
    for path in ("/", "/page.js", "/api/classes", address, "/api/nothing"):
        assert client.get(path, headers={"Sec-Fetch-Site": site}, **HERE).status_code == 403
    for own in ("none", "same-origin"):
        reply = client.get(address, headers={"Sec-Fetch-Site": own}, **HERE)
        assert reply.status_code == 200
        assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_half_open_connections_shut_no_other_out(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(path)
    server = listening(desk, 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    address = ("127.0.0.1", server.effective_port)
    half_open = [socket.create_connection(address) for _ in range(200)]
    try:
        begun = [b"", b"GET / HT", b"POST /api/enrol HTTP/1.1\r\nContent-Length: 9\r\n"]
        for each, sent in zip(half_open, cycle(begun), strict=False):
            each.sendall(sent)
        for _ in range(3):
            with urlopen(f"http://127.0.0.1:{address[1]}/api/classes", timeout=10) as reply:
                assert reply.status == 200
        assert not caplog.records  # no warnings of queues and limits
    finally:
        for each in half_open:
            each.close()
        server.close()
        thread.join(10)


def test_a_port_that_is_none_is_named(path: Path) -> None:
    desk = Desk(path)
    with pytest.raises(OutputError, match="port 70000"):
        listening(desk, 70000)


def broken_form() -> dict[str, Any]:
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\nabc'
    return {"data": body, "content_type": "multipart/form-data; boundary=x"}


MALFORMED: dict[str, tuple[str, dict[str, Any], int]] = {
    "nothing": ("/api/predict", {"data": b""}, 400),
    "text": ("/api/predict", {"data": b"hello"}, 400),
    "a truncated image": ("/api/predict", {"data": jpeg(pattern(6))[:300]}, 400),
    "a huge body": ("/api/enrol", {"data": bytes(LARGEST_BODY + 1)}, 413),
    "a broken form": ("/api/enrol", broken_form(), 400),
    "a form without images": ("/api/enrol", {"data": {"name": "cup"}}, 400),
    "a form of text": ("/api/enrol", {"data": {"name": "cup", "image": "text"}}, 400),
    "an image that is none": (
        "/api/enrol", {"data": {"name": "cup", "image": (BytesIO(b"no"), "a.jpg")}}, 400,
    ),
    "an unprintable name": (
        "/api/enrol", {"data": {"name": "a\x07b", "image": (BytesIO(jpeg(pattern(6))), "a")}}, 400,
    ),
    "a name too long": (
        "/api/enrol", {"data": {"name": "é" * 128, "image": (BytesIO(jpeg(pattern(6))), "a")}}, 400,
    ),
    "no JSON": ("/api/remove", {"data": b"{", "content_type": "application/json"}, 400),
    "JSON too deep": (
        "/api/remove", {"data": b"[" * 200_000, "content_type": "application/json"}, 400,
    ),
    "JSON of another kind": ("/api/remove", {"json": ["red"]}, 400),
    "a class that is not there": ("/api/remove", {"json": {"name": "rad"}}, 400),
    "an image that is not there": ("/api/remove", {"json": {"name": "red", "sha256": "00"}}, 400),
    "no such address": ("/api/nothing", {}, 404),
    "a path out of the page's folder": ("/..%2Fserve.py", {"method": "GET"}, 404),
    "another method": ("/api/predict", {"method": "DELETE"}, 405),
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_request_is_one_line_and_changes_nothing(
    client: Client, path: Path, what: str
) -> None:
    address, request, status = MALFORMED[what]
    before = path.read_bytes()
    reply = client.open(address, **{"method": "POST", **HERE, **request})
    assert reply.status_code == status
    assert len(json.loads(reply.data)["error"].splitlines()) == 1
    assert path.read_bytes() == before
    assert ask(client, jpeg(pattern(1))).get_json()["best"] == "red"  # it goes on


def test_a_change_that_cannot_be_saved_does_not_count(client: Client, path: Path) -> None:
    path.unlink()
    path.mkdir()
    reply = client.post("/api/remove", json={"name": "red"}, **HERE)
    assert reply.status_code == 500
    assert str(path) in reply.get_json()["error"]
    assert names(client.get("/api/classes", **HERE)) == ["red", "blue"]


# ------------------------------------------------------------------------------ as a process


class Served:
    """`fewshot serve` in a process of its own; `address` is what it says."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fewshot", "serve", *map(str, arguments), "--port", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.address = self.line.partition(" is at ")[2].partition(" ")[0]

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=30)


def test_it_starts_from_a_run_and_ctrl_c_ends_it_quietly(untaught: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.fewshot"
    with Served(file, "--from", untaught) as served:
        assert served.address.startswith("http://127.0.0.1:")
        assert fs.Classifier.load(file).classes == ()
    assert served.process.returncode == 0
    assert served.process.stderr is not None
    assert "Traceback" not in served.line


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.mark.skipif(None in (CHROMIUM, DRIVER), reason="no Chromium with its driver is installed")
def test_classes_enrolled_by_camera_are_recognised_also_after_a_restart(
    untaught: Path, tmp_path: Path
) -> None:
    synthetic = pytest.importorskip("fewshot_asl.synthetic")
    data = synthetic.synthetic(synthetic.SyntheticOptions(size=96, images=1))
    films = {}
    for letter in ("L", "B"):
        films[letter] = tmp_path / f"{letter}.y4m"
        film(data[data.classes.index(letter)], films[letter])
    file = tmp_path / "signs.fewshot"
    with Served(file, "--from", untaught) as served:
        for letter, seen in films.items():
            with Browser(served.address, seen) as browser:
                browser.start_camera()
                browser.hold(letter)
                browser.wait_for_answer(letter)
                assert browser.text("speed").endswith("frames/s")
                assert browser.errors() == []
    assert fs.Classifier.load(file).classes == ("L", "B")
    with Served(file) as served, Browser(served.address, films["L"]) as browser:
        browser.start_camera()
        browser.wait_for_answer("L")
        assert len(browser.driver.find_elements("css selector", "#classes figure img")) >= 4


def film(image: np.ndarray, path: Path, frames: int = 30) -> None:
    """A still picture with a little noise as raw video, which Chromium takes for a camera."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        h, w, _ = image.shape
        file.write(f"YUV4MPEG2 W{w} H{h} F30:1 Ip A1:1 C420jpeg\n".encode())
        for _ in range(frames):
            noisy = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
            y, cb, cr = (
                np.asarray(plane) for plane in Image.fromarray(noisy).convert("YCbCr").split()
            )
            file.write(b"FRAME\n" + y.tobytes())
            file.write(cb[::2, ::2].tobytes() + cr[::2, ::2].tobytes())


class Browser:
    """Headless Chromium whose camera shows a film."""

    def __init__(self, address: str, seen: Path, size: str = "1000,900") -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-video-capture={seen}", f"--window-size={size}",
        ):  # fmt: skip
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        self.driver.get(address)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()

    def text(self, name: str) -> str:
        return self.driver.find_element("id", name).text

    def errors(self) -> list[str]:
        seen = [entry["message"] for entry in self.driver.get_log("browser")]
        return [self.text("error"), *seen] if self.text("error") else seen

    def start_camera(self) -> None:
        self.driver.find_element("id", "start").click()
        self.until(lambda: self.driver.find_element("id", "hold").is_enabled())

    def hold(self, name: str) -> None:
        """By keyboard: the name, on to the button, and the space bar held for a second."""
        from selenium.webdriver import ActionChains, Keys

        self.driver.find_element("id", "name").send_keys(name, Keys.TAB)
        ActionChains(self.driver).key_down(Keys.SPACE).pause(1).perform()
        assert self.text("answer") == ""  # nothing is said of what is being enrolled
        ActionChains(self.driver).key_up(Keys.SPACE).perform()
        self.until(lambda: "enrolled and saved" in self.text("status"))

    def wait_for_answer(self, name: str) -> None:
        self.until(lambda: self.text("answer") == name)

    def until(self, what: Any, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, (self.errors(), self.text("answer"), self.text("status"))
            time.sleep(0.05)


def test_the_limit_of_pixels_is_an_option(path: Path) -> None:
    for limit, status in ((1023, 400), (1024, 200)):
        desk = Desk(path, max_pixels=limit)
        file = BytesIO()
        Image.fromarray(pattern(1)).save(file, "PNG")  # 32 x 32
        assert ask(Client(application(desk)), file.getvalue()).status_code == status
