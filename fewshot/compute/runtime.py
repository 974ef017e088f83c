"""What makes MLX fast on Linux CPUs: a good BLAS, a malloc that keeps large blocks, all cores.

The ``mlx-cpu`` wheel bundles the reference Netlib BLAS, which runs on one thread and without vector
kernels. ``libmlx.so`` looks up ``cblas_sgemm`` and its sisters in the process's global symbol
scope before its own libraries (see ``RTLD_GLOBAL`` in dlopen(3) and "lookup scope" in Drepper,
"How To Write Shared Libraries", section 1.5.4), so a CBLAS opened with ``RTLD_GLOBAL`` before MLX
is first imported takes the place of the bundled one. Nothing installed is changed.
"""

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import itertools
import os
import platform
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from attrs import evolve, frozen

from ..core.errors import ConfigError
from ..core.machine import cores, user_cache

_VARIABLE, _MODES = "FEWSHOT_RUNTIME", ("auto", "stock")

# Fedora's libopenblas.so.0 runs on one thread, its libopenblasp on several; Debian has only the
# former name, for either. The 64-bit-integer builds (libopenblas64) have another interface.
_SYSTEM_LIBRARIES = ["libopenblasp.so.0", "libopenblas.so.0"]
_SYSTEM_LIBRARIES += [f"libmkl_rt.so.{version}" for version in (3, 2, 1)]

# All the CBLAS that libmlx.so needs (nm -D). An array goes to C as a pointer, as cgemm wants it.
_ROUTINES: dict[str, tuple[str, Any]] = {
    "sgemm": ("float32", ctypes.c_float),
    "dgemm": ("float64", ctypes.c_double),
    "cgemm": ("complex64", ctypes.c_float * 2),
}
_THREADS = [
    ("openblas_set_num_threads", "openblas_get_num_threads"),
    ("MKL_Set_Num_Threads", "MKL_Get_Max_Threads"),
]
_ROW_MAJOR, _NO_TRANSPOSE = 101, 111  # cblas.h; transposed is one more
# m, n, k of the products that are checked.
_SHAPES = [(19, 34, 23), (19, 1, 23), (1, 34, 23), (0, 34, 23), (19, 0, 23)]
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h

# Keeps all else that the library exports out of the global scope: another OpenBLAS loaded later,
# such as SciPy's own, would bind hundreds of its internal names to it. Widens the integers, which
# NumPy's OpenBLAS wants and the others' registers and 8-byte stack slots do not mind. The pointers
# are filled in from Python, so it depends on no path and no version. A product with a vector goes
# to sgemv, which reads the matrix once, where sgemm would copy it first.
_SHIM_SOURCE = """
enum { row_major = 101, plain = 111, transposed };
void (*fewshot_sgemv)(int, int, long, long, float, const void *, long, const void *, long, float,
                      void *, long);
static int with_vector(int order, int ta, int tb, int m, int n, int k, float alpha, const void *a,
                       int lda, const void *b, int ldb, float beta, void *c, int ldc)
{
    int across_a = ta != plain, across_b = tb != plain;
    if (order != row_major || m < 1 || n < 1 || k < 1 || (m > 1 && n > 1))
        return 0;
    if (n == 1)
        fewshot_sgemv(order, ta, across_a ? k : m, across_a ? m : k, alpha, a, lda,
                      b, across_b ? 1 : ldb, beta, c, ldc);
    else
        fewshot_sgemv(order, across_b ? plain : transposed, across_b ? n : k, across_b ? k : n,
                      alpha, b, ldb, a, across_a ? lda : 1, beta, c, 1);
    return 1;
}
#define FORWARD(name, scalar, done)                                                            \\
    void (*fewshot_##name)(int, int, int, long, long, long, scalar, const void *, long,        \\
                           const void *, long, scalar, void *, long);                          \\
    void cblas_##name(int order, int ta, int tb, int m, int n, int k, scalar alpha,            \\
                      const void *a, int lda, const void *b, int ldb, scalar beta, void *c,    \\
                      int ldc)                                                                 \\
    {                                                                                          \\
        if (!(done))                                                                           \\
            fewshot_##name(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);       \\
    }
FORWARD(sgemm, float, with_vector(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc))
FORWARD(dgemm, double, 0)
FORWARD(cgemm, const void *, 0)
"""

