"""Weights by their published names: put in, refused, fetched once and known again."""

import hashlib
import importlib
import json
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlx.core as mx
import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from PIL import Image

from fewshot import DataError, ImageFolderOptions
from fewshot.data.images import picture
from fewshot_pretrained.networks import vit
from fewshot_pretrained.networks.hub import NOTE, Published, as_published, fetch, initialise, load
from fewshot_pretrained.networks.published import FILE, PublishedOptions

SHAPE = (32, 32, 3)
PUBLISHED = Published("owner/network", "MIT", "noise", others=("fc.",))


def as_torch(network):
    """Its tensors in PyTorch's layout, with what a published file holds besides."""
    tensors = {
        name: value.transpose(0, 3, 1, 2) if value.ndim == 4 else value
        for name, value in tree_flatten(network.parameters())
    }
    return {**tensors, "fc.weight": mx.zeros((2, 2)), "bn.num_batches_tracked": mx.array(3)}


def written(path, tensors):
    mx.save_safetensors(str(path), tensors)
    return path


def test_weights_by_name_make_the_same_network(network, tmp_path):
    name, factory, options = network
    mx.random.seed(1)
    one, other = factory(options(), SHAPE), factory(options(), SHAPE)
    path = written(tmp_path / "a.safetensors", as_torch(one))
    images = mx.random.normal((2, *SHAPE))
    one.eval()
    other.eval()
    assert not np.array_equal(one(images), other(images))
    initialise(name, PUBLISHED, other, options(weights=str(path)))
    np.testing.assert_array_equal(one(images), other(images))


def test_half_precision_is_read_as_float32(resnet, tmp_path):
    network = resnet(PublishedOptions(), SHAPE)
    halves = {name: value.astype(mx.float16) for name, value in as_torch(network).items()}
    path = written(tmp_path / "a.safetensors", halves)
    initialise("resnet", PUBLISHED, network, PublishedOptions(weights=str(path)))
    assert {value.dtype for _, value in tree_flatten(network.parameters())} == {mx.float32}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors.pop("conv1.weight"), "lack conv1.weight"),
        (lambda tensors: tensors.update(new=mx.zeros(1)), "also have new"),
        (lambda tensors: tensors.update({"bn1.bias": mx.zeros(3)}), r"bn1.bias is \(3,\)"),
    ],
)
def test_weights_of_another_network_are_refused(resnet, change, says):
    network = resnet(PublishedOptions(), SHAPE)
    tensors = as_torch(network)
    change(tensors)
    with pytest.raises(DataError, match=says):
        load(network, tensors, PUBLISHED.others, "they")


def test_what_is_no_safetensors_file_is_refused(resnet, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\x80\x02}q\x00.")  # a pickle
    network = resnet(PublishedOptions(), SHAPE)
    with pytest.raises(DataError, match="not a safetensors file"):
        initialise("resnet", PUBLISHED, network, PublishedOptions(weights=str(path)))


def test_missing_weights_name_the_ways_out(resnet, tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path))
    network = resnet(PublishedOptions(), SHAPE)
    with pytest.raises(DataError) as error:
        initialise("resnet18", PUBLISHED, network, PublishedOptions())
    for way in ("fewshot fetch backbone/resnet18", "backbone.weights=PATH", "MIT"):
        assert way in str(error.value)
    initialise("resnet18", PUBLISHED, network, PublishedOptions(weights="none"))


