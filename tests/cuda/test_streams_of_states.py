"""Running statistics on a device: new at each update, and in order on the streams that use them."""

import copy
import gc
import threading
import weakref

import numpy as np
import pytest

import numba_bn as nbn
import numba_bn._layer_input
from numba_bn.stats import _streams

ANEW = [("launch", 6), ("wait", 6, 5), ("launch", 6), ("wait", 5, 6)]
"""What an update on stream 6 does after one on stream 5: it is the last to wait."""
X = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)


@pytest.fixture
def on(bench, monkeypatch):
    """Do something on a stream; return what was waited for and launched, in order."""
    launch = bench.driver.launch

    def noted(step, stream, parameters):
        bench.driver.notes.append(("launch", stream))
        launch(step, stream, parameters)

    monkeypatch.setattr(bench.driver, "launch", noted)

    def do(stream, call):
        bench.cupy.cuda.handle = stream
        bench.driver.notes.clear()
        call()
        told = [n for n in bench.driver.notes if n[0] in ("wait", "launch", "synchronize")]
        return [n for n, before in zip(told, [None, *told], strict=False) if n != before]

    return do


@pytest.fixture
def layer(bench, on):
    """A layer that was trained on stream 5."""
    made = nbn.BatchNorm(3)
    on(5, lambda: made(bench.cupy.array(X)))
    return made


def test_an_update_makes_new_arrays_and_leaves_the_old_as_they_were(bench, layer):
    mean, var, other = layer.running_mean, layer.running_var, copy.copy(layer)
    layer(bench.cupy.array(X))
    arguments = bench.driver.launched[-1].arguments
    assert arguments[:2] == (mean.data.ptr, var.data.ptr)
    assert arguments[2:4] == (layer.running_mean.data.ptr, layer.running_var.data.ptr)
    assert len(set(arguments[:4])) == 4
    assert (other.running_mean, other.num_batches_tracked) == (mean, 1)
    assert layer.num_batches_tracked == 2


def test_what_one_stream_does_is_not_waited_for(bench, on, layer):
    x = bench.cupy.array(X)
    for use in (layer, layer.eval(), lambda _: layer.state_dict()):
        assert {n[0] for n in on(5, lambda use=use: use(x))} <= {"launch"}


def test_an_update_on_another_stream_waits_for_the_last_and_is_waited_for(bench, on, layer):
    told = on(6, lambda: layer(bench.cupy.array(X)))
    assert told == ANEW
    assert on(6, lambda: layer(bench.cupy.array(X))) == [("launch", 6)]


def test_readers_wait_for_the_update_once_and_the_next_one_for_them(bench, on, layer):
    x = bench.cupy.array(X)
    layer.eval()
    assert on(7, lambda: layer(x)) == [("wait", 7, 5), ("launch", 7)]
    assert on(7, lambda: layer(x)) == [("launch", 7)]
    assert on(8, layer.state_dict) == [("wait", 8, 5)]
    layer.train()
    told = on(5, lambda: layer(x))
    assert told == [("launch", 5), ("wait", 5, 7), ("wait", 5, 8)]


def test_a_move_is_over_when_it_returns(bench, on, layer):
    assert ("synchronize", 6) in on(6, lambda: nbn.BatchNorm(3).to(bench.cupy.array(X)))
    assert on(7, lambda: layer.to(X)) == [("wait", 7, 5)]
    assert type(layer.running_mean) is type(layer.running_var) is np.ndarray


def test_copies_wait_for_what_they_copy(bench, on, layer):
    other = []
    told = on(6, lambda: other.append(copy.deepcopy(layer)))
    assert told == [("synchronize", 5)]
    told = on(7, lambda: other[0].eval()(bench.cupy.array(X)))
    assert told == [("wait", 7, 6), ("launch", 7)]  # CuPy copies on its current stream


@pytest.fixture
def captured(bench, on, layer, monkeypatch):
    """The layer after an update that went into a CUDA graph."""
    monkeypatch.setattr(_streams, "_in_graphs", [])
    bench.driver.capturing.add(5)
    assert on(5, lambda: layer(bench.cupy.array(X))) == [("launch", 5)]
    bench.driver.capturing.clear()
    return layer


