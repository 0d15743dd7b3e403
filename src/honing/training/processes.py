"""Processes that share one work: which of them this one is, and what all of them agree on.

torchrun or accelerate launch starts one for each device. Each computes its share; sums over all of
them keep them equal; the first one alone writes files and speaks. A process by itself gets back
from everything here what it gave. Every method but shares_of is called by all processes, in the
same order.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list, gather_object, reduce
from torch import Tensor

from honing.errors import HoningError, UserError
from honing.model.device import choose_device

T = TypeVar("T")

_LONGEST_WAIT = timedelta(hours=1)
"""For a process that is at work alone, as the first one is with the data. One that has ended is
noticed at once on CPUs, and by the launcher elsewhere."""


class ProcessLost(HoningError):
    """Another of the processes has ended, so that this one cannot go on."""


@dataclass(frozen=True)
class Processes:
    """This process among all. rank: from 0, the first. local_rank, num_local: on this machine."""

    rank: int = 0
    number: int = 1
    local_rank: int = 0
    num_local: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def shares_of(self, members: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
        """Every process's share of some rows.

        The longest row goes first, each to the process with the fewest tokens so far: no share is
        longer than 4/3 of what the best division gives (Graham 1969).
        """
        shares: list[list[int]] = [[] for _ in range(self.number)]
        filled = [0] * self.number
        for index in sorted(members, key=lambda index: (-lengths[index], index)):
            rank = filled.index(min(filled))
            shares[rank].append(index)
            filled[rank] += lengths[index]
        return shares

    def own_seed(self, seed: int, step: int) -> int:
        """A seed for what each process draws for itself, far from its neighbours'."""
        return int(np.random.SeedSequence([seed, self.rank, step]).generate_state(1)[0])

    def sum_of(self, *numbers: float) -> tuple[float, ...]:
        """Sums over all processes, in float64."""
        if self.number == 1:
            return numbers
        own = torch.tensor(numbers, dtype=torch.float64, device=PartialState().device)
        return tuple(self._reduced(own).tolist())

    def any_of(self, flag: bool) -> bool:
        return self.sum_of(float(flag))[0] > 0

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Put the sum over all processes in the place of each gradient; all travel together."""
        if self.number == 1:
            return
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self._reduced(torch.cat([gradient.reshape(-1) for gradient in own]))
        for parameter, part in zip(parameters, _parts(flat, parameters), strict=True):
            parameter.grad = part.to(parameter.dtype)

    def send_values(self, parameters: Sequence[Tensor]) -> None:
        """Give every process the first one's values."""
        if self.number == 1:
            return
        with torch.no_grad():
            flat = torch.cat([parameter.reshape(-1) for parameter in parameters])
            with _noticing_losses(self):
                broadcast(flat)
            for parameter, part in zip(parameters, _parts(flat, parameters), strict=True):
                parameter.copy_(part)

    def gathered(self, value: T) -> list[T]:
        """The value of each process, in their order."""
        if self.number == 1:
            return [value]
        with _noticing_losses(self):
            return list(gather_object([value]))

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, or the error that it meets there; the others wait."""
        if self.number == 1:
            return make()
        outcome = [_attempt(make) if self.is_first else None]
        with _noticing_losses(self):
            broadcast_object_list(outcome)
        assert outcome[0] is not None
        value, error = outcome[0]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def each(self, make: Callable[[], T]) -> T:
        """What each process makes for itself. The error of one is the error of all."""
        if self.number == 1:
            return make()
        value, error = _attempt(make)
        errors = self.gathered(error)
        for rank, found in enumerate(errors):
            if found is not None:
                raise found if rank == 0 else type(found)(f"process {rank}: {found}")
        return value  # type: ignore[return-value]

    def in_turns(self, make: Callable[[], T]) -> T:
        """As each, with one process of every machine first: the others find its caches filled."""
        if self.number == 1:
            return make()
        goes_first = self.local_rank == 0
        first = self.each(make if goes_first else _nothing)
        rest = self.each(_nothing if goes_first else make)
        return first if goes_first else rest  # type: ignore[return-value]

    def _reduced(self, own: Tensor) -> Tensor:
        with _noticing_losses(self):
            total: Tensor = reduce(own, "sum")
        return total


def number_started() -> int:
    """How many processes a launcher has started for one work; 1 without a launcher."""
    variables = os.environ
    return int(variables["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE"} <= set(variables) else 1


def by_itself(what: str) -> None:
    """Raise UserError where a launcher has started several processes for what is one's work."""
    if (number := number_started()) > 1:
        raise UserError(f"{what}: is the work of one process, and {number} were started for it")


@contextmanager
def together(device: str) -> Iterator[Processes]:
    """This process and those that were started with it, at one work while the body runs.

    device: as configured. An error that all share is raised in the first process; the others end
    silently with its exit status. Raises UserError for devices that several cannot compute on.
    """
    if number_started() == 1:
        yield Processes()
        return
    device = choose_device(device).value
    num_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    _check_devices(device, num_local)
    state = _meet(device)
    processes = Processes(
        state.process_index, state.num_processes, state.local_process_index, num_local
    )
    try:
        yield processes
    except ProcessLost:
        raise
    except HoningError as error:
        _leave(state)
        if processes.is_first:
            raise
        raise SystemExit(error.exit_status) from None
    _leave(state)


def _check_devices(device: str, num_local: int) -> None:
    if device == "mps":
        raise UserError(
            "device: mps: this machine has one such device, and several processes cannot share "
            "it; start one process, or use device=cpu"
        )
    if device == "cuda" and num_local > torch.cuda.device_count():
        raise UserError(
            f"device: cuda: {num_local} processes on this machine have {torch.cuda.device_count()} "
            "GPUs; start one process for each"
        )


def _meet(device: str) -> PartialState:
    """Wait until all processes are there. A GPU becomes this process's own."""
    backend = {"backend": "gloo"} if device == "cpu" else {}
    try:
        with warnings.catch_warnings(action="ignore"):  # of the number of threads that it sets
            return PartialState(cpu=device == "cpu", timeout=_LONGEST_WAIT, **backend)
    except RuntimeError as error:
        at = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(
            f"MASTER_ADDR, MASTER_PORT: the processes did not meet at {at} ({_reason(error)}); "
            "start them with torchrun or accelerate launch"
        ) from None


def _leave(state: PartialState) -> None:
    """Let go of the others, so that this process may work on alone."""
    state.destroy_process_group()
    state._reset_state()  # it is one for the whole process, and would stay among the others


@contextmanager
def _noticing_losses(processes: Processes) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ProcessLost(
            f"process {processes.rank} of {processes.number}: another one has ended, so this one "
            f"ends too ({_reason(error)}); look for its own message, and start again, a training "
            "with --resume: what was saved stands"
        ) from None


def _reason(error: Exception) -> str:
    """What a library says, without the place in its own source and its advice."""
    line = str(error).strip().partition("\n")[0]
    return re.sub(r"^\[[^]]*\] ", "", line).partition(". ")[0][:160]


def _attempt(make: Callable[[], T]) -> tuple[T | None, HoningError | None]:
    try:
        return make(), None
    except HoningError as error:
        return None, error


def _nothing() -> None:
    return None


def _parts(flat: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """A flat tensor in pieces of the parameters' shapes."""
    pieces = torch.split(flat, [parameter.numel() for parameter in parameters])
    return [piece.view_as(parameter) for piece, parameter in zip(pieces, parameters, strict=True)]
