"""What holds of every call: a right result, or an error that names what is wrong; nothing changes.

The results are judged by formulas in extended precision, axis by axis. No tests.
"""

import re
from typing import Any

import ml_dtypes
import numpy as np
from fuzz_calls import Call
from oracle import WIDE, Expected, precision, spread, total, wide
from oracle import moments as textbook_moments
from table import HALVES, Case, result_dtype

import numba_bn as nbn

ERRORS = (TypeError, ValueError)  # AxisError is a ValueError
Array = np.ndarray


def judge(call: Call) -> bool:
    """Make a call and judge it; tell whether it gave a result."""
    memory = {name: _memory(value) for name, value in call.arguments.items()}
    plain = {name: _plain(value) for name, value in call.arguments.items()}
    try:
        got = getattr(nbn, call.function)(**call.arguments)
    except ERRORS as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert call.doubtful, f"refused what is right: {refusal}"
        assert_clear(refusal, call.function, call.arguments)
        for name, value in call.arguments.items():
            assert _memory(value) == memory[name], f"{name} changed"
        return False
    out = call.arguments.get("out")
    for name, value in call.arguments.items():
        shared = isinstance(value, np.ndarray) and out is not None and _root(value) is _root(out)
        assert shared or _memory(value) == memory[name], f"{name} changed"
    with np.errstate(all="ignore"):
        assert_right(call.kind, plain, got)
    if out is not None:
        assert (got.dx if isinstance(got, nbn.Gradients) else _first(got)) is out
    return True


def assert_clear(error: Exception, function: str, names: Any) -> None:
    """Assert that an error's message begins with the function and names an argument."""
    text = str(error)
    assert text.startswith(f"{function}: "), f"{type(error).__name__}: {text}"
    assert set(re.findall(r"\w+", text.split(": ", 1)[1])) & set(names), text


def _first(got: Any) -> Any:
    return got[0] if isinstance(got, tuple) else got


def _root(a: Array) -> Array:
    while isinstance(a.base, np.ndarray):
        a = a.base
    return a


def _memory(value: Any) -> Any:
    """All the memory an argument is a part of."""
    if isinstance(value, nbn.ChannelStats):
        return [v.tobytes() for v in value._arrays().values()]
    return _root(value).tobytes() if isinstance(value, np.ndarray) else None


def _plain(value: Any) -> Any:
    """A copy of an array argument that nothing is special about."""
    if isinstance(value, list | tuple | int | float | np.ndarray | np.generic):
        try:
            a = np.asarray(value)
            return np.array(a, a.dtype.newbyteorder("="))
        except (TypeError, ValueError, OverflowError, AssertionError):
            return None
    return value


# ---- right ----


def assert_right(kind: str, a: dict[str, Any], got: Any) -> None:
    if kind == "fold":
        return _assert_folded(a, got)
    norm = kind.split("-")[0]
    axis = a.get("axis", a.get("channel_axis"))
    groups = int(a.get("num_groups", 0))
    case = Case(norm, a["x"].shape, tuple(np.atleast_1d(axis).tolist()), groups)
    if norm == "stats":
        return _assert_statistics(case._replace(norm="batch"), a, got)
    if kind == "batch-train":
        got, stats = got
        _assert_statistics(case, a, stats)
    y = got.dx if kind.endswith("backward") else got
    assert y.shape == case.shape
    assert y.dtype == result_dtype(a["x"].dtype)
    if not a["x"].size:
        return None
    x, mean, rstd, count = _normalized_by(case, a)
    if kind.endswith("backward"):
        return _assert_gradients(case, a, got, (x, mean, rstd, count))
    gamma, beta = _parameter(case, a, "gamma", 1), _parameter(case, a, "beta", 0)
    residual = WIDE(0) if a.get("residual") is None else wide(a["residual"])
    scaled = (x - mean) * rstd * gamma
    want = scaled + beta + residual
    size = np.maximum(np.abs(scaled) + np.abs(beta) + np.abs(residual), 1)
    if y.dtype == np.float64:  # the mean itself is rounded to float64, and so is what it is of
        size = size + (np.abs(mean * rstd) + 1) * np.abs(gamma) * np.sqrt(1 + y.size / 256)
    relu = a.get("activation") is not None
    return assert_near(y, Expected(np.where(want < 0, 0, want) if relu else want, size))


def _parameter(case: Case, a: dict[str, Any], name: str, default: float) -> Array:
    return WIDE(default) if a.get(name) is None else spread(case, a[name])


def _keep(case: Case, a: dict[str, Any]) -> Array:
    where = a.get("where")
    return np.broadcast_to(True if where is None else where, case.shape)


def _normalized_by(case: Case, a: dict[str, Any]) -> tuple[Array, Array, Array, Any]:
    """Return x, the mean and 1/sqrt(var + eps) it is normalized by, and how many values made them.

    An infinity spoils its statistics like NaN.
    """
    x, keep = wide(a["x"]), _keep(case, a)
    if a.get("mean") is not None:
        count, mean, var = None, spread(case, a["mean"]), spread(case, a["var"])
    elif a.get("stats") is not None:
        found = a["stats"]
        count, mean, m2 = (spread(case, v) for v in (found.count, found.mean, found.m2))
        var = m2 / np.maximum(count, 1)
    else:
        x = np.where(np.isinf(x) & keep, np.nan, x)
        if case.norm == "rms":
            count, mean = total(case, np.ones(case.shape, WIDE)), WIDE(0)
            var = total(case, x**2) / count
        else:
            count, mean, m2 = textbook_moments(case, x, keep)
            var = m2 / count
    v = np.asarray(var + WIDE(float(a["eps"])))
    return x, mean, np.where(v == 0, 0, 1 / np.sqrt(v)), count


