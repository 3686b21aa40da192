"""Cores that a process may use: affinity, and quotas of control groups as files state them."""

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from xcflow import cores


def place(tmp_path, membership, files):
    """A file that names groups, and a folder of groups."""
    (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return cores.quota(tmp_path / "cgroup", tmp_path / "groups")


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        pytest.param("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5, id="a container's own root"),
        pytest.param("0::/\n", {"cpu.max": "max 100000\n"}, math.inf, id="no limit"),
        pytest.param("0::/\n", {}, math.inf, id="the root of a machine states none"),
        pytest.param(
            "0::/kube/pod/main\n",
            {
                "kube/pod/main/cpu.max": "max 100000\n",
                "kube/pod/cpu.max": "200000 50000\n",
                "kube/cpu.max": "800000 100000\n",
            },
            4.0,
            id="the least of the group and those above it",
        ),
        pytest.param(
            "0::/elsewhere/of the host\n",
            {"cpu.max": "50000 100000\n"},
            0.5,
            id="a name from outside the container",
        ),
        pytest.param("0::/../..\n", {"cpu.max": "300000 100000\n"}, 3.0, id="above the root"),
        pytest.param(
            "12:memory:/a\n4:cpu,cpuacct:/a:b\n0::/\n",
            {"cpu/a:b/cpu.cfs_quota_us": "250000\n", "cpu/a:b/cpu.cfs_period_us": "100000\n"},
            2.5,
            id="version 1",
        ),
        pytest.param(
            "4:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            math.inf,
            id="version 1, no limit",
        ),
        pytest.param("0::/\n", {"cpu.max": "what is this?\n"}, math.inf, id="unreadable"),
    ],
)
def test_quota(tmp_path, membership, files, quota):
    assert place(tmp_path, membership, files) == quota


def test_no_control_groups(tmp_path):
    assert cores.quota(tmp_path / "absent", tmp_path) == math.inf


@pytest.mark.parametrize(
    ("quota", "allowed"), [(math.inf, 8), (9.0, 8), (8.0, 8), (2.1, 3), (1.0, 1), (0.2, 1)]
)
def test_the_least_of_affinity_and_quota(monkeypatch, quota, allowed):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr(cores, "quota", lambda: quota)
    assert cores.usable_cores() == allowed


def test_threads_are_those_that_numeric_libraries_use(monkeypatch):
    monkeypatch.setattr(cores, "usable_cores", lambda: 5)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cores.allowed_threads() == 3
    cores.use_cores()
    assert cores.allowed_threads() == 3
    for odd in ("", "0", "2,1"):
        monkeypatch.setenv("OMP_NUM_THREADS", odd)
        assert cores.allowed_threads() == 5
    monkeypatch.delenv("OMP_NUM_THREADS")
    cores.use_cores()
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_a_block_is_held_to_its_share_and_no_other_thread_is(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    with cores.at_most(2), ThreadPoolExecutor(1) as another:
        with cores.at_most(1):
            assert cores.allowed_threads() == 1
        assert cores.allowed_threads() == 2
        assert another.submit(cores.allowed_threads).result() == 6
    assert cores.allowed_threads() == 6


def test_libraries_that_are_loaded_already_use_no_more():
    program = (
        "import faiss, numpy, scipy.linalg, torch\n"
        "from threadpoolctl import threadpool_info\n"
        "from xcflow.cores import use_threads\n"
        "use_threads(2)\n"
        "print({pool['num_threads'] for pool in threadpool_info()}, torch.get_num_threads())\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "3"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "{2} 2\n"


def test_a_command_that_answers_heeds_the_quota():
    program = (
        "import os, sys\n"
        "from xcflow import cores\n"
        "cores.usable_cores = lambda: 7\n"
        "from xcflow_pipelines.cli import main\n"
        "assert 'numpy' not in sys.modules\n"
        "sys.argv = ['xcflow', '--version']\n"
        "try:\n    main()\n"
        "finally:\n    print(os.environ['OMP_NUM_THREADS'], os.environ['OMP_WAIT_POLICY'])\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "7 PASSIVE"
