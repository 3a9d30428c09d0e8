"""Arrays known by their interface alone: streams that they say they are made on, and results."""

import numpy as np
import pytest
from fake_cupy import STREAM
from fake_numba import Interface

import numba_bn as nbn

ONES = np.ones((2, 4), np.float32)


def made(bench, array, stream):
    return Interface(bench.cupy.array(array), stream)


def waits(bench):
    return [note[1:] for note in bench.driver.notes if note[0] == "wait"]


def streams(*arrays):
    return [a.__cuda_array_interface__["stream"] for a in arrays]


def test_streams_of_other_arrays_are_waited_for_by_the_device(bench):
    x, out = (made(bench, ONES, 5) for _ in range(2))
    gamma, beta = (made(bench, ONES[0], stream) for stream in (7, None))
    for _ in range(2):
        assert nbn.layer_norm(x, gamma, beta, out=out) is out
    assert waits(bench) == [(5, 7)] * 2
    assert {launched.stream for launched in bench.driver.launched} == {5}


def test_an_array_without_a_stream_is_used_on_the_default_one(bench):
    x = made(bench, ONES, None)
    nbn.layer_norm(x, out=x)
    assert {launched.stream for launched in bench.driver.launched} == {1}


@pytest.mark.parametrize(("given", "said"), [(5, 5), (None, 1)])
def test_results_say_the_stream_of_their_call_and_a_later_one_waits_for_it(
    bench, numba, given, said
):
    x = made(bench, ONES, given)
    for _ in range(2):  # the second is replayed
        y, stats = nbn.batch_norm_train(x)
        gradients = nbn.batch_norm_backward(y, x, [1.0] * 4, stats=stats)
        results = y, stats.mean, gradients.dx, gradients.dgamma, gradients.dbeta
        assert streams(*results) == [said] * len(results)
    assert waits(bench) == []
    nbn.layer_norm(made(bench, ONES, 9), stats.mean, stats.m2)
    assert waits(bench) == [(9, said)]


def test_statistics_are_waited_for_as_arrays_are(bench, numba):
    stats = nbn.batch_norm_train(made(bench, ONES, 5))[1]
    x = made(bench, ONES, 7)
    for _ in range(2):
        nbn.batch_norm_backward(x, x, stats=stats)
    assert waits(bench) == [(7, 5)] * 2


def test_statistics_in_arrays_of_another_library_are_refused_by_name(bench, numba):
    theirs = made(bench, ONES, 5)
    ours, stats = bench.cupy.array(ONES), nbn.batch_norm_train(theirs)[1]
    layer, before = nbn.BatchNorm(4), len(bench.driver.launched)
    text = r"^batch_norm_backward: {} must be of the kind of x, {}, got {} on cuda:0{}$"
    kinds = r"cupy\.ndarray", r"fake_numba\.Interface"
    with pytest.raises(TypeError, match=text.format("stats", *kinds, r"; pass stats\.get\(\)")):
        nbn.batch_norm_backward(ours, ours, stats=stats)
    assert len(bench.driver.launched) == before
    layer(ours)
    before = len(bench.driver.launched)
    with pytest.raises(TypeError, match=text.format("dy", *kinds, "")):
        layer.backward(theirs)
    assert len(bench.driver.launched) == before
    assert type(nbn.batch_norm_backward(ours, ours, stats=stats.get()).dx) is type(ours)


def test_running_statistics_follow_those_of_another_library_when_they_are_there(bench, numba):
    bench.cupy.cuda.handle = 6
    running = nbn.RunningStats(4)
    running.update(nbn.batch_norm_train(bench.cupy.array(ONES))[1])
    bench.cupy.cuda.handle = 8
    running.update(nbn.batch_norm_train(made(bench, ONES, 5))[1])
    assert waits(bench) == [(8, 6)]
    assert ("synchronize", 5) in bench.driver.notes
    assert streams(running.running_mean, running.running_var) == [5, 5]


def test_an_output_made_on_another_stream_is_ready_there(bench):
    x, out = made(bench, ONES, 5), made(bench, ONES, 7)
    for _ in range(2):
        nbn.layer_norm(x, out=out)
    assert waits(bench) == [(5, 7), (7, 5)] * 2
    assert {launched.stream for launched in bench.driver.launched} == {5}


@pytest.mark.parametrize("affine", [False, True])
def test_a_layers_gradient_and_running_statistics_are_waited_for(bench, numba, affine):
    layer = nbn.BatchNorm(4, affine=affine)
    layer(made(bench, ONES, 5))
    layer.backward(made(bench, ONES, 7))
    assert (5, 7) in waits(bench)
    assert {launched.stream for launched in bench.driver.launched} == {5}
    assert streams(layer.running_mean, layer.running_var) == [5, 5]
    layer(made(bench, ONES, 9))
    assert (9, 5) in waits(bench)
    layer.eval()(made(bench, ONES, 11))
    assert (11, 9) in waits(bench)


