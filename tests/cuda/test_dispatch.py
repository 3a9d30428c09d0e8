"""Arrays on a device through the public calls: what is asked of the device, and what comes back."""

import numpy as np
import pytest
from calls import CALLS, NORMS
from ranks import together
from table import LAYOUTS, Case, data, forward

import numba_bn as nbn

CASE = Case("batch", (3, 4, 5, 6))


def on_device(arguments, cupy):
    """The arguments of a call, its arrays on the device."""
    return {
        n: cupy.array(value) if isinstance(value, np.ndarray) else value
        for n, value in arguments.items()
        if not isinstance(value, nbn.ChannelStats)
    }


def called(name, cupy, **more):
    """A call from the table with arrays on the device; statistics from there too."""
    arguments = on_device(CALLS[name].arguments(), cupy)
    if "stats" in CALLS[name].arguments():
        arguments["stats"] = nbn.batch_norm_train(arguments["x"])[1]
    return getattr(nbn, CALLS[name].function)(**{**arguments, **more})


def arrays_in(result):
    items = result if isinstance(result, tuple) else (result,)
    return [item for item in items if item is not None and hasattr(item, "strides")]


@pytest.mark.parametrize("name", NORMS)
def test_results_are_the_callers_kind_in_the_shapes_and_dtypes_of_numpys(bench, name):
    got, want = arrays_in(called(name, bench.cupy)), arrays_in(CALLS[name]())
    assert len(got) == len(want) > 0
    for a, b in zip(got, want, strict=True):
        assert type(a) is bench.cupy.ndarray
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


@pytest.mark.parametrize("name", NORMS)
def test_all_launches_are_on_the_librarys_current_stream(bench, name):
    bench.cupy.cuda.handle = 123
    called(name, bench.cupy)
    assert {launched.stream for launched in bench.driver.launched} == {123}


@pytest.mark.parametrize("name", NORMS)
def test_kernels_get_the_very_arrays(bench, name):
    called(name, bench.cupy)
    x = CALLS[name].arguments()["x"]
    out = bench.cupy.empty(x.shape, x.dtype)
    before = len(bench.driver.launched)
    result = called(name, bench.cupy, out=out)
    assert arrays_in(result)[0] is out
    addresses = {a for launched in bench.driver.launched[before:] for a in launched.arguments}
    assert out.data.ptr in addresses


