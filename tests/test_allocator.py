"""Freed memory is kept on the CPU, unless the environment says otherwise; numbers are the same."""

import subprocess
import sys

import pytest
from conftest import ROOT

PROGRAM = """
import resource, torch
from lib.core import allocator, devices
devices.device(-1)
kept = allocator.keep_freed_memory()
total = 0.0
for turn in range(30):
    if turn == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    total += float(torch.ones(1 << 24).sum() + torch.ones(1 << 23).sum())  # 64 and 32 MiB, cleared and given back
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, total)
"""


def found(**environment: str) -> tuple[str, int, float]:
    """Whether memory is kept, page faults of ten turns, what was computed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={"OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kept, faults, total = done.stdout.split()
    return kept, int(faults), float(total)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_blocks_that_were_given_back_are_not_asked_for_anew():
    kept, own = found(), found(KEEP_FREED_MEMORY="0")
    assert (kept[0], own[0]) == ("True", "False") and kept[2] == own[2]
    assert kept[1] < 100 < 1000 < own[1]
    assert found(MALLOC_ARENA_MAX="2")[0] == "False"  # somebody has chosen
