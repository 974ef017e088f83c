"""``prepare`` changes a whole process, so nearly every test asks a fresh one."""

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fewshot.compute import runtime
from fewshot.core.errors import ConfigError
from fewshot.core.machine import cores

linux_cpu = pytest.mark.skipif(
    sys.platform != "linux" or runtime._backend() != "cpu",
    reason="acts on Linux with MLX's CPU only",
)
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler here"
)

RECORD = """
import attrs, json
from fewshot.compute import runtime
print(json.dumps(attrs.asdict(runtime.prepare())))
"""


def command(code: str, cache: Path, **settings: str) -> dict[str, Any]:
    unset = ("FEWSHOT_RUNTIME", "CC", "OPENBLAS_NUM_THREADS")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"PYTHONPATH": str(Path(runtime.__file__).parents[2]), "XDG_CACHE_HOME": str(cache)}
    return {"args": [sys.executable, "-c", code], "env": env | settings, "text": True}


def ask(code: str, cache: Path, **settings: str) -> Any:
    """What the code prints last, as JSON."""
    done = subprocess.run(
        **command(code, cache, **settings), capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout.splitlines()[-1])


def shims(cache: Path) -> list[Path]:
    return sorted((cache / "fewshot" / "runtime").iterdir())


def has_system_blas() -> bool:
    for name in runtime._SYSTEM_LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def test_a_wrong_mode_is_an_error_that_names_the_right_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FEWSHOT_RUNTIME", "fast")
    with pytest.raises(ConfigError, match=r"FEWSHOT_RUNTIME is 'fast'.*auto, stock"):
        runtime.prepare.__wrapped__()


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delenv("FEWSHOT_RUNTIME", raising=False)
    found = runtime.prepare.__wrapped__()
    assert (found.blas, found.malloc_tuned, found.hint) == ("as installed", False, None)
    assert "only MLX's CPU backend on Linux" in found.note


@linux_cpu
def test_a_cuda_backend_beside_the_cpu_one_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx_cuda_12-0.32.4.dist-info").mkdir()
    root = Path(runtime.__file__).parents[2]
    found = ask(RECORD, tmp_path, PYTHONPATH=f"{root}:{tmp_path}")
    assert (found["backend"], found["blas"], found["malloc_tuned"]) == (
        "cuda",
        "as installed",
        False,
    )


SCOPE = """
import ctypes, json, sys
from fewshot.compute import runtime
{call}
loaded = [name for name in ("mlx.core", "numpy") if name in sys.modules]
process = ctypes.CDLL(None)
block = process.malloc
block.restype, block.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
fields = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd a b c d e".split()]
info = process.mallinfo2
info.restype = type("mallinfo2", (ctypes.Structure,), {{"_fields_": fields}})
before = info().hblks
block(100 << 20)
print(json.dumps([loaded, hasattr(process, "cblas_sgemm"), info().hblks - before]))
"""


@linux_cpu
@pytest.mark.parametrize("call", ["", "runtime.prepare()"])
def test_importing_and_stock_change_nothing(call: str, tmp_path: Path) -> None:
    loaded, blas, mapped_blocks = ask(SCOPE.format(call=call), tmp_path, FEWSHOT_RUNTIME="stock")
    assert (loaded, blas, mapped_blocks) == ([], False, 1)
    assert list(tmp_path.iterdir()) == []


@linux_cpu
@needs_compiler
def test_prepared_has_a_blas_in_the_global_scope_and_keeps_blocks(tmp_path: Path) -> None:
    loaded, blas, mapped_blocks = ask(SCOPE.format(call="runtime.prepare()"), tmp_path)
    assert (loaded, blas, mapped_blocks) == (["numpy"], True, 0)


@linux_cpu
def test_stock_says_so(tmp_path: Path) -> None:
    found = ask(RECORD, tmp_path, FEWSHOT_RUNTIME="stock")
    assert (found["blas"], found["blas_path"], found["hint"]) == ("as installed", None, None)
    assert "FEWSHOT_RUNTIME=stock" in found["note"]


@linux_cpu
def test_a_call_after_mlx_warns_and_changes_nothing(tmp_path: Path) -> None:
    code = """
import ctypes, json, warnings
import mlx.core
from fewshot.compute import runtime
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = runtime.prepare(), runtime.prepare()
print(json.dumps([[str(w.message) for w in caught], found[0].note, found[0].malloc_tuned,
                  hasattr(ctypes.CDLL(None), "cblas_sgemm")]))
"""
    warned, note, tuned, blas = ask(code, tmp_path)
    assert warned == [note]
    assert "after mlx.core was imported" in note
    assert (tuned, blas) == (False, False)