_set_threads: list[Callable[[int], object]] = []  # of the BLAS in use, if it can be told

_FAILURES = (OSError, AttributeError, RuntimeError, ValueError)


@frozen
class Runtime:
    """What ``prepare`` found and chose; ``attrs.asdict`` makes it JSON."""

    platform: str  # such as linux-x86_64
    backend: str  # of the installed MLX: cpu, metal, cuda or unknown
    blas: str = "as installed"  # under MLX's products on the CPU, for people
    blas_path: str | None = None  # the library that does the work, None for MLX's own
    threads: int | None = None  # of that library, None where it can't be asked
    streams: int = 1  # over which a batch is divided, each with a thread of its own
    malloc_tuned: bool = False
    hint: str | None = None  # a line for the user: what is missing, what it costs, how to mend it
    note: str = ""  # why it came out this way


@functools.cache
def prepare() -> Runtime:
    """Make MLX fast on this machine; call once, before ``mlx.core`` is first imported.

    Acts only on Linux with MLX's CPU backend: Accelerate, Metal and CUDA are good as they are.
    ``FEWSHOT_RUNTIME=stock`` leaves everything as installed. Prints nothing: show ``hint``. Later
    calls return the first one's record. Every core that this process may use gets a stream, and
    the BLAS one thread on each (NumPy's own products too): ``taskset`` and its kin give fewer.

    Costs memory: freed blocks below 2 GB stay with the process, so its resident memory remains at
    its peak (see ``_tune_malloc``).
    """
    mode = os.environ.get(_VARIABLE, "auto")
    if mode not in _MODES:
        raise ConfigError(f"{_VARIABLE} is {mode!r}, must be one of: {', '.join(_MODES)}")
    found = Runtime(f"{sys.platform}-{platform.machine()}", _backend())
    if mode == "stock":
        return evolve(found, note=f"as installed: {_VARIABLE}=stock")
    if sys.platform != "linux" or found.backend != "cpu":
        return evolve(found, note="as installed: only MLX's CPU backend on Linux needs help")
    if "mlx.core" in sys.modules:
        note = "fewshot.compute.runtime.prepare() came after mlx.core was imported: MLX stays slow"
        warnings.warn(note, RuntimeWarning, stacklevel=2)
        return evolve(found, note=note)
    found = evolve(found, streams=cores())
    return evolve(_with_fast_blas(found), malloc_tuned=_tune_malloc())


def streams() -> int:
    """Over how many CPU streams to divide a batch: 1 unless ``prepare`` was called and acted."""
    return prepare().streams if prepare.cache_info().currsize else 1


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """Inside, one product uses every core: for a batch too small to be divided over streams."""
    for set_threads in _set_threads:
        set_threads(streams())
    try:
        yield
    finally:
        for set_threads in _set_threads:
            set_threads(1)


def _backend() -> str:
    """The backend of the installed MLX, by the distributions beside it, without importing it."""
    spec = importlib.util.find_spec("mlx")
    folders = (spec.submodule_search_locations if spec else None) or []
    parents = [Path(folder).parent for folder in folders]
    names = [path.name for parent in parents for path in parent.glob("mlx_*.dist-info")]
    # mlx-cpu and mlx-cuda write the same file and the last one wins: with both, touch nothing.
    for backend in ("cuda", "metal", "cpu"):
        if any(name.startswith(f"mlx_{backend}") for name in names):
            return backend
    return "unknown"


class _Blas(NamedTuple):
    library: ctypes.CDLL
    path: str
    origin: str
    names: str = "{}"  # how it decorates its names

    def find(self, name: str) -> Any:
        """The function of that name, None where it is missing."""
        return getattr(self.library, self.names.format(name), None)


