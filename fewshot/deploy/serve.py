"""A web page for one classifier, on this machine only: look, enrol, remove, all of it saved."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from attrs import define, evolve, field, frozen
from PIL import Image

from ..compute.threads import one_at_a_time
from ..core.errors import ConfigError, DataError, FewshotError, OutputError, one_line
from ..data.images import MAX_PIXELS, Picture, read
from ..engine.inference import Name
from .classifier import Classifier

try:
    from waitress import create_server
    from werkzeug.exceptions import BadRequest, Forbidden, HTTPException, NotFound
    from werkzeug.routing import Map, Rule
    from werkzeug.wrappers import Request, Response
except ImportError as error:
    raise ConfigError("serving wants two packages more: pip install 'fewshot[serve]'") from error

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# A burst of camera frames is a few MB, a photo from a phone up to twenty.
LARGEST_BODY = 64 << 20
_MOST_PARTS = 200

# A browser opens six. What others leave half open takes a file descriptor each, for a while.
_MOST_CONNECTIONS = 900
_PATIENCE = 20  # seconds without a byte

_TYPES = {"index.html": "text/html", "page.js": "text/javascript", "page.css": "text/css"}

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

T = TypeVar("T")


@define(eq=False)
class Desk:
    """The classifier of a file, as it is now.

    Questions and changes are answered on MLX's own thread, in the order in which they came. A
    change is saved before it counts. `run`: make the
    file first, without any class, from a run folder, `without_adapter` where it has one. `engine`:
    what embeds images; `max_pixels`: larger ones are refused;
    `hint`: a line for the user where "auto" fell back to MLX. Raises what
    `Classifier.load` does, OutputError where there is such a file already, and ConfigError for a
    head that looks at queries together and an engine that is not possible.
    """

    path: Path
    run: Path | None = None
    without_adapter: bool = False
    engine: Name = "auto"
    max_pixels: int = MAX_PIXELS
    hint: str = field(init=False, default="")
    _classifier: Classifier = field(init=False)
    _stamp: tuple[int, int, int] | None = field(init=False, default=None)
    # What the last change was taken from, and the state that it led to.
    _last: tuple[Classifier, str] | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        if self.run is not None:
            if self.path.exists():
                raise OutputError(f"{self.path} exists: serve it as it is, or name another file")
            made = Classifier.load(self.run, without_adapter=self.without_adapter)
            made.require_alone()
            made.save(self.path, new=True)
        classifier = evolve(Classifier.load(self.path), engine=self.engine)
        reading = evolve(classifier.reading, max_pixels=self.max_pixels)
        classifier = evolve(classifier, reading=reading)
        classifier.require_alone()
        self.hint = classifier.ready()
        self._classifier = classifier

    @one_at_a_time
    def ask(self, question: Callable[[Classifier], T]) -> T:
        """The answer to a question to the classifier, as its file has it now."""
        self._look()
        return question(self._classifier)

    @one_at_a_time
    def change(self, step: Callable[[Classifier], Classifier], seen: str | None = None) -> None:
        """Take a step and save its result. Where either fails all stays as it was.

        The step is taken from what the file holds now. `seen`: the state that it was decided on,
        if it is for no other: DataError where the file has been changed since.
        """

        taken_from: list[Classifier] = []

        def checked(now: Classifier) -> Classifier:
            taken_from[:] = [now]
            if seen is not None and seen != state(now):
                raise DataError(
                    "the classifier has been changed since this page showed it: look again, then "
                    "remove what is still to go"
                )
            return step(now)

        self._classifier = self._classifier.update(self.path, checked)
        self._last = (taken_from[0], state(self._classifier))

    def _look(self) -> None:
        """Take in what another program has made of the file; without one, what there was."""
        found = self.path.stat() if self.path.is_file() else None
        stamp = None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)
        if stamp is not None and stamp != self._stamp:
            self._classifier = self._classifier.current(self.path)
            self._stamp = stamp

    def undo(self) -> None:
        """Take the last change back; what is taken back is a change itself.

        Raises DataError where there was none, and where another program has made one since.
        """
        if self._last is None:
            raise DataError("nothing was changed that could be taken back")
        before, after = self._last
        self.change(lambda _: before, after)


@frozen
class _Upload:
    """Bytes that were sent, as a file that `images.read` can open."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name

    def open(self, _: str) -> BytesIO:
        return BytesIO(self.content)


