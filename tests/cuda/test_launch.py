"""Plans on streams: work space, order, threads; the driver itself through a stand-in library."""

import gc
import os
import subprocess
import sys
import threading
import weakref
from importlib import metadata
from pathlib import Path
from shutil import which

import numpy as np
import pytest

from numba_bn._kernels.cuda import driver
from numba_bn._kernels.cuda.kernel import Kernel, Plan, Step
from numba_bn._kernels.cuda.launch import prepare, run

HERE = Path(__file__).parent
KERNEL = Kernel("made_up", "kernel")
CORE = any(d.name == "cuda-core" for d in metadata.distributions())
"""Whether cuda-core is installed; a look for ``cuda`` would find this folder."""


def plan(*arguments, workspace=0, steps=1):
    """A plan of equal steps."""
    step = Step(KERNEL, (3,), (4, 1, 1), (128, 1, 1), arguments)
    return Plan((step,) * steps, workspace)


def zeros(bench):
    return [note[1:] for note in bench.driver.notes if note[0] == "zeros"]


def test_names_become_addresses_and_numbers_stay(bench):
    prepared = prepare(plan("x", "x+8", 7, 0.5, 0, "workspace+100", workspace=200), 0)
    run(prepared, {"x": 1000}, 5)
    (launched,) = bench.driver.launched
    *others, room = launched.arguments
    assert others == [1000, 1008, 7, 0.5, 0]
    assert (room - 100) % 256 == 0
    assert launched[:4] == (5, "kernel_3", (4, 1, 1), (128, 1, 1))


def test_arguments_of_one_stream_are_its_own(bench):
    prepared = prepare(plan("x", "y+16", 7), 0)
    for stream, x, y in [(5, 100, 200), (6, 300, 400), (5, 500, 600)]:
        run(prepared, {"x": x, "y": y}, stream)
    asked = [(launched.stream, *launched.arguments) for launched in bench.driver.launched]
    assert asked == [(5, 100, 216, 7), (6, 300, 416, 7), (5, 500, 616, 7)]


def test_every_stream_of_every_device_has_a_workspace_of_its_own_zeroed_once(bench):
    for ordinal, stream in [(0, 5), (0, 6), (1, 5), (0, 5), (1, 5), (0, 6)]:
        run(prepare(plan("workspace", workspace=200), ordinal), {}, stream)
    assert zeros(bench) == [(0, 200, 5), (0, 200, 6), (1, 200, 5)]
    rooms = [launched.arguments[0] for launched in bench.driver.launched]
    assert rooms[:3] == [rooms[3], rooms[5], rooms[4]]
    assert len(set(rooms)) == 3