def _with_fast_blas(found: Runtime) -> Runtime:
    reasons: list[str] = []
    for find in (_system_blas, _numpys_blas):
        try:
            blas = find()
            how = _make_global(blas)
        except _FAILURES as error:
            reasons.append(str(error).strip().partition("\n")[0])
        else:
            return evolve(
                found,
                blas=f"{_version(blas)} ({blas.origin}, {how})",
                blas_path=blas.path,
                threads=_use_one_thread(blas),
                note="; ".join(reasons),
            )
    note = "; ".join(reasons)
    hint = (
        f"MLX keeps its own slow BLAS, training takes 10 to 20 times longer ({note}): "
        "apt install libopenblas0-pthread, or install a C compiler"
    )
    return evolve(found, hint=hint, note=note)


def _system_blas() -> _Blas:
    reasons = ["no system OpenBLAS or MKL"]
    for name in _SYSTEM_LIBRARIES:
        try:
            library = ctypes.CDLL(name)  # private as yet: what was made global can't be taken back
            _check(library)
            return _Blas(library, _path_of(library.cblas_sgemm), "system")
        except _FAILURES as error:
            if not str(error).startswith(f"{name}: cannot open"):
                reasons.append(str(error))
    raise OSError(", ".join(reasons))


def _numpys_blas() -> _Blas:
    import numpy as np

    paths = Path(np.__file__).parents[1].glob("numpy.libs/libscipy_openblas64_*.so*")
    path = next(map(str, paths), None)
    if path is None:
        raise OSError(f"NumPy {np.__version__} bundles no OpenBLAS")
    return _Blas(ctypes.CDLL(path), path, "NumPy's own", "scipy_{}64_")


def _make_global(blas: _Blas) -> str:
    """Put the routines into the global symbol scope; return how."""
    import tempfile

    try:
        try:
            _use_shim(_cache_folder(), blas)
        except (OSError, RuntimeError):
            # No home, a read-only cache, another's. A loaded library outlives its file.
            with tempfile.TemporaryDirectory(prefix="fewshot-") as folder:
                _use_shim(Path(folder), blas)
    except _FAILURES:
        if blas.names != "{}":  # MLX looks for the plain names
            raise
    else:
        return "through a shim"
    # A library that is loaded by now is bound to its own names: see _SHIM_SOURCE.
    for folder in sys.path:
        for path in Path(folder).glob("*.libs/*openblas*"):
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(path))
    ctypes.CDLL(blas.library._name, mode=ctypes.RTLD_GLOBAL)
    return "as it is"


def _use_shim(folder: Path, blas: _Blas) -> None:
    """Load the shim in ``folder``, built there if need be, point it at ``blas``, make it global.

    The file ends with the SHA-256 of what comes before, which ELF ignores: loading a damaged
    library can kill the process, and a stranger's could do anything.
    """
    key = hashlib.sha256(_SHIM_SOURCE.encode()).hexdigest()[:16]
    path = folder / f"cblas-{platform.machine()}-{key}.so"
    with contextlib.ExitStack() as stack:
        try:
            checked = stack.enter_context(_trusted(path))
        except OSError:
            _build_shim(path)
            checked = stack.enter_context(_trusted(path))
        shim = ctypes.CDLL(checked)
        for routine in (*_ROUTINES, "sgemv"):
            target = getattr(blas.library, blas.names.format(f"cblas_{routine}"))
            ctypes.c_void_p.in_dll(shim, f"fewshot_{routine}").value = _address(target)
        _check(shim)
        ctypes.CDLL(checked, mode=ctypes.RTLD_GLOBAL)


@contextlib.contextmanager
def _trusted(path: Path) -> Iterator[str]:
    """A whole file of this user that no one else can write to, by a name that means it alone.

    What is checked is what the loader gets, whatever is put in the file's place meanwhile. Raises
    OSError for any other file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        if not own or status.st_mode & 0o022:
            raise PermissionError(f"{path} is open to others")
        with open(descriptor, "rb", closefd=False) as file:
            blob = file.read()
        if hashlib.sha256(blob[:-32]).digest() != blob[-32:]:
            raise OSError(f"{path} is damaged")
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _build_shim(path: Path) -> None:
    import shlex
    import shutil
    import subprocess
    import tempfile

    compilers = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    compiler = next((c for c in map(shlex.split, compilers) if c and shutil.which(c[0])), None)
    if compiler is None:
        raise OSError("no C compiler to reach the one inside NumPy")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder, path.name)
        # No C library to link: its development files may be missing where a compiler is not.
        options = ["-shared", "-fPIC", "-O2", "-nostdlib", "-x", "c", "-", "-o", str(built)]
        done = subprocess.run(
            [*compiler, *options], check=False, input=_SHIM_SOURCE, capture_output=True, text=True
        )
        if done.returncode:
            raise OSError(f"{compiler[0]} failed: {done.stderr.strip() or done.returncode}")
        blob = built.read_bytes()
        built.write_bytes(blob + hashlib.sha256(blob).digest())
        built.chmod(0o700)
        built.replace(path)  # other processes may be at it too


def _cache_folder() -> Path:
    """The user's own folder for built libraries, that no one else can write to."""
    folder = user_cache() / "runtime"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} is open to others")
    return folder