def _assert_gradients(case: Case, a: dict[str, Any], got: nbn.Gradients, by: Any) -> None:
    x, mean, rstd, count = by
    keep, gamma = _keep(case, a), _parameter(case, a, "gamma", 1)
    dy = wide(a["dy"])
    if a.get("activation") is not None:
        dy = np.where(wide(a["y"]) <= 0, 0, dy)
        rounded = dy.astype(np.float64).astype(got.dx.dtype)
        np.testing.assert_array_equal(wide(got.dresidual), wide(rounded))
    xhat = (x - mean) * rstd
    counted = keep | np.isfinite((x - mean) * dy)
    known, dknown = np.where(counted, xhat, 0), np.where(counted, dy, 0)
    around = (np.abs(known) + np.abs(mean * rstd) + 1) * np.sqrt(1 + x.size / 256)
    of_statistics = share = WIDE(0)
    if count is not None:
        first = total(case, gamma * dknown) / count * (case.norm != "rms")
        second = total(case, gamma * dknown * known) / count
        share = around * total(case, np.abs(gamma * dknown) * around) / count
        of_statistics = np.where(keep, first + xhat * second, 0)
    dx = rstd * (gamma * dy - of_statistics)
    assert_near(got.dx, Expected(dx, np.abs(rstd) * (np.abs(gamma * dy) + share)))
    over = tuple(i for i in range(len(case.shape)) if i not in case.own)
    sums = (dknown * known, np.abs(dknown) * around), (dknown, np.abs(dknown))
    for found, (terms, sizes) in zip((got.dgamma, got.dbeta), sums, strict=True):
        if case.norm == "rms" and found is None:
            continue
        assert found.dtype == _dtype_of_parameters(a)
        # float64 sums of what was computed in float32
        room = 2.0**32 if found.dtype == np.float64 != got.dx.dtype else None
        assert_near(found, Expected(terms.sum(over), sizes.sum(over)), room)


def _dtype_of_parameters(a: dict[str, Any]) -> np.dtype:
    dtype = result_dtype((a["x"] if a["gamma"] is None else a["gamma"]).dtype)
    return dtype if dtype.itemsize > 2 else np.dtype(np.float32)


def _assert_statistics(case: Case, a: dict[str, Any], got: nbn.ChannelStats) -> None:
    keep, x = _keep(case, a), wide(a["x"])
    x = np.where(np.isinf(x), np.nan, x)
    if a.get("nan_policy") == "omit":
        x, keep = wide(a["x"]), keep & ~np.isnan(wide(a["x"]))
        x = np.where(np.isinf(x), np.nan, x)
    channels = tuple(case.shape[i] for i in case.own)
    count, mean, m2 = (
        np.asarray(v, WIDE).reshape(channels) for v in textbook_moments(case, x, keep)
    )
    np.testing.assert_array_equal(got.count, count.astype(np.float64))
    deviation = np.sqrt(m2 / np.maximum(count, 1))
    assert_near(got.mean, Expected(np.where(count > 0, mean, np.nan), np.abs(mean) + deviation))
    assert_near(got.m2, Expected(m2, m2 + count * 1e-16 * mean**2 * 1e-14), room=1 << 12)


def _assert_folded(a: dict[str, Any], got: tuple[Array, Array]) -> None:
    weight, bias = got
    case = Case("frozen", a["weight"].shape, (int(a["output_axis"]),))
    assert weight.dtype == bias.dtype == result_dtype(a["weight"].dtype)
    defaults = {"bias": 0, "gamma": 1, "beta": 0}
    b, gamma, beta, mean, var = (
        WIDE(defaults[n]) if a[n] is None else wide(a[n])
        for n in ("bias", "gamma", "beta", "mean", "var")
    )
    v = np.asarray(var + WIDE(float(a["eps"])))
    scale = gamma * np.where(v == 0, 0, 1 / np.sqrt(v))
    want = wide(a["weight"]) * spread(case, np.float64(scale))
    assert_near(weight, Expected(want, np.abs(want)))
    terms = (np.abs(b) + np.abs(mean)) * np.abs(scale) + np.abs(beta)
    assert_near(bias, Expected((b - mean) * scale + beta, terms))


def assert_near(got: Array, want: Expected, room: float | None = None) -> None:
    """Compare within a few roundings of the terms; what is beyond the dtype is infinite."""
    assert got.shape == np.shape(want.value)
    info, unit = ml_dtypes.finfo(got.dtype), precision(got.dtype)
    working = 2.0**-23 if got.dtype in HALVES else unit
    room = room or (64 if got.dtype == np.float64 else 8)
    value = np.asarray(want.value)
    bound = unit * np.abs(value) + room * working * want.size + 2 * float(info.smallest_subnormal)
    top = np.nextafter(float(info.max), 0) * (1 - 2 * unit)
    wrong = np.abs(wide(got) - value) > bound
    wrong |= np.isnan(got.astype(np.float64)) != np.isnan(value)
    wrong &= np.isfinite(value) & (np.abs(value) + bound < top)
    beyond = np.abs(value) - bound > float(info.max) * (1 + unit)
    lost = (~np.isfinite(value) | beyond) & np.isfinite(got.astype(np.float64))
    assert not (wrong | lost).any(), (
        f"got {got[wrong | lost][:3]}, expected {value[wrong | lost][:3].astype(float)} at "
        f"{np.argwhere(wrong | lost)[:3].tolist()}"
    )
