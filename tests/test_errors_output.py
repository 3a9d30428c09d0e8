"""``out`` refused, and ``out`` that is right: the array given, and that array only."""

import numpy as np
import pytest
from calls import CALLS, NORMS, SHAPE, forbid_backends, refuses, x

import numba_bn as nbn

STEP = np.float32().itemsize


@pytest.fixture
def no_backend(monkeypatch):
    forbid_backends(monkeypatch)


def result(value):
    """The array a call computed: y, (y, stats) or the dx of gradients."""
    return value[0] if isinstance(value, tuple) else value


def repeating(size=SHAPE):
    """An array of x's shape that writes one place many times."""
    return np.lib.stride_tricks.as_strided(x(), size, (0, 20, 4))


def readonly():
    a = x()
    a.flags.writeable = False
    return a


REFUSED = {
    "shape": (
        lambda: np.ones((4, 5, 6), np.float32),
        ValueError,
        "must have the shape of x, (4, 6, 5), got (4, 5, 6)",
    ),
    "fewer dimensions": (
        lambda: np.ones((4, 30), np.float32),
        ValueError,
        "must have the shape of x, (4, 6, 5), got (4, 30)",
    ),
    "wider dtype": (
        lambda: np.ones(SHAPE),
        TypeError,
        "must have dtype float32, got float64 for x of dtype float32",
    ),
    "integer dtype": (
        lambda: np.ones(SHAPE, np.int32),
        TypeError,
        "must have dtype float32, got int32 for x of dtype float32",
    ),
    "byte-swapped": (
        lambda: np.ones(SHAPE, np.dtype(np.float32).newbyteorder()),
        ValueError,
        f"must be in native byte order, got {np.dtype(np.float32).newbyteorder().str}",
    ),
    "read-only": (
        readonly,
        ValueError,
        "must be writable, got a read-only array of shape (4, 6, 5)",
    ),
    "repeating": (repeating, ValueError, "must not repeat memory, got strides (0, 20, 4)"),
    "list": (lambda: x().tolist(), TypeError, "must be a NumPy array, got list"),
    "masked": (
        lambda: np.ma.masked_array(x()),
        TypeError,
        "must be a NumPy array, got MaskedArray",
    ),
    "matrix": (
        lambda: np.ones((2, 2)).view(np.matrix),
        TypeError,
        "must be a NumPy array, got matrix",
    ),
}


@pytest.mark.usefixtures("no_backend")
@pytest.mark.parametrize("out", REFUSED)
@pytest.mark.parametrize("call", NORMS)
def test_refused(call, out):
    make, error, text = REFUSED[out]
    refuses(call, error, f"{CALLS[call].function}: out {text}", out=make())


@pytest.mark.usefixtures("no_backend")
@pytest.mark.parametrize("call", NORMS)
def test_integers_have_a_result_of_another_dtype(call):
    integers = np.arange(120, dtype=np.int16).reshape(SHAPE)
    text = f"{CALLS[call].function}: out must have dtype float32, got int16 for x of dtype int16"
    refuses(call, TypeError, text, x=integers, out=integers)


OVERLAPS = [
    (call, name)
    for call in NORMS
    for name, value in CALLS[call].arguments().items()
    if isinstance(value, np.ndarray)
]