def _picture(upload: _Upload, desk: Desk) -> Picture:
    """Decoded on the thread of its request: what takes its time keeps nobody else waiting."""
    shape, reading = desk.ask(lambda classifier: (classifier.shape, classifier.reading))
    decoded = read(upload, shape, reading)
    return Picture(decoded.image, upload.name, decoded.sha256)


# ------------------------------------------------------------------------------ the answers


def _overview(desk: Desk) -> dict[str, Any]:
    """The file, its network, and every class with its support images as they were enrolled."""
    return desk.ask(lambda classifier: {**_named(desk.path, classifier), **_support_of(classifier)})


def _named(path: Path, classifier: Classifier) -> dict[str, Any]:
    model = "" if classifier.recipe is None else classifier.recipe.backbone.name
    return {"file": path.name, "model": model, "shape": classifier.shape}


def _support_of(classifier: Classifier) -> dict[str, Any]:
    support = classifier.support
    images: dict[str, list[dict[str, str]]] = {name: [] for name in classifier.classes}
    for label, name, digest in zip(support.labels, support.names, support.sha256, strict=True):
        images[classifier.classes[label]].append({"name": name, "sha256": digest})
    of_classes = [{"name": name, "images": of} for name, of in images.items()]
    return {"state": state(classifier), "classes": of_classes}


def state(classifier: Classifier) -> str:
    """Names what is enrolled: equal states, equal classes and images."""
    support = classifier.support
    what = [*classifier.classes, "", *map(str, support.labels), *support.sha256]
    return sha256("\0".join(what).encode()).hexdigest()[:16]


def _png(digest: str) -> Callable[[Classifier], bytes]:
    def draw(classifier: Classifier) -> bytes:
        if digest not in classifier.support.sha256:
            raise NotFound(f"no support image has the SHA-256 {digest}")
        image = classifier.support.images[classifier.support.sha256.index(digest)]
        file = BytesIO()
        Image.fromarray(image.squeeze()).save(file, "PNG")
        return file.getvalue()

    return draw


def _page(_: Desk, __: Request, name: str = "index.html") -> Response:
    if name not in _TYPES:
        raise NotFound(f"no page '{name}'")
    text = files("fewshot.deploy").joinpath("web", name).read_text("utf-8")
    return Response(text, mimetype=_TYPES[name])


def _classes(desk: Desk, _: Request) -> Any:
    return _overview(desk)


def _undo(desk: Desk, _: Request) -> Any:
    """The state before the last change."""
    desk.undo()
    return _overview(desk)


def _file(desk: Desk, _: Request) -> Response:
    """The classifier file, as it is saved."""
    content = desk.ask(lambda _: desk.path.read_bytes())
    return Response(content, mimetype="application/octet-stream")


def _support(desk: Desk, _: Request, digest: str) -> Response:
    return Response(desk.ask(_png(digest)), mimetype="image/png")


def _predict(desk: Desk, request: Request) -> Any:
    """The body is an image file."""
    picture = _picture(_Upload("the image", request.get_data()), desk)

    def answer(classifier: Classifier) -> Any:
        (found,) = classifier.predict([picture])
        return {**found.facts(), "state": state(classifier)}

    return desk.ask(answer)


def _enrol(desk: Desk, request: Request) -> Any:
    """A form: `name`, and files `image`, one or more."""
    name = request.form.get("name", "").strip()
    uploads = [
        _Upload(file.filename or "camera", file.read()) for file in request.files.getlist("image")
    ]
    if not name or not uploads:
        raise BadRequest("enrolling wants a form with a name and at least one image")
    pictures = [_picture(upload, desk) for upload in uploads]
    desk.change(lambda c: c.enrol({name: pictures}))
    return _overview(desk)


def _remove(desk: Desk, request: Request) -> Any:
    """JSON: the `name` of a class and, for one image only, its `sha256`; `state`: what is shown."""
    try:
        asked = request.get_json()
    except RecursionError as error:
        raise BadRequest("this JSON is too deep") from error
    if not isinstance(asked, dict) or not isinstance(asked.get("name"), str):
        raise BadRequest('removing wants JSON such as {"name": "cup"}')
    name, image, seen = asked["name"], asked.get("sha256"), asked.get("state")
    if image is None:
        desk.change(lambda c: c.remove(name), None if seen is None else str(seen))
    else:  # which is the same image in any state
        desk.change(lambda c: c.remove_image(name, str(image)))
    return _overview(desk)


