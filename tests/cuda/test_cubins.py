"""Machine code for devices: kept on disk by the rules of the CPU's, compiled where it must be."""

import sys
import threading
import types

import pytest

from numba_bn._kernels import _store
from numba_bn._kernels.cuda import cubins
from numba_bn._kernels.cuda.kernel import Kernel

CODE = b"\x7fELF...\0.text.entry_of_it\0..."
KERNEL = Kernel("made_up", "kernel")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder that cubins are kept in."""
    monkeypatch.setattr(_store, "places", lambda: _store.Places("NUMBA_BN_CACHE", (tmp_path,)))
    monkeypatch.setattr(_store, "_warned", False)
    return tmp_path


@pytest.fixture
def compiled(monkeypatch):
    """What was compiled, where nothing really is."""
    seen = []
    monkeypatch.setattr(cubins, "_compiled", lambda *what: seen.append(what) or CODE)
    return seen


def files(place):
    return list(place.rglob("*.nbc"))


def test_a_cubin_is_compiled_once_and_found_again(place, compiled):
    first, again = (cubins.cubin(KERNEL, ("float32", 4), (9, 0)) for _ in range(2))
    assert first == (CODE, "entry_of_it", True)
    assert again == (CODE, "entry_of_it", False)
    assert compiled == [(KERNEL, ("float32", 4), (9, 0))]
    (file,) = files(place)
    assert file.name.startswith("made_up.kernel_float32_4.sm_90.")


@pytest.mark.parametrize(
    "other",
    [
        (Kernel("made_up", "other"), ("float32", 4), (9, 0)),
        (KERNEL, ("float32", 8), (9, 0)),
        (KERNEL, ("float32", 4), (8, 0)),
    ],
    ids=["kernel", "variant", "capability"],
)
def test_another_is_another(place, compiled, other):
    cubins.cubin(KERNEL, ("float32", 4), (9, 0))
    assert cubins.cubin(*other).compiled
    assert len(files(place)) == 2


@pytest.mark.parametrize("package", cubins._PACKAGES)
def test_other_versions_make_other_code(place, compiled, monkeypatch, package):
    real = cubins._version
    cubins.cubin(KERNEL, (), (9, 0))
    monkeypatch.setattr(cubins, "_version", lambda name: "0" if name == package else real(name))
    cubins._stamp.cache_clear()
    try:
        assert cubins.cubin(KERNEL, (), (9, 0)).compiled
    finally:
        cubins._stamp.cache_clear()


def test_a_damaged_file_costs_a_warning_and_a_compilation(place, compiled):
    cubins.cubin(KERNEL, (), (9, 0))
    (file,) = files(place)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.warns(RuntimeWarning, match="is not what was written there"):
        assert cubins.cubin(KERNEL, (), (9, 0)).compiled
    assert not cubins.cubin(KERNEL, (), (9, 0)).compiled  # written anew


def test_a_place_that_cannot_be_written_costs_nothing_more(tmp_path, compiled, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(_store, "places", lambda: _store.Places("default", (blocked,)))
    assert cubins.cubin(KERNEL, (), (9, 0)).code == CODE


@pytest.mark.usefixtures("compiled")
def test_nothing_is_kept_once_a_source_has_changed(place, monkeypatch):
    monkeypatch.setattr(_store, "sources", lambda: b"something else")
    assert cubins.cubin(KERNEL, (), (9, 0)).compiled
    assert files(place) == []


def test_code_without_a_kernel_is_not_kept(place, monkeypatch):
    monkeypatch.setattr(cubins, "_compiled", lambda *_: b"nothing")
    with pytest.raises(ValueError, match="no kernel in 7 bytes"):
        cubins.cubin(KERNEL, (), (9, 0))
    assert files(place) == []


@pytest.mark.usefixtures("place")
def test_one_thread_at_a_time_compiles(monkeypatch):
    inside, most = [], []

    def slow(*_):
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.02)
        inside.pop()
        return CODE

    monkeypatch.setattr(cubins, "_compiled", slow)
    threads = [threading.Thread(target=cubins.cubin, args=(KERNEL, (n,), (9, 0))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_without_numba_cuda_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(ImportError, match=r"numba-bn\[cuda\]"):
        cubins._compiled(KERNEL, (), (9, 0))


def double(factor):
    """A kernel's factory, as the kernels' modules have them."""
    from numba_bn._kernels.cuda.target import cuda, types

    def body(p, count):
        i = cuda.grid(1)
        if i < count:
            p[i] = p[i] * factor

    return body, types.void(types.CPointer(types.float32), types.int64)


@pytest.mark.parametrize("capability", [(7, 5), (9, 0)])
def test_real_code_for_a_capability_without_a_device(place, monkeypatch, capability):
    pytest.importorskip("numba_bn._kernels.cuda.target", exc_type=ImportError)
    home = types.ModuleType("numba_bn._kernels.cuda.made_up")
    home.kernel = double
    monkeypatch.setitem(sys.modules, home.__name__, home)
    code, entry, _ = cubins.cubin(KERNEL, (3,), capability)
    assert code.startswith(b"\x7fELF")
    assert entry.encode() in code
    assert "kernel_3" in entry