@pytest.mark.parametrize("shape", [(24, 40, 3), (8, 16, 3), (64, 64, 3)])
@pytest.mark.parametrize("placed", [0, 1])
def test_positions_of_another_size_are_resampled(shape, placed):
    """A row and a column of positions, by Pillow; those of the class token stay."""
    plan = vit.Plan(patch=8, width=8, heads=2, depth=1, placed=placed)
    published, ours = (vit.ViT(plan, vit.ViTOptions(), s) for s in (SHAPE, shape))
    load(ours, as_torch(published), ("fc.",), "they")
    grid = np.array(published.pos_embed[0, placed:]).reshape(4, 4, -1)
    rows, columns = shape[0] // 8, shape[1] // 8
    found = np.array(ours.pos_embed[0])
    np.testing.assert_array_equal(found[:placed], published.pos_embed[0, :placed])
    for channel in (0, 5):
        image = Image.fromarray(np.ascontiguousarray(grid[..., channel]))
        due = np.asarray(image.resize((columns, rows), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(found[placed:, channel].reshape(rows, columns), due, atol=1e-5)


@settings(max_examples=5)
@given(st.integers(20, 90), st.integers(4, 20))
def test_the_published_view_is_the_middle_of_a_larger_one(side, half):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    image, size = Image.fromarray(pixels), 2 * half
    whole = as_published(image, evolve(PUBLISHED, size=2 * size))
    view = as_published(image, evolve(PUBLISHED, size=size, crop=0.5))
    np.testing.assert_array_equal(view, whole[half:-half, half:-half])


@settings(max_examples=5)
@given(st.integers(8, 60), st.sampled_from(["bilinear", "bicubic"]))
def test_a_square_image_is_read_as_the_published_view_where_nothing_is_cut(side, interpolation):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    published = evolve(PUBLISHED, size=16, interpolation=interpolation)
    read = ImageFolderOptions(**published.implied()["dataset"])
    view = as_published(Image.fromarray(pixels), published)
    np.testing.assert_array_equal(picture(pixels, (16, 16, 3), read).image, view)


@pytest.mark.parametrize("shape", [(16, 16), (16, 48), (48, 16)])
def test_an_image_of_its_size_is_seen_as_it_is(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    top, left = ((side - 16) // 2 for side in shape)
    view = as_published(Image.fromarray(pixels), evolve(PUBLISHED, size=16))
    np.testing.assert_array_equal(view, pixels[top : top + 16, left : left + 16])


# ------------------------------------------------------------------------ the hub, served here


class Hub:
    """What a hub answers about one repository, and how often it was asked for the file."""

    def __init__(self):
        self.content, self.revision, self.lfs, self.sent = b"weights", "a" * 40, True, 0
        self.files = (FILE,)
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(body=True)

            def do_HEAD(self):
                self.answer(body=False)

            def answer(self, body):
                digest = hashlib.sha256(hub.content).hexdigest()
                if self.path.startswith("/api/models/owner/network"):
                    file = {"size": len(hub.content)}
                    if hub.lfs:
                        file["lfs"] = {"sha256": digest, "size": len(hub.content), "pointerSize": 1}
                    content = json.dumps(
                        {
                            "id": "owner/network",
                            "sha": hub.revision,
                            "siblings": [{"rfilename": name, **file} for name in hub.files],
                            "cardData": {"license": "cc-by-4.0"},
                        }
                    ).encode()
                elif self.path in {f"/owner/network/resolve/{hub.revision}/{n}" for n in hub.files}:
                    content = hub.content
                    hub.sent += body
                else:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", f'"{digest}"')
                self.send_header("X-Repo-Commit", hub.revision)
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hub(monkeypatch):
    library = pytest.importorskip("huggingface_hub")
    hub = Hub()
    address = f"http://127.0.0.1:{hub.server.server_port}"
    # Read from the environment on import, by whichever test came first.
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(library, "HfApi", partial(library.HfApi, endpoint=address))
    monkeypatch.setattr(
        library, "hf_hub_download", partial(library.hf_hub_download, endpoint=address)
    )
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def nothing(*_):
    pass


def test_size_and_licence_are_said_before_the_file_comes(hub, tmp_path, capsys):
    fetch(PUBLISHED, tmp_path, nothing)
    said = capsys.readouterr().err
    assert "0 MB" in said
    assert "cc-by-4.0" in said
    assert (tmp_path / FILE).read_bytes() == hub.content
    note = json.loads((tmp_path / NOTE).read_text())
    assert note["sha256"] == {FILE: hashlib.sha256(hub.content).hexdigest()}
    assert note["revision"] == hub.revision


def test_what_is_there_is_not_brought_again(hub, tmp_path):
    for _ in range(2):
        fetch(PUBLISHED, tmp_path, nothing)
    assert hub.sent == 1


def test_what_is_brought_again_must_be_what_came_first(hub, tmp_path):
    fetch(PUBLISHED, tmp_path, nothing)
    (tmp_path / FILE).unlink()
    hub.content = b"forged!"
    with pytest.raises(DataError, match="another"):
        fetch(PUBLISHED, tmp_path, nothing)
    assert not (tmp_path / FILE).exists()


def test_a_pinned_file_is_the_only_one_that_is_taken(hub, tmp_path):
    with pytest.raises(DataError, match="another"):
        fetch(evolve(PUBLISHED, sha256="0" * 64), tmp_path, nothing)
    assert not (tmp_path / FILE).exists()
    fetch(evolve(PUBLISHED, sha256=hashlib.sha256(hub.content).hexdigest()), tmp_path, nothing)


def test_a_file_that_was_changed_here_is_told(resnet, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path))
    folder = tmp_path / "resnet18"
    fetch(PUBLISHED, folder, nothing)
    (folder / FILE).write_bytes(b"other")
    with pytest.raises(DataError, match="not the file that was fetched"):
        fetch(PUBLISHED, folder, nothing)
    network = resnet(PublishedOptions(), SHAPE)
    with pytest.raises(DataError, match="not the file that was fetched"):
        initialise("resnet18", PUBLISHED, network, PublishedOptions())


def test_a_repository_that_is_not_there_is_one_line(hub, tmp_path):
    with pytest.raises(DataError, match="owner/nothing") as error:
        fetch(evolve(PUBLISHED, repository="owner/nothing"), tmp_path, nothing)
    assert "\n" not in str(error.value)


def test_what_reads_names_comes_too_and_is_known_again(hub, tmp_path):
    hub.files = (FILE, "text.safetensors", "tokenizer.json")
    text = evolve(PUBLISHED, files=hub.files[1:])
    published = evolve(PUBLISHED, text=text)
    fetch(published, tmp_path, nothing)
    note = json.loads((tmp_path / "text" / NOTE).read_text())
    digest = hashlib.sha256(hub.content).hexdigest()
    assert note["sha256"] == dict.fromkeys(text.files, digest)
    assert (tmp_path / FILE).read_bytes() == hub.content
    sent = hub.sent
    fetch(published, tmp_path, nothing)
    assert hub.sent == sent == 3
    (tmp_path / "text" / "tokenizer.json").write_bytes(b"another")
    with pytest.raises(DataError, match="not the file that was fetched"):
        fetch(published, tmp_path, nothing)
    hub.files = (FILE,)
    with pytest.raises(DataError, match="has no text"):
        fetch(published, tmp_path / "new", nothing)