_ROUTES = Map(
    [
        Rule("/", endpoint=_page, methods=["GET"]),
        Rule("/<name>", endpoint=_page, methods=["GET"]),
        Rule("/api/classes", endpoint=_classes, methods=["GET"]),
        Rule("/api/support/<digest>.png", endpoint=_support, methods=["GET"]),
        Rule("/api/predict", endpoint=_predict, methods=["POST"]),
        Rule("/api/enrol", endpoint=_enrol, methods=["POST"]),
        Rule("/api/remove", endpoint=_remove, methods=["POST"]),
        Rule("/api/undo", endpoint=_undo, methods=["POST"]),
        Rule("/api/file", endpoint=_file, methods=["GET"]),
    ]
)


# ------------------------------------------------------------------------------- the server


class _Asked(Request):
    """A request of bounded size, the files of its form in memory."""

    max_content_length = LARGEST_BODY
    max_form_parts = _MOST_PARTS

    def _get_file_stream(self, *_: Any, **__: Any) -> BytesIO:
        return BytesIO()


def _check_sender(request: Request) -> None:
    """Only this machine's own pages: another site's, or a name bound to 127.0.0.1, is refused.

    Sec-Fetch-Site (W3C, "Fetch Metadata Request Headers") tells also requests without an Origin,
    such as those of images, by which a page could probe what there is.
    """
    try:
        host = urlsplit(f"//{request.headers.get('Host', '')}")
        known = host.hostname in ("localhost", "127.0.0.1") and host.port != 0
    except ValueError:  # of brackets that do not match, or a port that is none
        known = False
    if not known:
        raise Forbidden("this page answers to localhost only")
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise Forbidden("a page of another site may not ask here")
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"http://{request.headers['Host']}":
        raise Forbidden(f"a page of {origin} may not ask here")


def application(desk: Desk) -> WSGIApplication:
    """The page and what it asks, as a WSGI application. Errors are JSON: {"error": a line}."""

    def answer(request: Request) -> Response:
        try:
            _check_sender(request)
            endpoint, values = _ROUTES.bind_to_environ(request.environ).match()
            found = endpoint(desk, request, **values)
        except HTTPException as error:
            return _failed(error.code or 500, error.description or error.name)
        except FewshotError as error:
            return _failed(400 if isinstance(error, DataError) else 500, str(error))
        except Exception as error:  # such as a plugin's
            return _failed(500, one_line(error))
        return found if isinstance(found, Response) else _json(200, found)

    @_Asked.application
    def guarded(request: Request) -> Response:
        response = answer(request)
        response.headers.update(_HEADERS)
        return response

    return guarded


def _json(status: int, value: Any) -> Response:
    return Response(json.dumps(value), status, mimetype="application/json")


def _failed(status: int, line: str) -> Response:
    return _json(status, {"error": line})


def listening(desk: Desk, port: int) -> Any:
    """A server of a classifier on 127.0.0.1: `run()` answers, `close()` ends it.

    Port 0 takes a free one. Raises OutputError where the port is taken or is none. Connections that
    are half open for long are closed, and shut no other out.
    """
    if not 0 <= port < 1 << 16:
        raise OutputError(f"port {port}: there is none; name another --port")
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a burst of frames is as usual
    try:
        return create_server(
            application(desk), host="127.0.0.1", port=port, threads=4, ident="fewshot",
            max_request_body_size=LARGEST_BODY, connection_limit=_MOST_CONNECTIONS,
            channel_timeout=_PATIENCE, cleanup_interval=_PATIENCE // 4, asyncore_use_poll=True,
        )  # fmt: skip
    except OSError as error:
        raise OutputError(f"port {port}: {error.strerror}; name another --port") from error


def serve(desk: Desk, port: int, ready: Callable[[str], object]) -> None:
    """Serve a classifier on 127.0.0.1 until Ctrl-C; `ready` gets the address.

    Raises what `listening` does.
    """
    server = listening(desk, port)
    ready(f"http://127.0.0.1:{server.effective_port}")
    try:
        server.run()
    finally:
        server.close()