def test_all_of_a_step_with_an_activation_is_on_one_stream(bench, numba, monkeypatch):
    x, y = made(bench, ONES, 5), made(bench, ONES, 7)
    stats = nbn.batch_norm_train(x)[1]
    monkeypatch.setattr("numba_bn._adapters.cuda.replay.program", lambda *_: None)
    nbn.batch_norm_backward(x, x, stats=stats, activation="relu", y=y)
    assert {launched.stream for launched in bench.driver.launched} == {5}


def test_gradients_of_parameters_stay_in_float64_where_nothing_can_convert(bench, numba):
    x, dy, out = (made(bench, ONES, None) for _ in range(3))
    gradients = nbn.layer_norm_backward(dy, x, out=out)
    assert gradients.dx is out
    assert gradients.dgamma.dtype == gradients.dbeta.dtype == np.float64


def test_an_interface_may_give_its_shape_in_numpys_integers(bench):
    x = made(bench, ONES, None)
    x.interface["shape"] = tuple(np.array(x.interface["shape"]))
    assert nbn.layer_norm(x, out=x) is x
    assert len(bench.driver.launched) == 1


def test_an_interface_that_says_it_has_a_mask_is_refused(bench):
    x = made(bench, ONES, None)
    x.interface["mask"] = x
    with pytest.raises(TypeError, match="layer_norm: x must have no mask"):
        nbn.layer_norm(x, out=x)


def test_an_interface_of_swapped_bytes_or_between_values_is_refused(bench):
    swapped, between = (made(bench, ONES, None) for _ in range(2))
    swapped.interface["typestr"] = ">f4"
    between.interface["data"] = between.interface["data"][0] + 2, False
    for x in swapped, between:
        with pytest.raises(TypeError, match=r"layer_norm: x must be native-endian and aligned"):
            nbn.layer_norm(x, out=x)
    assert bench.driver.launched == []


@pytest.mark.parametrize("name", ["x", "out"])
@pytest.mark.parametrize(
    "change",
    [{"mask": ONES}, {"typestr": ">f4"}, {"typestr": "|b1"}, {"shape": (4, 2)}, {"shape": (8,)}],
    ids=str,
)
def test_what_an_interface_says_is_looked_at_each_time(bench, name, change):
    given = {n: made(bench, ONES, None) for n in ("x", "gamma", "out")}
    given["gamma"] = made(bench, ONES[0], None)
    for _ in range(2):
        nbn.layer_norm(**given)
    before = len(bench.driver.launched)
    given[name].interface.update(change)
    with pytest.raises((TypeError, ValueError), match=rf"^layer_norm: (gamma|{name}) must"):
        nbn.layer_norm(**given)
    assert len(bench.driver.launched) == before


def test_an_output_that_may_no_longer_be_written_is_refused(bench):
    x, out = (made(bench, ONES, None) for _ in range(2))
    nbn.layer_norm(x, out=out)
    out.interface["data"] = out.interface["data"][0], True
    with pytest.raises(ValueError, match="layer_norm: out must be writable"):
        nbn.layer_norm(x, out=out)


def test_a_call_made_again_reads_an_interface_once(bench, numba, monkeypatch):
    read, interface = [], Interface.__cuda_array_interface__
    x, dy, out = (made(bench, ONES, 5) for _ in range(3))
    stats = nbn.batch_norm_train(x)[1]
    nbn.batch_norm_backward(dy, x, stats=stats, out=out)
    once = property(lambda self: read.append(id(self)) or interface.fget(self))
    monkeypatch.setattr(Interface, "__cuda_array_interface__", once)
    nbn.batch_norm_backward(dy, x, stats=stats, out=out)
    assert [read.count(id(a)) for a in (dy, x, out)] == [1, 1, 1]


def test_what_is_numpys_is_not_sent_along_in_a_captured_graph(bench, numba):
    ones, stats = np.ones((2, 4), np.float32), nbn.ChannelStats(*np.ones((3, 4)))
    ours = bench.cupy.array(ones)
    bench.driver.capturing.add(STREAM)
    for x in (ours, Interface(ours, STREAM)):
        for call in (
            lambda x=x: nbn.batch_norm(x, [1.0] * 4),
            lambda x=x: nbn.batch_norm_backward(x, x, stats=stats),
            lambda x=x: nbn.BatchNorm(4).to(x),
        ):
            with pytest.raises(RuntimeError, match="move them to the device before it is captured"):
                call()
    assert bench.driver.launched == []


def test_what_only_a_library_can_do_is_not_done_for_an_interface(bench, numba):
    x = bench.cupy.array(np.ones((2, 8), np.float32))
    strided = Interface(bench.cupy.ndarray(x.view[:, ::2]), None)
    with pytest.raises(TypeError, match=r"has to be packed first must be CuPy's or PyTorch's"):
        nbn.layer_norm(strided, out=made(bench, ONES, None))
    with pytest.raises(TypeError, match="has to be written in another memory order first must be"):
        nbn.layer_norm(made(bench, ONES, None), out=strided)