def test_the_device_is_left_current_as_it_was(bench):
    called("batch_norm", bench.cupy)
    notes = [note[0] for note in bench.driver.notes if note[0] in ("enter", "leave")]
    assert notes
    assert notes[::2] == ["enter"] * (len(notes) // 2)
    assert notes[1::2] == ["leave"] * (len(notes) // 2)


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm", "group_norm", "layer_norm"])
def test_a_call_for_y_alone_allocates_that_alone(bench, monkeypatch, name):
    made, empty = [], bench.cupy.empty
    monkeypatch.setattr(bench.cupy, "empty", lambda s, dtype: made.append(s) or empty(s, dtype))
    result = called(name, bench.cupy)
    assert made == [result.shape]


@pytest.mark.parametrize("layout", ["C", "F", "transposed", "interleaved"])
def test_dense_arrays_in_any_memory_order_are_not_copied(bench, layout):
    d = data(CASE, np.float32)
    x = bench.cupy.array(LAYOUTS[layout](d.x))
    y = forward(CASE, d._replace(x=x))
    assert y.strides == x.strides
    assert all(x.data.ptr in launched.arguments for launched in bench.driver.launched)


def test_a_strided_array_is_packed_by_its_own_library(bench):
    x = bench.cupy.array(np.ones((4, 6, 8), np.float32))
    view = bench.cupy.ndarray(x.view[..., ::2])
    assert nbn.batch_norm(view).shape == (4, 6, 4)
    assert all(x.data.ptr not in launched.arguments for launched in bench.driver.launched)


def test_statistics_stay_on_the_device(bench, monkeypatch):
    def never(*_):
        raise AssertionError("the device was waited for")

    monkeypatch.setattr(bench.cupy, "asnumpy", never)
    x = bench.cupy.array(CALLS["batch_norm"].arguments()["x"])
    layer, running = nbn.BatchNorm(6), nbn.RunningStats(6)
    y, stats = nbn.batch_norm_train(x)
    running.update(stats)
    nbn.batch_norm_backward(y, x, stats=stats)
    nbn.batch_norm(x, mean=running.running_mean, var=running.running_var)
    layer(x)
    layer.backward(y)
    layer.eval()(x)
    nbn.channel_stats(x)
    assert type(stats.mean) is bench.cupy.ndarray
    assert type(running.running_mean) is bench.cupy.ndarray
    assert (stats.count.shape, stats.m2.dtype) == ((6,), np.float64)
    assert repr(stats) == "DeviceChannelStats(channels=(6,), device='cuda:0')"


def test_numpy_parameters_are_sent_along(bench):
    x = bench.cupy.array(CALLS["batch_norm"].arguments()["x"])
    assert type(nbn.batch_norm(x, np.ones(6), [0.0] * 6)) is bench.cupy.ndarray


def test_checks_are_those_of_numpy_arrays(bench):
    x = bench.cupy.array(np.ones((2, 4), np.float32))
    with pytest.raises(ValueError, match=r"^batch_norm: gamma must have shape \(4,\), got \(2,\)"):
        nbn.batch_norm(x, bench.cupy.array(np.ones(2, np.float32)))
    with pytest.raises(TypeError, match="x must have a real floating-point or integer dtype, got"):
        nbn.layer_norm(bench.cupy.array(np.ones((2, 4), bool)))
    with pytest.raises(TypeError, match="gamma must have a real floating-point or integer dtype"):
        nbn.batch_norm(x, np.array([None] * 4))
    with pytest.raises(ValueError, match="layer_norm: out must have the shape of x"):
        nbn.layer_norm(x, out=bench.cupy.array(np.ones((2, 5), np.float32)))
    with pytest.raises(TypeError, match="layer_norm: out must have dtype float32, got float64"):
        nbn.layer_norm(x, out=bench.cupy.array(np.ones((2, 4))))
    with pytest.raises(ValueError, match="where must broadcast to the shape of x"):
        nbn.batch_norm(x, where=bench.cupy.array(np.ones((3, 4), bool)))
    with pytest.raises(ValueError, match="BatchNorm2d: expected 4-D x, got 2-D"):
        nbn.BatchNorm2d(4)(x)
    assert bench.driver.launched == []


def test_what_is_for_the_memory_of_the_cpu_is_refused_by_name(bench):
    x = bench.cupy.array(np.ones((2, 4), np.float32))
    with pytest.raises(TypeError) as caught:
        nbn.channel_stats(x, reproducible=True)
    assert str(caught.value) == (
        "channel_stats: reproducible is for arrays in the CPU's memory, got x of shape (2, 4) on "
        "cuda:0"
    )
    expected = r"comm is for arrays in the CPU's memory, got x of shape \(2, 4\) on cuda:0$"
    stats = nbn.ChannelStats(*np.ones((3, 4)))
    before = len(bench.driver.launched)

    def calls(comm):
        return (
            lambda: nbn.batch_norm_train(x, comm=comm),
            lambda: nbn.batch_norm_backward(x, x, stats=stats, comm=comm),
            lambda: nbn.BatchNorm(4, comm=comm)(x),
        )

    def alone(comm, which):
        with pytest.raises(TypeError, match=expected):
            calls(comm)[which]()

    for which in range(3):
        together(lambda comm, which=which: alone(comm, which), size=2)
    assert len(bench.driver.launched) == before


def test_out_may_be_x_but_not_a_part_of_it(bench):
    x = bench.cupy.array(np.ones((4, 8), np.float32))
    assert nbn.layer_norm(x, out=x) is x
    whole = bench.cupy.array(np.ones((5, 8), np.float32))
    with pytest.raises(ValueError, match=r"out of shape \(4, 8\) partly overlaps an input"):
        nbn.layer_norm(whole[:4], out=whole[1:])


def test_a_broadcast_mask_becomes_one_of_the_shape_of_x(bench):
    x = bench.cupy.array(CALLS["channel_stats"].arguments()["x"])
    nbn.channel_stats(x, where=bench.cupy.array(np.ones((4, 1, 5), bool)))
    (launched,) = bench.driver.launched
    assert "_1_" in launched.label  # the masked variant


def test_a_layer_follows_its_input_and_returns(bench):
    x = CALLS["batch_norm"].arguments()["x"]
    layer = nbn.BatchNorm(6)
    layer(bench.cupy.array(x))
    for vector in (layer.gamma, layer.beta, layer.running_mean, layer.running_var):
        assert type(vector) is bench.cupy.ndarray
    kept = layer.gamma
    layer(bench.cupy.array(x))
    assert layer.gamma is kept
    state = layer.state_dict()
    assert all(type(value) is np.ndarray for value in state.values())
    assert state["num_batches_tracked"] == 2
    assert layer.to(x) is layer
    assert type(layer.gamma) is type(layer.running_var) is np.ndarray
    layer.load_state_dict(state)
    assert layer.eval()(x).shape == x.shape
    layer.train()(bench.cupy.array(x))
    del state["num_batches_tracked"]
    layer.load_state_dict(state)
    assert layer(bench.cupy.array(x)).dtype == layer.gamma.dtype == x.dtype


@pytest.mark.parametrize("options", [{}, {"affine": False}])
def test_the_name_of_a_device_says_too_little_to_move_there(options):
    for what in (nbn.BatchNorm(6, **options), nbn.RunningStats(6)):
        text = rf"^{type(what).__name__}\.to: like must be an array, got 'cuda': .* moves to its"
        with pytest.raises(TypeError, match=text):
            what.to("cuda")


def test_one_value_per_channel_is_refused_without_a_look_at_the_device(bench):
    x = bench.cupy.array(np.ones((1, 6), np.float32))
    _, stats = nbn.batch_norm_train(x)
    with pytest.raises(ValueError, match="expected more than 1 value per channel in training"):
        nbn.RunningStats(6).update(stats)
    with pytest.raises(ValueError, match="expected more than 1 value per channel in training"):
        nbn.BatchNorm(6)(x)


def test_without_values_nothing_is_launched(bench):
    x, stats = bench.cupy.empty((0, 4), np.float32), nbn.ChannelStats(*np.ones((3, 4)))
    got = nbn.batch_norm_backward(x, x, stats=stats, activation="relu", y=x)
    assert got.dx.shape == got.dresidual.shape == x.shape
    assert got.dgamma.shape == (4,)
    assert bench.driver.launched == []


def test_a_numpy_x_beside_arrays_on_a_device_is_refused_by_name(bench):
    gamma = bench.cupy.array(np.ones(4, np.float32))
    with pytest.raises(TypeError) as caught:
        nbn.batch_norm(x=np.ones((2, 4)), gamma=gamma)
    assert str(caught.value) == (
        "batch_norm: all arrays must be on one device, got x of kind numpy.ndarray and gamma of "
        "kind cupy.ndarray"
    )


def test_so_are_positional_ones_beside_numpys(bench):
    x, stranger = np.ones((2, 4), np.float32), bench.cupy.array(np.ones((2, 4), np.float32))
    vector, mask = (bench.cupy.array(np.ones(4, dtype)) for dtype in ("f4", "?"))
    known = {"mean": x[0], "var": x[0]}
    _, stats = nbn.batch_norm_train(stranger)
    for name, call in {
        "batch_norm: gamma": lambda: nbn.batch_norm(x, vector),
        "batch_norm: residual": lambda: nbn.batch_norm(x, residual=stranger),
        "batch_norm: out": lambda: nbn.batch_norm(x, out=stranger),
        "batch_norm_backward: x": lambda: nbn.batch_norm_backward(x, stranger, **known),
        "channel_stats: where": lambda: nbn.channel_stats(x, where=mask),
        "ChannelStats: mean": lambda: nbn.ChannelStats(x[0], vector, x[0]),
    }.items():
        text = rf"^{name} must be a NumPy array, got cupy\.ndarray, an array on a device"
        with pytest.raises(TypeError, match=text):
            call()
    with pytest.raises(TypeError, match=r"^batch_norm_backward: stats must be .* pass stats.get()"):
        nbn.batch_norm_backward(x, x, stats=stats)


def test_a_layers_gradient_must_be_where_its_input_is(bench):
    x, layer = np.ones((2, 4), np.float32), nbn.BatchNorm(4)
    theirs = bench.cupy.array(x)
    layer(x)
    text = (
        r"^BatchNorm\.backward: dy must be where the last x is, on the CPU, got cupy.ndarray on c"
    )
    with pytest.raises(TypeError, match=text):
        layer.backward(theirs)
    layer(theirs)
    text = (
        r"^BatchNorm\.backward: dy must be where the last x is, on cuda:0, got numpy.ndarray on t"
    )
    with pytest.raises(TypeError, match=text):
        layer.backward(x)


def test_mixed_libraries_are_refused_by_name(bench):
    torch = pytest.importorskip("torch")
    x = bench.cupy.array(np.ones((2, 4), np.float32))
    with pytest.raises(TypeError, match=r"kind of x, cupy\.ndarray, or .* got torch\.Tensor"):
        nbn.batch_norm(x, torch.ones(4))
    with pytest.raises(TypeError, match=r"of the kind of x, torch\.Tensor, .* got cupy\.ndarray"):
        nbn.batch_norm(torch.ones(2, 4), bench.cupy.array(np.ones(4, np.float32)))


def test_ranks_hear_of_what_is_refused_of_one_array_on_a_device(bench):
    x = np.ones((2, 4), np.float32)

    def step(comm):
        mine = bench.cupy.array(x) if comm.rank == 1 else x
        return nbn.batch_norm_train(mine, out=x.copy(), comm=comm)

    assert [type(error) for error in together(step, size=2)] == [RuntimeError, TypeError]


def test_a_mask_may_be_one_value(bench):
    x = bench.cupy.array(np.ones((2, 3, 4), np.float32))
    for where in (True, np.True_):
        nbn.batch_norm_train(x, where=where)
    for wrong in (True, "ones"):
        with pytest.raises((TypeError, ValueError), match=r"^batch_norm_train: gamma must"):
            nbn.batch_norm_train(x, wrong)
