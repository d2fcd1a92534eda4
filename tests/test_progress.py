"""What a person sees while a command runs: something at once, images, the whole run's time left; nothing in a log."""

import re
import subprocess
import sys
import types

import pytest
import terminal_windows
from conftest import ROOT, script

from lib.core import progress
from lib.core.progress import ATTACK, FORWARD, TRAINING, Whole


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(progress, "time", types.SimpleNamespace(perf_counter=lambda: self.now))

    def run(self, whole: Whole, kind: str, images: int, per_image: float) -> None:
        whole.begin(kind, images)
        for _ in range(images):
            self.now += per_image
            whole.advance(1)


def test_the_time_left_is_that_of_every_pass_that_is_to_come(monkeypatch):
    clock, whole = Clock(monkeypatch), Whole()
    for _ in range(3):
        whole.plan(TRAINING, 100)
        whole.plan(FORWARD, 50)
    whole.begin(TRAINING, 100)
    for _ in range(50):
        clock.now += 0.3
        whole.advance(1)
    assert whole.of_pass() == pytest.approx(50 * 0.3)
    assert whole.left() == pytest.approx((50 + 200) * 0.3 + 150 * 0.1)  # of one forward: a third
    for _ in range(50):
        clock.now += 0.3
        whole.advance(1)
    clock.run(whole, FORWARD, 50, 0.2)
    assert whole.left() == pytest.approx(200 * 0.3 + 100 * 0.2)
    clock.run(whole, TRAINING, 100, 0.3)
    clock.run(whole, FORWARD, 50, 0.2)
    clock.run(whole, TRAINING, 100, 0.3)
    clock.run(whole, FORWARD, 50, 0.2)
    assert whole.left() == pytest.approx(0) and not whole.planned


def test_what_passes_between_passes_is_taken_to_go_on(monkeypatch):
    clock, whole = Clock(monkeypatch), Whole()
    whole.plan(FORWARD, 10, 10)
    clock.run(whole, FORWARD, 10, 1.0)
    clock.now += 10
    assert whole.left() == pytest.approx(20)


def test_a_kind_that_was_not_timed_is_not_guessed(monkeypatch):
    clock, whole = Clock(monkeypatch), Whole()
    assert whole.left() is None
    whole.plan(FORWARD, 10)
    whole.plan(ATTACK, 10)
    clock.run(whole, FORWARD, 10, 1.0)
    assert whole.left() is None and whole.of_pass() == 0


def test_a_training_on_a_terminal_counts_images_and_says_what_is_left_of_the_run(tmp_path):
    words = ("lenet", "-d", "digits", "-dir", "a", "-e", "3", "--max-examples", "500", "-gpu", "-1")
    text = terminal_windows.run("exec_train.py", *words, cwd=tmp_path, width=100)
    bars = [line for line in text.split("\r") if line.startswith("epoch ") and "%|" in line]
    assert any(line.startswith("epoch 1/3:") for line in bars) and any(line.startswith("epoch 3/3:") for line in bars)
    assert {total for line in bars for total in re.findall(r"\| \d+/(\d+)", line)} == {"500"}
    assert any(re.search(r"\d s left, run \d.*, \d+ images/s", line) for line in bars), bars[-3:]
    announced = terminal_windows.left(text)
    assert any(re.match(r"epoch 1/3 .* val [\d.]+  .* s, .* left$", line) for line in announced), announced
    assert any(re.match(r"epoch 3/3 .* val [\d.]+  [\d.]+ s$", line) for line in announced)


def test_something_is_said_before_libraries_are_loaded(trained):
    """The first words come before torch can be: loading it alone takes longer than everything before."""
    seconds: list[float] = []
    text = terminal_windows.run("exec_eval.py", "models/a/model_2.pt", "--overwrite", cwd=trained, seconds=seconds)
    assert text.startswith("preparing ...") and "loading libraries ..." in text
    assert seconds[0] < seconds[-1] / 2
    shown = terminal_windows.left(text)
    assert not any("..." in line and "loading" in line for line in shown)  # what was said for the time is gone


def test_a_log_and_quiet_have_no_bars(tmp_path):
    words = ("exec_train.py", "lenet", "-d", "digits", "-dir", "a", "-e", "1", "--max-examples", "100", "-gpu", "-1")
    done = script(*words, cwd=tmp_path)
    assert done.returncode == 0 and "%|" not in done.stderr and "loading" not in done.stderr
    assert "\r" not in done.stderr and "epoch 1/1" in done.stderr
    assert script(*words, "--overwrite", "--quiet", cwd=tmp_path).stderr == ""


def test_the_bar_says_what_the_gpu_holds(monkeypatch):
    """A library in torch's place that says it has a GPU."""
    cuda = types.SimpleNamespace(is_initialized=lambda: True, max_memory_reserved=lambda: 3 * 2**29)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    whole = Whole()
    whole.begin(FORWARD, 10)
    whole.advance(5)
    assert "GPU 1.5 GiB" in progress._said(whole, FORWARD)
    monkeypatch.setattr(cuda, "is_initialized", lambda: False)
    assert "GPU" not in progress._said(whole, FORWARD)


def test_the_last_batch_counts_its_own_images():
    whole = Whole()
    assert len(list(progress.image_bar(iter(range(3)), 10, 4, label="x", quiet=True, whole=whole))) == 3
    assert whole.images == {FORWARD: 10}


def test_help_does_without_the_bars_library():
    program = (
        "import runpy, sys; sys.argv = ['exec_train.py', '--help']\n"
        "try: runpy.run_path('exec_train.py', run_name='__main__')\n"
        "except SystemExit: print('tqdm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("False\n")
