"""What this machine computes with: device, number type, memory. Each choice says its reason."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
import torch
from torch import Tensor

from honing.errors import UserError


@dataclass(frozen=True)
class Choice:
    """A value that was chosen, and why."""

    value: str
    reason: str


def choose_device(setting: str) -> Choice:
    """cuda, then mps, then cpu. Raises UserError where the device asked for is not there."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if setting != "auto":
        if not available[setting]:
            raise UserError(
                f"device: {setting}, but torch finds none on this machine; use device=cpu"
            )
        return Choice(setting, "as configured")
    device = next(name for name, there in available.items() if there)
    reasons = {
        "cuda": f"{torch.cuda.get_device_name()} found" if device == "cuda" else "",
        "mps": "an Apple GPU found",
        "cpu": "no GPU found",
    }
    return Choice(device, reasons[device])


def choose_dtype(setting: str, device: str) -> Choice:
    """Number type of the frozen base: what the device computes fast."""
    if setting != "auto":
        return Choice(setting, "as configured")
    if device == "cuda":
        if torch.cuda.get_device_capability() >= (8, 0):
            return Choice("bfloat16", "this GPU has bfloat16 units")
        return Choice("float16", "this GPU has no bfloat16 units; losses are scaled")
    if device == "cpu" and _cpu_has_bfloat16_units():
        return Choice("bfloat16", "this CPU has bfloat16 units")
    if device == "cpu":
        return Choice("float32", "this CPU has no bfloat16 units and would emulate them slowly")
    return Choice("float32", "the safe type on this device")


def _cpu_has_bfloat16_units() -> bool:
    # The private names are torch's own test; public ones do not exist in 2.13.
    cpu = torch.cpu
    return bool(
        getattr(cpu, "_is_avx512_bf16_supported", lambda: False)()
        or getattr(cpu, "_is_amx_tile_supported", lambda: False)()
    )


def total_memory_bytes(device: str) -> int:
    """Memory of the device; on a CPU, and where the two share it, the machine's."""
    if device == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory)
    return int(psutil.virtual_memory().total)


def peak_memory_bytes(device: str) -> int:
    """Highest use so far: of the GPU's memory by torch, else of RAM by this process."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return _peak_resident_bytes()


def _peak_resident_bytes() -> int:
    memory = psutil.Process().memory_info()
    if peak := getattr(memory, "peak_wset", 0):  # Windows
        return int(peak)
    status = Path("/proc/self/status")
    if status.exists():  # Linux, whose ru_maxrss counts what the process was started from, too
        lines = status.read_text(encoding="utf-8").splitlines()
        kilobytes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        if kilobytes:
            return int(kilobytes[0]) * 1024
    try:
        import resource
    except ImportError:
        return int(memory.rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def give_back_memory() -> None:
    """Free RAM that the C library keeps between tensors for later, where it is glibc.

    It costs time where much is taken again at once: 14 % of a step that keeps its activations.
    """
    if trim := _malloc_trim():
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim


def set_seed(seed: int) -> None:
    """torch's generators on all devices; honing draws from no other global one."""
    torch.manual_seed(seed)


def random_states(device: str) -> list[Tensor]:
    """States of torch's generators: the CPU's, then those of the device."""
    states = [torch.get_rng_state()]
    if device == "cuda":
        states += torch.cuda.get_rng_state_all()
    if device == "mps":
        states.append(torch.mps.get_rng_state())
    return states


def set_random_states(device: str, states: Sequence[Tensor]) -> None:
    """Put back what random_states gave."""
    torch.set_rng_state(states[0])
    if device == "cuda":
        torch.cuda.set_rng_state_all(list(states[1:]))
    if device == "mps":
        torch.mps.set_rng_state(states[1])