@linux_cpu
def test_later_calls_return_the_first_record(tmp_path: Path) -> None:
    code = """
import os
from fewshot.compute import runtime
first = runtime.prepare()
os.environ["FEWSHOT_RUNTIME"] = "stock"
import mlx.core
print("true" if runtime.prepare() is first else "false")
"""
    assert ask(code, tmp_path) is True


@linux_cpu
@needs_compiler
@pytest.mark.parametrize("some", [1, 2])
def test_every_core_the_process_may_use_has_a_stream_and_one_blas_thread(
    some: int, tmp_path: Path
) -> None:
    pinned = f"import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{some}])"
    found = ask(pinned + RECORD, tmp_path, OPENBLAS_NUM_THREADS="2", MKL_NUM_THREADS="2")
    assert found["threads"] == 1
    assert found["streams"] == min(some, cores())
    assert ask(RECORD, tmp_path, FEWSHOT_RUNTIME="stock")["streams"] == 1


@linux_cpu
@pytest.mark.parametrize(
    ("quota", "share"),
    [("max 100000", None), ("50000 100000", 1), ("100000 100000", 1), ("", None), ("x", None)],
)
def test_a_containers_share_of_time_counts(quota: str, share: int | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    every = len(os.sched_getaffinity(0))
    assert cores(tmp_path / "cpu.max") == (share or every)
    assert cores(tmp_path / "missing") == every


READERS = """
import json, threading, time
from io import BytesIO

import numpy as np
from PIL import Image

import fewshot as fs
from fewshot.data.parallel import on_all_cores
from fewshot.data.images import decode_images

content = BytesIO()
Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(content, "PNG")
threads = set()

class File:
    def open(self, mode):
        threads.add(threading.get_ident())
        time.sleep(0.02)
        return BytesIO(content.getvalue())

files = [File()] * 64
found = []
for read in (
    lambda: decode_images(files, (8, 8, 3)),
    lambda: on_all_cores(lambda i: files[i].open("rb"), range(64), lambda i, file: None, None),
):
    threads.clear()
    read()
    found.append(len(threads))
print(json.dumps([fs.cores(), *found]))
"""


@linux_cpu
@pytest.mark.parametrize("count", [1, 2])
def test_every_pool_of_readers_has_a_thread_for_each_core_of_this_process(
    count: int, tmp_path: Path
) -> None:
    pinned = f"import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{count}])"
    usable, *threads = ask(f"{pinned}\n{READERS}", tmp_path)
    assert usable == min(count, cores())
    assert threads == [usable, usable]


def test_processors_are_counted_in_one_place() -> None:
    root = Path(__file__).parents[2]
    code = [*(root / "fewshot").rglob("*.py"), *(root / "plugins").glob("*/src/**/*.py")]
    counting = [path.name for path in code if "cpu_count" in path.read_text(encoding="utf-8")]
    assert counting == ["machine.py"]


PRODUCTS = """
import json, sys
from fewshot.compute import runtime
assert runtime.prepare().blas_path
import mlx.core as mx
import numpy as np

rng = np.random.default_rng(0)
kinds = {"float32": np.float32, "float64": np.float64, "complex64": np.complex64}
worst = []
for m, k, n, kind, flip_a, flip_b in json.loads(sys.stdin.read()):
    a = rng.normal(size=(k, m) if flip_a else (m, k))
    b = rng.normal(size=(n, k) if flip_b else (k, n))
    if kind == "complex64":
        a, b = a + 1j * a[::-1], b - 1j * b[::-1]
    a, b = a.astype(kinds[kind]), b.astype(kinds[kind])
    with mx.stream(mx.cpu):
        x, y = (mx.array(v, getattr(mx, kind)) for v in (a, b))
        product = np.array((x.T if flip_a else x) @ (y.T if flip_b else y))
    a, b = (v.astype(np.complex128 if kind == "complex64" else np.float64) for v in (a, b))
    expected = (a.T if flip_a else a) @ (b.T if flip_b else b)
    worst.append(float(abs(product - expected).max() / abs(expected).max()))
print(json.dumps(worst))
"""
SHAPES = [(1, 1, 1), (1, 7, 5), (5, 1, 7), (33, 65, 17), (128, 100, 3), (300, 257, 129)]
CASES = [
    (*shape, kind, flip_a, flip_b)
    for shape in SHAPES
    for kind in ("float32", "float64", "complex64")
    for flip_a in (False, True)
    for flip_b in (False, True)
]


@linux_cpu
@needs_compiler
def test_products_agree_with_numpy(tmp_path: Path) -> None:
    done = subprocess.run(
        **command(PRODUCTS, tmp_path), input=json.dumps(CASES), capture_output=True, check=True
    )
    for case, worst in zip(CASES, json.loads(done.stdout), strict=True):
        assert worst < (1e-12 if "float64" in case else 1e-4), case


@linux_cpu
@needs_compiler
def test_convolutions_and_factorisations_agree_with_numpy(tmp_path: Path) -> None:
    code = """
import json
from fewshot.compute import runtime
assert runtime.prepare().blas_path
import mlx.core as mx
import numpy as np

rng = np.random.default_rng(0)
images, weights = rng.normal(size=(2, 12, 11, 5)), rng.normal(size=(7, 3, 3, 5))
table = rng.normal(size=(30, 20))
windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), (1, 2))
with mx.stream(mx.cpu):
    single = [mx.array(x.astype(np.float32)) for x in (images, weights, table)]
    mapped = np.array(mx.conv2d(*single[:2]))
    values = np.array(mx.linalg.svd(single[2])[1])
print(json.dumps([
    float(abs(mapped - np.einsum("bhwcij,oijc->bhwo", windows, weights)).max()),
    float(abs(values - np.linalg.svd(table, compute_uv=False)).max()),
]))
"""
    assert max(ask(code, tmp_path)) < 1e-4


@linux_cpu
@needs_compiler
def test_mlx_calls_the_library_and_not_its_own(tmp_path: Path) -> None:
    code = "from fewshot.compute import runtime; runtime.prepare(); import mlx.core"
    log = tmp_path / "log"
    subprocess.run(
        **command(code, tmp_path, LD_DEBUG="bindings", LD_DEBUG_OUTPUT=str(log), LD_BIND_NOW="1"),
        check=True,
    )
    bindings = "".join(path.read_text() for path in tmp_path.glob("log.*"))
    bound = re.findall(r"libmlx\.so \[0\] to (\S+) .*`cblas_([sdc]gemm)'", bindings)
    assert {name for _, name in bound} == {"cgemm", "dgemm", "sgemm"}
    # The shim by its descriptor: see `_trusted`.
    assert all(re.fullmatch(r"/proc/self/fd/\d+", path) for path, _ in bound)


@linux_cpu
@pytest.mark.skipif(has_system_blas(), reason="a system BLAS is there")
def test_without_compiler_and_system_library_a_hint_says_the_way_out(tmp_path: Path) -> None:
    found = ask(RECORD, tmp_path, PATH=str(tmp_path))
    assert (found["blas"], found["blas_path"], found["malloc_tuned"]) == (
        "as installed",
        None,
        True,
    )
    for part in ("no C compiler", "10 to 20 times", "apt install libopenblas0-pthread"):
        assert part in found["hint"]
    assert "\n" not in found["hint"]


@linux_cpu
@pytest.mark.skipif(has_system_blas(), reason="a system BLAS is there")
def test_a_failing_compiler_is_named_in_one_line(tmp_path: Path) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho no such header >&2\necho more >&2\nexit 3\n")
    compiler.chmod(0o700)
    found = ask(RECORD, tmp_path, CC=f"{compiler} -fast")
    assert found["blas"] == "as installed"
    assert f"{compiler} failed: no such header)" in found["hint"]


@linux_cpu
@needs_compiler
def test_the_cache_is_private_and_used_again(tmp_path: Path) -> None:
    ask("import os; os.umask(0)" + RECORD, tmp_path)
    assert (tmp_path / "fewshot" / "runtime").stat().st_mode & 0o777 == 0o700
    (shim,) = shims(tmp_path)
    written = shim.stat().st_mtime_ns
    assert "through a shim" in ask(RECORD, tmp_path, PATH=str(tmp_path))["blas"]
    assert shims(tmp_path) == [shim]
    assert shim.stat().st_mtime_ns == written


@linux_cpu
@needs_compiler
def test_a_cache_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "fewshot" / "runtime"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert "through a shim" in ask(RECORD, tmp_path)["blas"]
    assert shims(tmp_path) == []


@linux_cpu
@needs_compiler
def test_without_a_cache_it_is_built_aside_and_nothing_stays(tmp_path: Path) -> None:
    no_folder, temporary = tmp_path / "file", tmp_path / "tmp"
    no_folder.touch()
    temporary.mkdir()
    assert "through a shim" in ask(RECORD, no_folder, TMPDIR=str(temporary))["blas"]
    assert list(temporary.iterdir()) == []


@linux_cpu
@needs_compiler
@pytest.mark.parametrize("keep", [0, 1000, -1, None], ids=["empty", "short", "cut", "altered"])
def test_a_damaged_shim_is_built_again(keep: int | None, tmp_path: Path) -> None:
    ask(RECORD, tmp_path)
    (shim,) = shims(tmp_path)
    good = shim.read_bytes()
    bad = good[:2000] + b"x" + good[2001:] if keep is None else good[:keep]
    assert bad != good
    shim.write_bytes(bad)
    if not has_system_blas():
        assert "no C compiler" in ask(RECORD, tmp_path, PATH=str(tmp_path))["hint"]
    assert "through a shim" in ask(RECORD, tmp_path)["blas"]
    assert shim.read_bytes() == good


@linux_cpu
@needs_compiler
def test_two_processes_may_build_at_once(tmp_path: Path) -> None:
    builders = [
        subprocess.Popen(**command(RECORD, tmp_path), stdout=subprocess.PIPE) for _ in range(3)
    ]
    for builder in builders:
        out, _ = builder.communicate(timeout=60)
        assert "through a shim" in json.loads(out)["blas"]
    assert len(shims(tmp_path)) == 1


# A system library of few words: row-major gemm as the standard has it, but for what is put in.
FAKE = """
#define GEMM(name, real, scalar, at, parts)                                                      \\
void cblas_##name(int o, int ta, int tb, INT m, INT n, INT k, scalar alpha, const real *a,       \\
                  INT lda, const real *b, INT ldb, scalar beta, real *c, INT ldc) {              \\
    for (INT i = 0; i < m; i++) for (INT j = 0; j < n; j++) for (INT p = 0; p < parts; p++) {    \\
        real sum = 0;                                                                            \\
        for (INT l = 0; l < k; l++)                                                              \\
            sum += a[(ta == 111 ? i * lda + l : l * lda + i) * parts + p]                        \\
                 * b[(tb == 111 ? l * ldb + j : j * ldb + l) * parts];                           \\
        real *to = c + (i * ldc + j) * parts + p;                                                \\
        *to = SIGN at alpha * sum + (at beta ? at beta * *to : 0);                               \\
    }                                                                                            \\
}
GEMM(sgemm, float, float, , 1)
GEMM(dgemm, double, double, , 1)
GEMM(cgemm, float, const float *, *, 2)
void cblas_sgemv(int o, int ta, INT m, INT n, float alpha, const float *a, INT lda, const float *x,
                 INT incx, float beta, float *y, INT incy) {
    cblas_sgemm(o, ta, 111, ta == 111 ? m : n, 1, ta == 111 ? n : m, alpha, a, lda, x, incx,
                beta, y, incy);
}
"""


def fake_library(folder: Path, integer: str = "int", sign: str = "") -> str:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))))
    flags = ["-O1", "-shared", "-fPIC", f"-DINT={integer}", f"-DSIGN={sign}"]
    built = folder / runtime._SYSTEM_LIBRARIES[0]  # the first to be tried
    subprocess.run(
        [compiler, *flags, "-x", "c", "-", "-o", built], input=FAKE, text=True, check=True
    )
    return str(built)


