"""How many processors there are: by affinity, and by cgroup quotas, on made-up trees."""

import os

import pytest

from numba_bn import _processors


def tree(root, memberships, files):
    """Write a made-up /proc/self/cgroup, and quotas by their path under /sys/fs/cgroup."""
    files = {f"sys/fs/cgroup/{path}": text for path, text in files.items()}
    for path, text in {"proc/self/cgroup": memberships, **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root


V1 = "12:pids:/a\n4:cpu,cpuacct:/docker/x\n3:cpuacct:/z\n1:name=systemd:/a\n"


def v1(folder, quota, period=100_000):
    return {
        f"{folder}/cpu.cfs_quota_us": f"{quota}\n",
        f"{folder}/cpu.cfs_period_us": f"{period}\n",
    }


@pytest.mark.parametrize(
    ("memberships", "files", "expected"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "500000 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/../../host/c\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/a\n", {"b/cpu.max": "100000 100000\n"}, None),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
        ("0::/\n", {"cpu.max": "100000 0\n"}, None),
        ("0::/\n", {"cpu.max": ""}, None),
        ("", {"cpu.max": "100000 100000\n"}, None),
        (V1, v1("cpu,cpuacct/docker/x", 250_000), 3),
        (V1, v1("cpu,cpuacct/docker/x", -1), None),
        (V1, v1("cpu,cpuacct", 500_000), 5),
        (V1, v1("cpu,cpuacct/docker/x", -1) | v1("cpu,cpuacct/docker", 60_000, 50_000), 2),
        (V1, v1("cpuacct/z", 100_000), None),
        ("1:cpu:/\n0::/\n", v1("cpu", 700_000) | {"unified/cpu.max": "100000 100000\n"}, 7),
    ],
)
def test_quotas(tmp_path, memberships, files, expected):
    assert _processors.cgroup_quota(tree(tmp_path, memberships, files)) == expected


def test_no_cgroups_at_all(tmp_path):
    assert _processors.cgroup_quota(tmp_path) is None


def test_the_lesser_of_affinity_and_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(_processors, "affinity", lambda: 3)
    for quota, expected in ((2, (2, "cgroup quota")), (3, (3, "CPU affinity"))):
        root = tree(tmp_path, "0::/\n", {"cpu.max": f"{quota}00000 100000\n"})
        assert _processors.available(root) == expected
    assert _processors.available(tmp_path / "nothing") == (3, "CPU affinity")


def test_affinity(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5}, raising=False)
    assert _processors.affinity() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert _processors.affinity() == 1
