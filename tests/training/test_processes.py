"""Who shares a work: one process alone, the shares of several, and what they refuse.

tests/integration/test_several_processes.py starts several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from honing.cli import main
from honing.errors import UserError
from honing.training import processes as module
from honing.training.processes import Processes, by_itself, number_started, together


def fail() -> None:
    raise UserError("there is none")


def test_one_alone_gets_back_what_it_gives() -> None:
    with together("cpu") as alone:
        assert alone == Processes(rank=0, number=1, local_rank=0, num_local=1)
        assert alone.is_first
        parameter = torch.nn.Parameter(torch.ones(2))
        parameter.grad = gradient = torch.tensor([1.0, 2.0])
        alone.sum_gradients([parameter])
        alone.send_values([parameter])
        assert parameter.grad is gradient
        assert alone.sum_of(0.1, 2.0) == (0.1, 2.0)
        assert (alone.any_of(True), alone.any_of(False)) == (True, False)
        value = object()
        assert alone.gathered(value) == [value]
        for method in (alone.from_first, alone.each, alone.in_turns):
            assert method(lambda: value) is value
            with pytest.raises(UserError, match="there is none"):
                method(fail)
    with pytest.raises(UserError, match="there is none"), together("cpu"):
        fail()


@pytest.mark.parametrize(
    ("number", "shares"),
    [
        (1, [[4, 1, 3, 0, 2]]),
        (2, [[4, 0], [1, 3, 2]]),  # 9 + 2 and 5 + 4 + 1 tokens
        (3, [[4], [1, 2], [3, 0]]),
        (6, [[4], [1], [3], [0], [2], []]),
    ],
)
def test_the_longest_row_goes_first_each_to_the_shortest_share(
    number: int, shares: list[list[int]]
) -> None:
    lengths = [2, 5, 1, 4, 9, 100]
    assert Processes(number=number).shares_of([0, 1, 2, 3, 4], lengths) == shares


def test_rows_of_equal_length_are_dealt_out_evenly() -> None:
    shares = Processes(number=3).shares_of(range(8), [7] * 8)
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5]]


def test_each_process_draws_from_a_seed_of_its_own() -> None:
    seeds = {
        Processes(rank=rank, number=3).own_seed(seed, step)
        for rank in range(3)
        for seed in (1, 2)
        for step in (0, 1)
    }
    assert len(seeds) == 12


def test_how_many_a_launcher_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert number_started() == 1
    monkeypatch.setenv("WORLD_SIZE", "4")  # as a batch system may leave it
    assert number_started() == 1
    by_itself("demo")
    monkeypatch.setenv("RANK", "0")
    assert number_started() == 4
    with pytest.raises(UserError) as caught:
        by_itself("demo")
    assert str(caught.value) == "demo: is the work of one process, and 4 were started for it"


@pytest.mark.parametrize(
    "command",
    [
        *(["demo"], ["train", "CONFIG", "--selftest-resume"], ["prepare", "CONFIG"]),
        *(["plan", "CONFIG"], ["check", "outputs"], ["merge", "outputs"]),
    ],
)
def test_commands_for_one_process_refuse_several(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("CONFIG").write_text("{}\n", encoding="utf-8")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.endswith(": is the work of one process, and 2 were started for it\n")
    assert [path.name for path in tmp_path.iterdir()] == ["CONFIG"]


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (
            "mps",
            "device: mps: this machine has one such device, and several processes cannot share it; "
            "start one process, or use device=cpu",
        ),
        (
            "cuda",
            "device: cuda: 3 processes on this machine have 2 GPUs; start one process for each",
        ),
    ],
)
def test_devices_that_several_cannot_compute_on(
    device: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)

    def meet(_: str) -> Any:
        pytest.fail("the processes met")

    monkeypatch.setattr(module, "_meet", meet)
    with pytest.raises(UserError) as caught, together(device):
        pass
    assert str(caught.value) == message


def test_processes_that_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_state(**_: Any) -> Any:
        raise RuntimeError("[/src/TCPStore.cpp:1] the port is taken. Try another.\nmore")

    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "here")
    monkeypatch.setenv("MASTER_PORT", "123")
    monkeypatch.setattr(module, "PartialState", no_state)
    with pytest.raises(UserError) as caught, together("cpu"):
        pass
    assert str(caught.value) == (
        "MASTER_ADDR, MASTER_PORT: the processes did not meet at here:123 (the port is taken); "
        "start them with torchrun or accelerate launch"
    )