def test_each_thread_has_a_workspace_for_its_own_default_stream(bench):
    prepared = prepare(plan("workspace", workspace=200), 0)
    together = threading.Barrier(2)  # the name of a thread that ended may be given again

    def work(stream):
        together.wait(10)
        run(prepared, {}, stream)
        together.wait(10)

    for stream, rooms in [(2, 2), (1, 1), (5, 1)]:
        before = len(bench.driver.launched)
        threads = [threading.Thread(target=work, args=(stream,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        launched = bench.driver.launched[before:]
        assert len(launched) == 2
        assert len({each.arguments[0] for each in launched}) == rooms


def test_threads_that_come_later_have_the_workspaces_of_those_that_ended(bench):
    prepared = [prepare(plan("workspace", workspace=200), ordinal) for ordinal in (0, 1)]

    def work():
        for _ in range(2):
            for each in prepared:
                run(each, {}, 2)

    for _ in range(5):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(30)
    assert zeros(bench) == [(0, 200, 2), (1, 200, 2)]
    rooms = [launched.arguments[0] for launched in bench.driver.launched]
    assert rooms == rooms[:2] * 10
    # what the others had launched may not be over
    assert [n for n in bench.driver.notes if n[0] == "wait"] == [("wait", 2, 1)] * 8


def test_a_workspace_grows_and_never_shrinks(bench):
    for nbytes in (200, 100, 300, 400, 0, 1000):
        run(prepare(plan("x", workspace=nbytes), 0), {"x": 1}, 5)
    assert zeros(bench) == [(0, 200, 5), (0, 400, 5), (0, 1000, 5)]


def test_a_workspace_that_a_captured_graph_may_use_is_kept(bench, monkeypatch):
    class Owner:
        """What frees its memory when it goes."""

    made = []

    def zeros(ordinal, nbytes, stream):
        owner = Owner()
        made.append(weakref.ref(owner))
        return 256, owner

    monkeypatch.setattr(bench.driver, "zeros", zeros)
    for nbytes in (200, 1000):
        run(prepare(plan("workspace", workspace=nbytes), 0), {}, 5)
    gc.collect()
    assert [ref() is None for ref in made] == [False, False]


def test_a_graph_that_is_captured_allocates_no_workspace(bench):
    prepared = prepare(plan("workspace", workspace=200), 0)
    bench.driver.capturing.add(5)
    with pytest.raises(RuntimeError, match=r"make the same calls once on that stream before$"):
        run(prepared, {}, 5)
    assert bench.driver.launched == []
    run(prepared, {}, 6)
    bench.driver.capturing.clear()
    run(prepared, {}, 5)
    bench.driver.capturing.add(5)
    run(prepared, {}, 5)
    assert [launched.stream for launched in bench.driver.launched] == [6, 5, 5]


@pytest.mark.parametrize("argument", [np.float32(0.5), np.int64(1), None])
def test_an_argument_of_another_kind_is_refused(bench, argument):
    with pytest.raises(TypeError, match=r"^kernel: argument 1 must be a str, int or float, got "):
        prepare(plan("x", argument), 0)


def test_what_needs_no_workspace_has_none(bench):
    run(prepare(plan("x"), 0), {"x": 1}, 5)
    assert zeros(bench) == []


def test_a_kernel_is_loaded_when_a_plan_is_prepared_and_its_device_is_current(bench):
    prepared = prepare(plan("x", steps=2), 1)
    assert bench.driver.notes == [
        ("enter", 1), ("kernel", 1, "kernel_3"), ("kernel", 1, "kernel_3"), ("leave",),
    ]  # fmt: skip
    run(prepared, {"x": 1}, 5)
    assert bench.driver.notes[4:] == [("enter", 1), ("leave",)]


def test_the_device_is_left_if_a_launch_fails(bench, monkeypatch):
    prepared = prepare(plan("x"), 0)
    with pytest.raises(KeyError):
        run(prepared, {}, 5)
    assert bench.driver.notes[-1] == ("leave",)
    run(prepared, {"x": 1}, 5)  # and the lock is free


def test_the_steps_of_a_plan_stay_together_on_a_stream(bench, monkeypatch):
    first, may_go_on = threading.Event(), threading.Event()
    launch = bench.driver.launch

    def slow(*asked):
        launch(*asked)
        if not first.is_set():
            first.set()
            may_go_on.wait(10)

    monkeypatch.setattr(bench.driver, "launch", slow)
    prepared = prepare(plan("x", steps=3), 0)
    threads = [threading.Thread(target=run, args=(prepared, {"x": x}, 5)) for x in (1, 2)]
    threads[0].start()
    assert first.wait(10)
    threads[1].start()
    threads[1].join(0.05)
    may_go_on.set()
    for thread in threads:
        thread.join(10)
    assert [launched.arguments[0] for launched in bench.driver.launched] == [1, 1, 1, 2, 2, 2]


def test_without_a_driver_or_its_library_the_error_says_what_to_install():
    kind = RuntimeError if CORE else ImportError
    if kind is RuntimeError and _present():
        pytest.skip("there is a driver")
    with pytest.raises(kind, match=r"numba_bn: .* [Ii]nstall"):
        driver.driver()


def _present():
    try:
        driver.driver()
    except RuntimeError:
        return False
    return True


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The folder of a libcuda.so.1 that does nothing."""
    compiler = which("cc")
    if compiler is None or not CORE or sys.platform != "linux":
        pytest.skip("needs cuda-core, Linux and a C compiler")
    folder = tmp_path_factory.mktemp("library")
    command = [compiler, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o"]
    target = folder / "libcuda.so.1"
    subprocess.run([*command, target, HERE / "stand_in_driver.c", "-ldl"], check=True)
    return folder


def job(library, tmp_path, code):
    """Run code in a process whose driver is the stand-in; return what it printed, and the notes."""
    notes = tmp_path / "notes"
    notes.touch()
    paths = os.pathsep.join([str(HERE), *sys.path])
    environment = {"LD_LIBRARY_PATH": str(library), "NOTES": str(notes), "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", f"from driver_job import *\n{code}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), [line.split() for line in notes.read_text().splitlines()]


def test_the_driver_is_asked_in_order(library, tmp_path):
    _, notes = job(library, tmp_path, "run(prepared(1, 70000), {'x': 4096}, 0xABC0)")
    stream = str(0xABC0)
    assert [note[0] for note in notes] == [
        *("push", "load", "pop", "push", "allocate", "set"),
        *("launch", "first", "launch", "first", "pop"),
    ]
    assert notes[0][1] == str(0x101)  # the context of device 1
    assert notes[4][1:] == notes[5][1:] == ["70000", stream]
    assert notes[6][1:] == notes[8][1:] == ["4", stream]
    assert notes[7][1:] == ["4096", "128"]


def test_a_stream_waits_for_another_by_an_event(library, tmp_path):
    _, notes = job(library, tmp_path, "driver().wait(1, 0xABC0, 0xDEF0)")
    names, events, others = zip(*notes, strict=True)
    assert names == ("push", "record", "wait", "pop")
    assert events[1] == events[2]
    assert (events[0], *others[1:3]) == (str(0x101), str(0xDEF0), str(0xABC0))


def test_a_stream_is_waited_for_by_the_host_and_says_whether_it_is_captured(library, tmp_path):
    code = (
        "d = driver(); d.synchronize(0, 0xABC0)\nfor s in (0xABC0, 0xCA90): print(d.captures(0, s))"
    )
    printed, notes = job(library, tmp_path, code)
    assert printed == ["False", "True"]
    assert ["synchronize", str(0xABC0), "0"] in notes


def test_a_device_is_known_by_its_attributes_and_an_address_by_its_device(library, tmp_path):
    code = "t = driver().traits(0); print(*t.device, *t.capability, driver().ordinal_of(4096))"
    assert job(library, tmp_path, code)[0] == ["132", "2048", str(50 << 20), "9", "0", "1"]


def test_a_forked_child_is_told_that_it_cannot(library, tmp_path):
    code = """
driver()
child = os.fork()
if not child:
    try:
        driver()
    except RuntimeError as error:
        print("spawn" in str(error), str(os.getppid()) in str(error), flush=True)
    os._exit(0)
os.waitpid(child, 0)
driver()
"""
    assert job(library, tmp_path, code)[0] == ["True", "True"]
