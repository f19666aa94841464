"""How many threads torch is given and how they wait: what is set, what of the user's stands, and what is told."""

import json
import logging
import os
import subprocess
import sys

import pytest

from surefoot import threads

OURS = dict(threads.SHORT_SPIN)


def python(program, **environ):
    """A finished Python of its own, which ran `program` and had heard nothing about threads but `environ`."""
    told = (*threads.WAITING, "OMP_NUM_THREADS", "LOCAL_WORLD_SIZE")
    silent = {name: value for name, value in os.environ.items() if name not in told}
    return subprocess.run(
        [sys.executable, "-c", program], env=silent | environ, capture_output=True, text=True, check=True
    )


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.fixture
def no_torch(monkeypatch, eight_cores):
    """As in a process that has not loaded torch, on a machine of eight cores."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(threads, "_cpu_groups", lambda *_: [])


# ------------------------------------------------------------------------------------------ before torch is loaded


def test_the_first_public_name_makes_the_threads_wait_asleep_before_torch_is_loaded():
    program = (
        "import json, os, sys, surefoot\n"
        "before = ['torch' in sys.modules, 'OMP_WAIT_POLICY' in os.environ]\n"
        "surefoot.ops\n"
        "after = ['torch' in sys.modules, os.environ['OMP_WAIT_POLICY'], os.environ['GOMP_SPINCOUNT']]\n"
        "print(json.dumps([before, after]))"
    )
    assert json.loads(python(program).stdout) == [[False, False], [True, *OURS.values()]]


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings another OpenMP there")
def test_openmp_itself_reads_what_the_command_line_sets():
    program = "import surefoot.cli; surefoot.cli.main(['env'])"
    done = python(program, OMP_DISPLAY_ENV="VERBOSE")
    assert f"GOMP_SPINCOUNT = '{OURS['GOMP_SPINCOUNT']}'" in done.stderr
    assert f"waiting          {threads.waiting(OURS)}\n" in done.stdout


def test_nothing_is_set_when_torch_is_there_already():
    environ: dict[str, str] = {}
    threads.share_cores(environ)  # these tests have loaded torch
    assert environ == {}


@pytest.mark.parametrize("theirs", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}, {"KMP_BLOCKTIME": "0"}])
def test_a_users_word_on_waiting_stands_alone(no_torch, theirs):
    environ = dict(theirs)
    threads.share_cores(environ)
    assert environ == theirs


# ------------------------------------------------------------------------------------------ how many


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({}, None),  # torch's own choice, which may be one thread a physical core
        ({"LOCAL_WORLD_SIZE": "2"}, "4"),
        ({"LOCAL_WORLD_SIZE": "3"}, "2"),
        ({"LOCAL_WORLD_SIZE": "16"}, "1"),
        ({"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}, "1"),  # torchrun's, or the user's
        ({"OMP_NUM_THREADS": "64"}, "64"),
    ],
)
def test_processes_divide_the_cores_and_a_given_number_stands(no_torch, given, count):
    environ = dict(given)
    threads.share_cores(environ)
    assert environ.get("OMP_NUM_THREADS") == count


def test_a_control_group_that_allows_less_is_obeyed(no_torch, monkeypatch, tmp_path):
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    monkeypatch.setattr(threads, "_cpu_groups", lambda *_: [tmp_path])
    environ: dict[str, str] = {}
    threads.share_cores(environ)
    assert environ["OMP_NUM_THREADS"] == "3"


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def limited(tmp_path, memberships):
    (tmp_path / "self").write_text(memberships)
    return threads.usable_cores(tmp_path / "groups", tmp_path / "self")


def test_the_tightest_group_on_the_way_up_counts(eight_cores, tmp_path):
    groups = tmp_path / "groups"
    write(groups / "jobs" / "mine", cpu__max="max 100000\n")
    write(groups / "jobs", cpu__max="150000 100000\n")
    assert limited(tmp_path, "0::/jobs/mine\n") == 2
    write(groups / "jobs" / "mine", cpu__max="50000 100000\n")
    assert limited(tmp_path, "0::/jobs/mine\n") == 1


def test_groups_of_version_1_count_too(eight_cores, tmp_path):
    write(
        tmp_path / "groups" / "cpu,cpuacct" / "a", **{"cpu.cfs_quota_us": "400000\n", "cpu.cfs_period_us": "100000\n"}
    )
    write(tmp_path / "groups" / "memory" / "a", **{"cpu.cfs_quota_us": "100000\n", "cpu.cfs_period_us": "100000\n"})
    assert limited(tmp_path, "2:memory:/a\n1:cpu,cpuacct:/a\n0::/\n") == 4
    write(tmp_path / "groups" / "cpu,cpuacct" / "a", **{"cpu.cfs_quota_us": "-1\n"})
    assert limited(tmp_path, "2:memory:/a\n1:cpu,cpuacct:/a\n0::/\n") == 8


def test_a_group_seen_from_within_a_container_is_found_at_the_root(eight_cores, tmp_path):
    write(tmp_path / "groups", cpu__max="200000 100000\n")
    assert limited(tmp_path, "0::/docker/not/mounted/here\n") == 2


def test_a_system_without_control_groups_has_the_cores_it_is_scheduled_on(eight_cores, tmp_path):
    assert threads.usable_cores(tmp_path, tmp_path / "absent") == 8


# ------------------------------------------------------------------------------------------ what is told


def test_how_threads_wait_is_told_with_what_set_it():
    assert threads.waiting({}) == "spinning, OpenMP's default"
    assert threads.waiting(OURS) == "asleep after a short spin (OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=1000)"
    assert threads.waiting({"OMP_WAIT_POLICY": "ACTIVE"}) == "as set (OMP_WAIT_POLICY=ACTIVE)"


def test_only_a_departure_is_told(no_torch):
    assert threads.departure(8, OURS) == ""
    fewer = threads.departure(1, OURS | {"OMP_NUM_THREADS": "1"})
    assert fewer.startswith("1 on 8 cores (OMP_NUM_THREADS=1); they wait asleep after a short spin")
    assert threads.departure(8, {}) == "8 on 8 cores; they wait spinning, OpenMP's default"


@pytest.mark.parametrize(
    ("count", "load", "environ", "warned"),
    [(2, 3.0, {}, True), (1, 3.0, {}, False), (2, 0.5, {}, False), (2, 3.0, OURS, False),
     (2, 3.0, {"OMP_WAIT_POLICY": "ACTIVE"}, False)],
)  # fmt: skip
def test_spinning_threads_on_a_busy_machine_are_warned_of(monkeypatch, caplog, count, load, environ, warned):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with caplog.at_level(logging.WARNING, "surefoot"):
        threads.warn_of_spinning(count, environ)
    assert ("OMP_WAIT_POLICY=PASSIVE" in caplog.text) is warned