def _check(library: ctypes.CDLL) -> None:
    """Raise unless the library's products agree with NumPy's to the last bit.

    The operands are small integers, so every order of summation is exact. The upper halves of the
    integer arguments hold rubbish, as they may in a call from C: a library that takes 64-bit
    integers sees negative sizes, and computes nothing.
    """
    import numpy as np

    def wide(value: int) -> ctypes.c_int64:
        return ctypes.c_int64(value - (1 << 32))

    gap = 3
    for routine, (dtype, scalar) in _ROUTINES.items():
        gemm = getattr(library, f"cblas_{routine}")
        gemm.restype = None
        flips = itertools.product((0, 1), repeat=2)
        for (flip_a, flip_b), (m, n, k) in itertools.product(flips, _SHAPES):
            shapes = ((k, m) if flip_a else (m, k), (n, k) if flip_b else (k, n), (max(m, 1), n))
            padded = [
                (np.arange(rows * (columns + gap)) * 7 % 11 - 5)
                .astype(dtype)
                .reshape(rows, columns + gap)
                for rows, columns in shapes
            ]
            a, b, c = (matrix[:, :-gap] for matrix in padded)
            product = (a.T if flip_a else a) @ (b.T if flip_b else b)
            (a_at, lda), (b_at, ldb), (c_at, ldc) = (
                (ctypes.c_void_p(matrix.ctypes.data), wide(matrix.shape[1])) for matrix in padded
            )
            order = (_ROW_MAJOR, _NO_TRANSPOSE + flip_a, _NO_TRANSPOSE + flip_b)
            for alpha, beta in ((2, -1), (1, 0)):
                if beta == 0:
                    c[:m] = np.nan  # as MLX leaves what is to be overwritten
                expected = padded[2].copy()
                expected[:m, :-gap] = alpha * product + (beta * c[:m] if beta else 0)
                gemm(
                    *(*order, wide(m), wide(n), wide(k)),
                    *(scalar(alpha), a_at, lda, b_at, ldb, scalar(beta), c_at, ldc),
                )
                if not np.array_equal(padded[2], expected):
                    raise ValueError(f"{library._name}: cblas_{routine} disagrees with NumPy")


def _version(blas: _Blas) -> str:
    get_config = blas.find("openblas_get_config")
    if get_config is None:
        return Path(blas.path).name
    get_config.restype = ctypes.c_char_p
    return " ".join(get_config().decode().split()[:2])


def _use_one_thread(blas: _Blas) -> int | None:
    """One thread a product: the streams are the threads, and more would wait for each other."""
    for choose, ask in _THREADS:
        if (choose_number := blas.find(choose)) and (ask_number := blas.find(ask)):
            choose_number(1)
            _set_threads.append(choose_number)
            return int(ask_number())
    return None


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _path_of(function: Any) -> str:
    """The file that a loaded function comes from."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, path = line.split(maxsplit=5)
        start, end = (int(edge, 16) for edge in span.split("-"))
        if start <= _address(function) < end:
            return path
    raise OSError("a function from no file")


def _tune_malloc() -> bool:
    """Have glibc keep all blocks below 2 GB, instead of mapping and unmapping each anew.

    Otherwise a fresh mapping, page faults and all, comes with every array over 32 MB, glibc's
    largest threshold of its own (mallopt(3)). In return resident memory stays at its peak.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    # In this order: the second alone would pin the first at its 128 kB.
    return all(libc.mallopt(o, (1 << 31) - 1) for o in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