@linux_cpu
@needs_compiler
@pytest.mark.parametrize("compiler", [True, False])
def test_a_system_library_comes_first_and_needs_no_compiler(compiler: bool, tmp_path: Path) -> None:
    built = fake_library(tmp_path)
    settings = {"LD_LIBRARY_PATH": str(tmp_path)} | ({} if compiler else {"PATH": str(tmp_path)})
    found = ask(RECORD, tmp_path, **settings)
    assert found["blas_path"] == built
    how = "through a shim" if compiler else "as it is"
    assert found["blas"] == f"{Path(built).name} (system, {how})"
    assert found["threads"] is None


@linux_cpu
@needs_compiler
@pytest.mark.parametrize("fault", [{"sign": "-"}, {"integer": "long"}], ids=["wrong", "64-bit"])
def test_a_system_library_that_fails_the_check_is_not_used(
    fault: dict[str, str], tmp_path: Path
) -> None:
    built = fake_library(tmp_path, **fault)
    found = ask(RECORD, tmp_path, LD_LIBRARY_PATH=str(tmp_path))
    assert found["blas_path"] not in (None, built)
    if not has_system_blas():
        assert "cblas_sgemm disagrees with NumPy" in found["note"]


@linux_cpu
@needs_compiler
def test_undivided_work_has_all_threads_and_gives_them_back(tmp_path: Path) -> None:
    code = """
import ctypes, json, os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
from fewshot.compute import runtime
found = runtime.prepare()
ask = ctypes.CDLL(found.blas_path).scipy_openblas_get_num_threads64_
seen = [ask()]
try:
    with runtime.undivided():
        seen.append(ask())
        raise ValueError
except ValueError:
    seen.append(ask())
print(json.dumps([seen, found.streams]))
"""
    if has_system_blas():
        pytest.skip("the names of a system library are another's")
    seen, streams = ask(code, tmp_path)
    assert seen == [1, streams, 1]
