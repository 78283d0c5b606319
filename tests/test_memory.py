"""Free memory is what the machine has and what the control groups of the process leave."""

import pytest

from sklearn_nftk.utils._memory import available_memory

MACHINE = 8_000_000 * 1024


@pytest.fixture
def system(tmp_path):
    """Write the files of a system, given as ``{path: text}``, and measure there."""

    def measure(files, meminfo="MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n"):
        for path, text in {"proc/meminfo": meminfo, **files}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return available_memory(tmp_path)

    return measure


def v2(group, limit, usage, inactive=0):
    return {
        f"sys/fs/cgroup{group}/memory.max": f"{limit}\n",
        f"sys/fs/cgroup{group}/memory.current": f"{usage}\n",
        f"sys/fs/cgroup{group}/memory.stat": f"anon 1\ninactive_file {inactive}\nfile 5\n",
    }


def v1(group, limit, usage, inactive=0):
    return {
        f"sys/fs/cgroup/memory{group}/memory.limit_in_bytes": f"{limit}\n",
        f"sys/fs/cgroup/memory{group}/memory.usage_in_bytes": f"{usage}\n",
        f"sys/fs/cgroup/memory{group}/memory.stat": f"inactive_file 7\n"
        f"total_inactive_file {inactive}\n",
    }


OF_V2 = {"proc/self/cgroup": "0::/batch/job\n"}
OF_V1 = {"proc/self/cgroup": "9:pids:/x\n4:cpu,memory:/docker/abc\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, MACHINE),
        (OF_V2 | v2("/batch/job", "max", 10), MACHINE),
        (OF_V2 | v2("/batch/job", 5000, 1000), 4000),
        (OF_V2 | v2("/batch/job", 5000, 1000, 300), 4300),
        (OF_V2 | v2("/batch/job", "max", 10) | v2("/batch", 9000, 2000), 7000),
        (OF_V2 | v2("/batch/job", 5000, 1000) | v2("/batch", 9000, 7000), 2000),
        (OF_V2 | v2("", 6000, 1000), 5000),  # a container without a namespace of its own
        (OF_V2 | v2("/batch/job", 2 * MACHINE, 0), MACHINE),
        (OF_V2 | v2("/batch/job", 1000, 1500, 100), 0),
        (OF_V1 | v1("/docker/abc", 5000, 1000, 300), 4300),
        (OF_V1 | v1("", 6000, 1000), 5000),  # seen from inside the container
        (OF_V1 | v1("/docker/abc", 9223372036854771712, 1000), MACHINE),
        (OF_V1 | v2("", 3000, 1000), 2000),  # both versions at once
    ],
)
def test_least_of_machine_and_control_groups(files, expected, system):
    assert system(files) == expected


def test_control_groups_alone(system):
    assert system(OF_V2 | v2("/batch/job", 5000, 1000), meminfo="") == 4000


def test_systems_that_do_not_tell(tmp_path, monkeypatch):
    monkeypatch.delattr("os.sysconf")
    assert available_memory(tmp_path) is None


def test_this_system_tells():
    assert available_memory() > 0
