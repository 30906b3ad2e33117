import os
import subprocess
import sys

import pytest

from cxrtool import processors

QUOTAS = {
    # What /proc/self/cgroup says, the files of the groups, and the processors that they allow of eight.
    "no groups": ("", {}, 8),
    "no limit": ("0::/job", {"job/cpu.max": "max 100000"}, 8),
    "version 2": ("0::/job", {"job/cpu.max": "300000 100000"}, 3),
    "a part of a processor": ("0::/job", {"job/cpu.max": "20000 100000"}, 1),
    "rounded up": ("0::/job", {"job/cpu.max": "250000 100000"}, 3),
    "a group above": ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4),
    "the least of two": ("0::/a/b", {"a/b/cpu.max": "600000 100000", "a/cpu.max": "200000 100000"}, 2),
    "the machine's name in a container": ("0::/machine/container", {"cpu.max": "200000 100000"}, 2),
    "version 1": (
        "7:memory:/x\n4:cpu,cpuacct:/job",
        {"cpu,cpuacct/job/cpu.cfs_quota_us": "200000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"},
        2,
    ),
    "version 1 without a limit": (
        "1:cpu:/",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        8,
    ),
    "another controller": ("3:cpuset:/", {"cpuset/cpu.max": "100000 100000"}, 8),
    "nonsense": ("0::/job\nx", {"job/cpu.max": "many"}, 8),
    "more than there are": ("0::/", {"cpu.max": "1600000 100000"}, 8),
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make a machine of eight processors with these files of /proc and of the control groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(processors, "PROC", tmp_path / "proc")
    monkeypatch.setattr(processors, "CGROUPS", tmp_path / "groups")

    def make(groups="", files=(), load=None):
        texts = {"proc/self/cgroup": groups, **{f"groups/{name}": text for name, text in dict(files).items()}}
        texts |= {"proc/loadavg": load} if load else {}
        for name, text in texts.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    return make


MEMORY = {
    # What /proc/self/cgroup says, the files of the groups, and the bytes left of 8 KiB that the machine has.
    "no groups": ("", {}, 8192),
    "no limit": ("0::/job", {"job/memory.max": "max", "job/memory.current": "5000"}, 8192),
    "version 2": ("0::/job", {"job/memory.max": "6000", "job/memory.current": "5000"}, 1000),
    "but for what is kept of files": (
        "0::/job",
        {"job/memory.max": "6000", "job/memory.current": "5000", "job/memory.stat": "anon 4600\nfile 400"},
        1400,
    ),
    "a group above": ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "900", "a/memory.current": "0"}, 900),
    "version 1": (
        "7:memory:/x\n4:cpu,cpuacct:/job",
        {
            "memory/x/memory.limit_in_bytes": "3000",
            "memory/x/memory.usage_in_bytes": "2000",
            "memory/x/memory.stat": "cache 1\ntotal_cache 500",
        },
        1500,
    ),
    "more than allowed": ("0::/", {"memory.max": "100", "memory.current": "200"}, 0),
}


@pytest.mark.parametrize("case", MEMORY)
def test_memory_is_what_the_machine_and_the_groups_have_left(case, machine, tmp_path):
    groups, files, expected = MEMORY[case]
    machine(groups, files)
    assert processors.memory_left() == (float("inf") if expected == 8192 else expected)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:    16 kB\nMemAvailable:    8 kB\nHugePages_Total:   0\n")
    assert processors.memory_left() == expected


@pytest.mark.parametrize(
    ("case", "allowed"), [("no limit", None), ("version 2", 6000), ("a group above", 900), ("version 1", 3000)]
)
def test_memory_is_that_of_the_machine_or_what_the_groups_allow(case, allowed, machine):
    groups, files, _ = MEMORY[case]
    machine(groups, files)
    assert processors.memory() == (allowed or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def test_memory_held_is_of_this_process_alone(machine, tmp_path):
    machine()
    assert processors.memory_held() == 0
    (tmp_path / "proc/self/statm").write_text("900 50 20 1 0 100 0\n")
    assert processors.memory_held() == 30 * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("case", QUOTAS)
def test_processors_are_those_that_affinity_and_quota_allow(case, machine):
    groups, files, expected = QUOTAS[case]
    machine(groups, files)
    assert processors.usable() == expected


def test_affinity_counts_too(machine, monkeypatch):
    machine("0::/", {"cpu.max": "300000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5, 6})
    assert processors.usable() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert processors.usable() == 3


@pytest.mark.parametrize(
    ("load", "threads", "sentence"),
    [
        ("0.10 0.1 0.1 1/90 7", 8, ""),
        # Busy until a moment ago, and busy only in this moment.
        ("9.00 0.1 0.1 1/90 7", 8, ""),
        ("0.10 0.1 0.1 9/90 7", 8, ""),
        ("3.02 0.1 0.1 4/90 7", 5, ""),
        ("1.02 0.1 0.1 4/90 7", 8, "1 other process wants a processor, beside 8 threads here, and it has 8"),
        ("7.02 0.1 0.1 4/90 7", 6, "3 other processes want a processor, beside 6 threads here, and it has 8"),
        ("nonsense", 8, ""),
    ],
)
def test_a_busy_machine_is_told_as_such(load, threads, sentence, machine):
    machine(load=load)
    found = processors.crowded(threads)
    assert sentence in found
    assert bool(found) == bool(sentence)


def test_without_a_load_nothing_is_said(machine):
    assert processors.crowded(100) == "" or processors.others() == 0


@pytest.mark.parametrize("name", processors.CHOSEN_BY)
def test_how_threads_wait_is_left_to_a_user_who_chose_it(name):
    environment = {name: "chosen"}
    processors.spin_briefly(environment)
    assert environment == {name: "chosen"}


def test_the_program_lets_waiting_threads_sleep_before_torch_is_loaded():
    # libgomp prints what it read when it was loaded, in hexadecimal.
    code = (
        "import cxrtool.cli.main as program, cxrtool.__main__ as main\n"
        "def load():\n    import torch\n"
        "program.main = load\nmain.main()"
    )
    known = {name: value for name, value in os.environ.items() if name not in processors.CHOSEN_BY}
    for given, expected in ({}, processors.SPINNING[processors.SPINS]), ({"GOMP_SPINCOUNT": "77"}, "77"):
        environment = {**known, **given, "OMP_DISPLAY_ENV": "verbose"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        if "GOMP_SPINCOUNT" not in done.stderr:
            pytest.skip("this torch does not use libgomp")
        assert f"GOMP_SPINCOUNT = '{expected}'" in done.stderr