@pytest.mark.usefixtures("no_backend")
@pytest.mark.parametrize(("call", "name"), [*OVERLAPS, ("batch_norm_train", "where")])
def test_partial_overlap(call, name):
    memory = np.zeros(300, np.float32)
    given = np.ones(SHAPE, bool) if name == "where" else CALLS[call].arguments()[name]
    out = memory[10:130].reshape(SHAPE)
    other = memory.view(given.dtype)[41 * (STEP // given.itemsize) :][: given.size]
    other = other.reshape(given.shape)
    other[...] = given
    text = (
        f"{CALLS[call].function}: out of shape {SHAPE} partly overlaps an input of shape "
        f"{given.shape}; it may be that very array or share nothing with it"
    )
    refuses(call, ValueError, text, out=out, **{name: other})


SHARED = {
    "what owns it": lambda memory: memory,
    "a view": lambda memory: memory[:],
    "a view of a view": lambda memory: memory.view(np.int32).view(np.float32),
    "an array of its buffer": lambda memory: np.frombuffer(memory, np.float32),
    "an array of a view's buffer": lambda memory: np.ndarray((8,), np.float32, memory[:]),
    "an array of a subclass": lambda memory: memory.view(np.recarray).view(np.ndarray),
}


@pytest.mark.usefixtures("no_backend")
@pytest.mark.parametrize("one", SHARED)
@pytest.mark.parametrize("other", SHARED)
def test_overlaps_however_arrays_share_memory(one, other):
    memory = np.zeros(8, np.float32)
    gamma, out = SHARED[one](memory), SHARED[other](memory)[::-1]
    with pytest.raises(ValueError, match="partly overlaps an input of shape"):
        nbn.layer_norm(np.arange(8, dtype=np.float32), gamma, out=out)
    with pytest.raises(ValueError, match="partly overlaps an input of shape"):
        nbn.layer_norm(np.arange(8, dtype=np.float32), gamma[::-1], out=out[::-1])


@pytest.mark.usefixtures("no_backend")
def test_the_same_memory_in_another_order_is_an_overlap():
    a = np.linspace(0, 1, 64, dtype=np.float32).reshape(4, 4, 4)
    text = (
        "batch_norm: out of shape (4, 4, 4) partly overlaps an input of shape (4, 4, 4); "
        "it may be that very array or share nothing with it"
    )
    plain = {"gamma": None, "beta": None, "residual": None}
    refuses("batch_norm", ValueError, text, x=a, out=a.transpose(0, 2, 1), **plain)


@pytest.mark.usefixtures("no_backend")
def test_an_overlap_too_hard_to_find_out_is_one(monkeypatch):
    def too_hard(*_, **__):
        raise np.exceptions.TooHardError("Exceeded max_work")

    monkeypatch.setattr(np, "shares_memory", too_hard)
    a = np.zeros((4, 4), np.float32)
    with pytest.raises(ValueError, match="partly overlaps"):
        CALLS["rms_norm"](x=a[:, ::2], gamma=None, out=a[:, 1::2])


def test_interleaved_arrays_do_not_overlap():
    a = np.arange(16, dtype=np.float32).reshape(4, 4)
    expected = CALLS["rms_norm"](x=a[:, ::2].copy(), gamma=None)
    CALLS["rms_norm"](x=a[:, ::2], gamma=None, out=a[:, 1::2])
    np.testing.assert_array_equal(a[:, 1::2], expected)


IN_PLACE = [(call, name) for call, name in OVERLAPS if name in ("x", "dy", "residual", "y")]


@pytest.mark.parametrize(("call", "name"), IN_PLACE)
def test_in_place(call, name, backend):
    expected = result(CALLS[call]())
    target = CALLS[call].arguments()[name]
    got = result(CALLS[call](**{name: target}, out=target))
    assert got is target
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("call", NORMS)
def test_in_place_where_x_has_to_be_packed(call, backend):
    expected = result(CALLS[call]())
    wide = np.zeros((4, 6, 10), np.float32)
    target = wide[:, ::-1, ::2]
    target[...] = x()
    assert result(CALLS[call](x=target, out=target)) is target
    np.testing.assert_array_equal(target, expected)
    assert not wide[:, :, 1::2].any()


def misaligned():
    return np.zeros(481, np.uint8)[1:].view(np.float32).reshape(SHAPE)


OUTPUTS = {
    "C": lambda: np.zeros(SHAPE, np.float32),
    "Fortran": lambda: np.zeros(SHAPE, np.float32, order="F"),
    "strided": lambda: np.zeros((4, 6, 10), np.float32)[:, :, ::2],
    "reversed": lambda: np.zeros(SHAPE, np.float32)[::-1, :, ::-1],
    "misaligned": misaligned,
    "gap beside x": lambda: np.zeros((2, *SHAPE), np.float32)[1],
}


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("call", NORMS)
def test_any_memory_order_will_do(call, out, backend):
    target = OUTPUTS[out]()
    got = result(CALLS[call](out=target))
    assert got is target
    np.testing.assert_array_equal(got, result(CALLS[call]()))


def test_a_misaligned_out_is_never_shown_to_a_kernel(monkeypatch):
    from numba_bn._kernels import reference

    seen = []
    forward = reference.forward
    monkeypatch.setattr(
        reference, "forward", lambda *a, **k: (seen.append(a[4]), forward(*a, **k))[1]
    )
    monkeypatch.setattr("numba_bn.functional._own.backend", lambda *_: reference)
    assert not misaligned().flags.aligned
    CALLS["layer_norm"](out=misaligned())
    assert seen[0].flags.aligned


def test_a_memmap_will_do(tmp_path):
    target = np.memmap(tmp_path / "y", np.float32, "w+", shape=SHAPE)
    got = CALLS["layer_norm"](out=target)
    assert got is target
    target.flush()
    stored = np.fromfile(tmp_path / "y", np.float32).reshape(SHAPE)
    np.testing.assert_array_equal(stored, CALLS["layer_norm"]())
