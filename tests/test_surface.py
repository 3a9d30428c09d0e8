"""The public surface: its names, what they say of themselves, and backends that are alike."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import numba_bn as nbn

NAMES = [
    "batch_norm",
    "batch_norm_train",
    "batch_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "group_norm",
    "group_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
    "Gradients",
    "channel_stats",
    "ChannelStats",
    "RunningStats",
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "fold_batch_norm",
    "normalize_chunks",
    *(THREADS := ["set_num_threads", "get_num_threads", "threads"]),
    "warmup",
]
FUNCTIONS = [name for name in NAMES if name.islower() and name not in THREADS]
OF_ARRAYS = [name for name in FUNCTIONS if name != "warmup"]
FACES = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]
CLASSES = [name for name in NAMES if name not in (*FUNCTIONS, *FACES, *THREADS)]
MODULES = [
    "_warmup",  # compiles much: slow
    "_call",
    "_threads",
    "chunks.normalizing",
    "folding",
    "functional.batch",
    "functional.group",
    "functional.layer",
    "layers",
    "stats.channel",
    "stats.of_array",
    "stats.running",
]
PACKAGE = Path(nbn.__file__).parent


def sections(text):
    """The titles of a numpydoc docstring, in order."""
    return re.findall(r"^(\w+)\n-{3,}$", inspect.cleandoc(text), re.MULTILINE)


def documented(text):
    """The names under Parameters."""
    cleaned = inspect.cleandoc(text)
    body = re.search(r"^Parameters\n-+\n(.*?)(?=^\w+\n-{3,}$|\Z)", cleaned, re.M | re.S)[1]
    lines = re.findall(r"^(?! )(.+?)(?: : .*)?$", body, re.MULTILINE)
    return [name for line in lines for name in line.split(", ")]


def test_the_names_are_these():
    assert sorted(nbn.__all__) == sorted(NAMES)
    assert len(set(nbn.__all__)) == len(nbn.__all__)
    for name in NAMES:
        assert getattr(nbn, name).__name__ == name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_document_themselves(name):
    function = getattr(nbn, name)
    assert sections(function.__doc__) == [
        "Parameters",
        "Returns",
        "Raises",
        "References",
        "Examples",
    ]
    assert sorted(documented(function.__doc__)) == sorted(inspect.signature(function).parameters)
    assert len(function.__doc__.splitlines()[0]) < 100
    assert f"nbn.{name}(" in function.__doc__.split("Examples")[1]


@pytest.mark.parametrize("name", THREADS)
def test_settings_document_themselves(name):
    function = getattr(nbn, name)
    has = {"Parameters", "Raises"} if inspect.signature(function).parameters else set()
    assert has <= set(sections(function.__doc__))
    assert f"nbn.{name}(" in function.__doc__.split("Examples")[1]


@pytest.mark.parametrize("name", CLASSES)
def test_classes_document_themselves(name):
    kind = getattr(nbn, name)
    if name == "Gradients":
        assert sections(kind.__doc__) == ["Attributes", "Examples"]
        assert all(field in kind.__doc__ for field in kind._fields)
        return
    found = sections(kind.__doc__)
    assert [s for s in found if s != "Attributes"] == [
        "Parameters",
        "Raises",
        "References",
        "Examples",
    ]
    assert sorted(documented(kind.__doc__)) == sorted(inspect.signature(kind).parameters)


@pytest.mark.parametrize("name", [*CLASSES, *FACES])
def test_methods_document_themselves(name):
    kind = getattr(nbn, name)
    assert inspect.getdoc(kind)
    for member, value in vars(kind).items():
        if not member.startswith("_") and (callable(value) or isinstance(value, property)):
            assert value.__doc__, f"{name}.{member}"


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_arrays_are_positional_and_options_are_keywords(name):
    parameters = inspect.signature(getattr(nbn, name)).parameters
    options = [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
    arrays = [n for n in parameters if n not in options]
    assert set(options) <= {
        *("axis", "channel_axis", "output_axis", "eps", "where", "residual", "activation"),
        *("out", "mean", "var", "stats", "y", "nan_policy", "reproducible", "comm"),
        *("progress", "checkpoint", "checkpoint_every"),
    }
    order = ["dy", "x", "num_groups", "weight", "bias", "source", "target", "stats"]
    order += ["gamma", "beta", "mean", "var"]
    assert arrays == [n for n in order if n in arrays]
    defaults = {n: parameters[n].default for n in options}
    assert defaults.get("eps", 1e-5) == 1e-5
    assert defaults.get("channel_axis", 1) == 1
    assert defaults.get("axis", -1) == -1


@pytest.mark.parametrize("module", MODULES[1:])
def test_the_examples_are_true(module):
    found = doctest.testmod(importlib.import_module(f"numba_bn.{module}"))
    assert found.attempted
    assert not found.failed


@pytest.mark.slow
def test_the_example_of_warmup_is_true():
    """In a process of its own: all that ran in one is compiled, here thousands of calls."""
    job = f"""
import doctest, numba_bn.{MODULES[0]} as module
found = doctest.testmod(module)
assert found.attempted and not found.failed
"""
    subprocess.run([sys.executable, "-c", job], timeout=300, check=True)


def test_all_examples_are_run():
    with_examples = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if ">>> " in path.read_text(encoding="utf-8")
    }
    assert with_examples == set(MODULES)


def test_backends_have_equal_functions():
    reference, cpu = (
        importlib.import_module(f"numba_bn._kernels.{name}") for name in ("reference", "cpu")
    )
    names = [
        n
        for n, f in vars(reference).items()
        if inspect.isfunction(f) and not n.startswith("_") and f.__module__ == reference.__name__
    ]
    assert names[:3] == ["moments", "normalize", "forward"]
    for name in names:
        ours, theirs = (inspect.signature(getattr(m, name)) for m in (reference, cpu))
        assert [(p.name, p.default, p.kind) for p in ours.parameters.values()] == [
            (p.name, p.default, p.kind) for p in theirs.parameters.values()
        ], name


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists()