def test_an_update_in_a_captured_graph_and_all_after_it_are_in_place(bench, on, captured):
    x, mean, var = bench.cupy.array(X), captured.running_mean, captured.running_var
    assert on(6, lambda: captured(x)) == [("launch", 6), ("wait", 6, 5), ("launch", 6)]
    on(7, lambda: captured.eval()(x))
    captured.train()
    told = on(5, lambda: captured(x))
    assert told == [("launch", 5), ("wait", 5, 6), ("wait", 5, 7), ("launch", 5)]
    updates = [n for n in bench.driver.launched if n.label.startswith("update_running")][1:]
    assert [n.arguments[:4] for n in updates] == [(mean.data.ptr, var.data.ptr) * 2] * 3
    assert (captured.running_mean, captured.running_var) == (mean, var)
    other = copy.deepcopy(captured)  # is in no graph
    mean = other.running_mean
    other(x)
    assert other.running_mean is not mean


def test_what_a_captured_graph_reads_is_updated_in_place(bench, on, layer, monkeypatch):
    monkeypatch.setattr(_streams, "_in_graphs", [])
    x, mean = bench.cupy.array(X), layer.running_mean
    layer.eval()
    on(7, lambda: layer(x))
    bench.driver.capturing.add(7)
    assert on(7, lambda: layer(x)) == [("launch", 7)]
    bench.driver.capturing.clear()
    layer.train()
    assert on(5, lambda: layer(x)) == [("launch", 5), ("wait", 5, 7), ("launch", 5)]
    assert layer.running_mean is mean


@pytest.mark.parametrize("away", ["to", "load_state_dict"])
def test_what_a_captured_graph_writes_to_is_kept(bench, captured, away):
    mean = weakref.ref(captured.running_mean)
    if away == "to":
        captured.to(X)
    else:
        captured.load_state_dict(captured.state_dict())
    gc.collect()
    assert captured.running_mean is not mean() is not None


def test_a_state_that_is_loaded_leaves_its_memory_when_who_read_it_is_done(bench, on, layer):
    layer.eval()
    on(7, lambda: layer(bench.cupy.array(X)))
    state = layer.state_dict()
    assert ("wait", 5, 7) in on(5, lambda: layer.load_state_dict(state))


def test_default_streams_of_threads_meet_in_the_legacy_one(bench, on):
    layer, told = nbn.BatchNorm(3), []
    on(2, lambda: layer(bench.cupy.array(X)))
    use = lambda: told.extend(on(2, lambda: layer(bench.cupy.array(X))))  # noqa: E731
    thread = threading.Thread(target=use)
    thread.start()
    thread.join(30)
    assert told == [("launch", 2), ("wait", 2, 1), ("launch", 2), ("wait", 1, 1)]


def test_a_thread_is_not_taken_for_one_of_its_number_that_ended(bench, on):
    layer, told = nbn.BatchNorm(3), []
    use = lambda: told.append(on(2, lambda: layer(bench.cupy.array(X))))  # noqa: E731
    for _ in range(5):  # the system gives some of them one number
        thread = threading.Thread(target=use)
        thread.start()
        thread.join(30)
    # for its work space, which the other had; then for the running statistics
    waits = ("wait", 2, 1), ("launch", 2)
    assert told[1:] == [[*waits, *waits, ("wait", 1, 1)]] * 4


def test_memory_that_is_left_by_a_move_waits_for_who_read_it(bench, on, layer):
    layer.eval()
    on(7, lambda: layer(bench.cupy.array(X)))
    assert on(5, lambda: layer.to(X)) == [("wait", 5, 7)]


def test_a_call_sets_no_parameter_that_is_where_it_belongs(bench, layer, monkeypatch):
    beside, new = numba_bn._layer_input.beside, bench.cupy.array(np.ones(3, np.float32))

    def meanwhile(value, like):
        layer.gamma = new  # as another thread may
        return beside(value, like)

    monkeypatch.setattr(numba_bn._layer_input, "beside", meanwhile)
    layer(bench.cupy.array(X))
    assert layer.gamma is new


def test_threads_on_two_streams_lose_no_update(bench, layer):
    class Stream:
        ptr = property(lambda self: 100 + threading.get_ident() % 7)

    bench.cupy.cuda.get_current_stream = lambda ordinal: Stream()
    work = lambda: [layer(bench.cupy.array(X)) for _ in range(20)]  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert layer.num_batches_tracked == 81
