"""Whatever happens to the cache of compiled kernels, calls are right, and warn at most once."""

import json
import os
import shutil
import subprocess
import sys
import threading

import cache_job
import pytest
from cache_job import ROOT, run, start
from table import quickly


@pytest.fixture
def copied(tmp_path):
    """A copy of the package, without anything compiled."""
    shutil.copytree(
        ROOT / "numba_bn", tmp_path / "numba_bn", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def mounted(*how):
    """The start of a command line that runs the rest with something mounted on a folder."""
    probe = ["unshare", "-rm", "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, check=False).returncode:
        pytest.skip("needs unshare, and to be allowed to mount")
    return ["unshare", "-rm", "sh", "-c", f'{" && ".join(how)} && exec "$@"', "sh"]


def read_only(folder):
    return mounted(f"mount --bind {folder} {folder}", f"mount -o remount,ro,bind {folder}")


def full_disk(folder):
    return mounted(f"mount -t tmpfs -o size=8k tmpfs {folder}")


def full_quota(folder):
    return ["sh", "-c", 'ulimit -f 4; exec "$@"', "sh"]


def entries(folder):
    """The files of compiled kernels in a place."""
    return sorted(folder.glob("kernels-*/*.nbc"))


def assert_fresh(said, kernels=2):
    """The result is right, and every kernel was compiled."""
    assert said["right"]
    assert said["parallel"] == [False, True]
    assert (said["compiled"], said["loaded"]) == (kernels, 0)


def assert_kept(said, kernels=2):
    """The result is right, and every kernel was found, without a word."""
    assert said["right"]
    assert said["parallel"] == [False, True]
    assert (said["compiled"], said["loaded"], said["warnings"]) == (0, kernels, [])


def assert_one_warning(said, *texts):
    (warning,) = said["warnings"]
    assert warning.startswith("numba_bn: the cache of compiled kernels in ")
    for text in texts:
        assert text in warning


def test_twins_are_kept_each_on_its_own(tmp_path):
    assert_fresh(run("float32", NUMBA_BN_CACHE=str(tmp_path)))
    assert len(entries(tmp_path)) == 2
    assert_kept(run("float32", NUMBA_BN_CACHE=str(tmp_path)))


def test_nothing_is_kept_if_so_asked(copied):
    for _ in range(2):
        said = run("float32", root=copied, NUMBA_BN_CACHE="0", HOME=str(copied))
        assert_fresh(said)
        assert said["warnings"] == []
    assert not list(copied.rglob("*.nbc"))


@pytest.mark.parametrize(
    "setting", quickly([("NUMBA_BOUNDSCHECK", "1")], ("NUMBA_OPT", "1"), ("NUMBA_DEBUGINFO", "1"))
)
def test_settings_of_numba_are_told_apart(tmp_path, setting):
    place = {"NUMBA_BN_CACHE": str(tmp_path)}
    changed = {**place, setting[0]: setting[1]}
    assert_fresh(run("float32", **place))
    assert_fresh(run("float32", **changed))
    assert_kept(run("float32", **changed))
    assert_kept(run("float32", **place))


def test_another_cpu_has_its_own(tmp_path):
    place = {"NUMBA_BN_CACHE": str(tmp_path)}
    assert_fresh(run("float32", **place))
    assert_fresh(run("float32", **place, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES=""))


def test_an_edit_of_what_a_kernel_calls_is_seen(copied):
    assert run("float32", root=copied)["first"] == 0.0
    callee = copied / "numba_bn" / "_kernels" / "cpu" / "gradient_loops.py"
    before = callee.read_text(encoding="utf-8")
    edited = before.replace("load(dy, k), fill(0.0)", "load(dy, k), fill(7.0)")
    assert edited != before
    callee.write_text(edited, encoding="utf-8")
    said = run("float32", root=copied)
    assert (said["first"], said["compiled"]) == (7.0, 2)
    callee.write_text(before, encoding="utf-8")
    assert_kept(run("float32", root=copied))


@pytest.mark.parametrize("home", ["/proc/nothing", ""])
def test_a_read_only_package_and_no_home(copied, home):
    said = run("float32", root=copied, before=read_only(copied), HOME=home, XDG_CACHE_HOME="no")
    assert_fresh(said)
    assert said["warnings"] == []


def test_no_folder_can_be_made(copied):
    (copied / "numba_bn" / "__pycache__").write_text("a file where a folder should be")
    said = run("float32", root=copied)
    assert_fresh(said)
    assert said["warnings"] == []


@pytest.fixture
def nobody():
    """The start of a command line that runs the rest as a user who owns nothing."""
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    probe = [*command, sys.executable, "-c", f"open({cache_job.__file__!r})"]
    if shutil.which("setpriv") is None or subprocess.run(probe, check=False).returncode:
        pytest.skip("needs setpriv, to be root, and tests that others may read")
    return command


@pytest.mark.parametrize("below", ["", "inner"])
def test_a_home_that_may_not_be_entered(nobody, tmp_path, below):
    home = {"HOME": str(tmp_path / below)}  # pytest's folders are for their owner alone
    said = run("float32", before=nobody, **home)
    assert said["right"]
    assert said["warnings"] == []
    info = [*nobody, sys.executable, "-m", "numba_bn", "info"]
    subprocess.run(
        info, env={**os.environ, **home, "PYTHONPATH": str(ROOT)}, check=True, timeout=60
    )


def test_a_package_that_cannot_be_written_leaves_the_users_cache(copied):
    (copied / "home").mkdir()
    (copied / "numba_bn" / "__pycache__").write_text("a file where a folder should be")
    for check in (assert_fresh, assert_kept):
        check(run("float32", root=copied, HOME=str(copied / "home")))
    assert len(list((copied / "home").rglob("numba_bn/kernels-*/*.nbc"))) == 2


def test_what_an_image_was_built_with_is_found_by_users_who_cannot_write_there(copied):
    assert_fresh(run("float32", root=copied))
    assert_kept(run("float32", root=copied, before=read_only(copied)))


@pytest.mark.parametrize("obstacle", [read_only, full_disk, full_quota])
def test_a_folder_that_was_asked_for_and_takes_nothing(tmp_path, obstacle):
    before = obstacle(tmp_path)
    said = run("float32", "float64", before=before, NUMBA_BN_CACHE=str(tmp_path))
    assert_fresh(said, 4)
    assert_one_warning(said, str(tmp_path), "OSError", "NUMBA_BN_CACHE")
    assert not any(file.is_file() for file in tmp_path.rglob("*"))


def each_in_its_own_way(files):
    """One is cut short, one empty, one has another byte, one is something else."""
    short, empty, other, garbage = files
    short.write_bytes(short.read_bytes()[:1000])
    empty.write_bytes(b"")
    data = bytearray(other.read_bytes())
    data[len(data) // 2] ^= 1
    other.write_bytes(data)
    garbage.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR." * 99)


def swapped(files):
    """Every file in the place of the next."""
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(content)


@pytest.mark.parametrize("spoil", [each_in_its_own_way, swapped])
def test_spoilt_files_are_replaced(tmp_path, spoil):
    place = {"NUMBA_BN_CACHE": str(tmp_path)}
    run("float32", "float64", **place)
    spoil(entries(tmp_path))
    said = run("float32", "float64", **place)
    assert_fresh(said, 4)
    assert_one_warning(said, "is not what was written there")
    assert_kept(run("float32", "float64", **place), 4)


def test_folders_in_the_place_of_files(tmp_path):
    place = {"NUMBA_BN_CACHE": str(tmp_path)}
    run("float32", **place)
    for file in entries(tmp_path):
        file.unlink()
        file.mkdir()
    said = run("float32", **place)
    assert_fresh(said)
    assert_one_warning(said, "IsADirectoryError")


@pytest.mark.parametrize("rounds", quickly([3], 20))
def test_two_processes_with_one_cold_cache(tmp_path, rounds):
    orders = [("float32", "float64"), ("float64", "float32")]
    processes = [start(), start()]

    def stop():
        for process in processes:
            process.kill()

    def both(folder):
        for process, dtypes in zip(processes, orders, strict=True):
            print(folder, *dtypes, file=process.stdin, flush=True)
        return [json.loads(process.stdout.readline()) for process in processes]

    cold, cached, limit = [], [], threading.Timer(150, stop)
    limit.start()
    try:
        for number in range(rounds):
            cold += both(tmp_path / str(number))
            cached += both(tmp_path / str(number))
    finally:
        limit.cancel()
        stop()
        errors = [process.communicate()[1] for process in processes]
    assert errors == ["", ""]
    assert all(said["right"] and not said["warnings"] for said in cold + cached)
    assert all(said["compiled"] + said["loaded"] == 2 for said in cold)
    assert {(said["compiled"], said["loaded"]) for said in cached} == {(0, 2)}
    assert all(len(entries(tmp_path / str(number))) == 2 for number in range(rounds))
