"""What is computed with: each choice and its reason."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from honing.errors import UserError
from honing.model.device import (
    Choice,
    choose_device,
    choose_dtype,
    give_back_memory,
    peak_memory_bytes,
    random_states,
    set_random_states,
    set_seed,
    total_memory_bytes,
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine with these devices."""

    def pretend(
        cuda: bool = False,
        mps: bool = False,
        capability: tuple[int, int] = (8, 0),
        avx512: bool = False,
        amx: bool = False,
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA GeForce RTX 3070")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)

    return pretend


def test_auto_takes_cuda_then_mps_then_cpu(machine: Any) -> None:
    machine(cuda=True, mps=True)
    assert choose_device("auto") == Choice("cuda", "NVIDIA GeForce RTX 3070 found")
    machine(mps=True)
    assert choose_device("auto") == Choice("mps", "an Apple GPU found")
    machine()
    assert choose_device("auto") == Choice("cpu", "no GPU found")


def test_a_configured_device_is_taken_where_it_is_there(machine: Any) -> None:
    machine(cuda=True)
    assert choose_device("cuda") == Choice("cuda", "as configured")
    assert choose_device("cpu") == Choice("cpu", "as configured")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_configured_device_that_is_not_there(machine: Any, device: str) -> None:
    machine()
    with pytest.raises(UserError) as caught:
        choose_device(device)
    assert str(caught.value) == (
        f"device: {device}, but torch finds none on this machine; use device=cpu"
    )


def test_number_type_of_a_gpu(machine: Any) -> None:
    for capability in ((8, 0), (8, 6), (12, 0)):
        machine(cuda=True, capability=capability)
        assert choose_dtype("auto", "cuda") == Choice("bfloat16", "this GPU has bfloat16 units")
    machine(cuda=True, capability=(7, 5))
    assert choose_dtype("auto", "cuda") == Choice(
        "float16", "this GPU has no bfloat16 units; losses are scaled"
    )


def test_number_type_of_a_cpu(machine: Any) -> None:
    machine()
    assert choose_dtype("auto", "cpu") == Choice(
        "float32", "this CPU has no bfloat16 units and would emulate them slowly"
    )
    for units in ({"avx512": True}, {"amx": True}):
        machine(**units)
        assert choose_dtype("auto", "cpu") == Choice("bfloat16", "this CPU has bfloat16 units")


def test_a_torch_that_cannot_tell_counts_as_a_cpu_without_units(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(avx512=True, amx=True)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert choose_dtype("auto", "cpu").value == "float32"


def test_number_type_of_an_apple_gpu_and_a_configured_one(machine: Any) -> None:
    machine(mps=True, avx512=True)
    assert choose_dtype("auto", "mps") == Choice("float32", "the safe type on this device")
    assert choose_dtype("float16", "cpu") == Choice("float16", "as configured")


def test_memory_is_the_machines_unless_the_device_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Card:
        total_memory = 8_000_000_000

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Card)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 500_000_000)
    assert total_memory_bytes("cuda") == 8_000_000_000
    assert total_memory_bytes("cpu") == psutil.virtual_memory().total
    assert total_memory_bytes("mps") == psutil.virtual_memory().total
    assert peak_memory_bytes("cuda") == 500_000_000


def test_peak_memory_is_in_bytes_and_never_falls() -> None:
    resident = psutil.Process().memory_info().rss
    peak = peak_memory_bytes("cpu")
    assert resident * 0.9 < peak < resident * 10  # kibibytes taken for bytes would be off by 1,024
    block = torch.ones(8_000_000)  # 32 MB
    with_block = peak_memory_bytes("cpu")
    del block
    batched = 1_000_000  # Linux adds up pages of each thread some dozens at a time
    assert peak_memory_bytes("cpu") >= with_block - batched
    assert with_block >= peak - batched


def test_seed_and_random_states_repeat_the_same_numbers() -> None:
    set_seed(7)
    first = torch.rand(4)
    states = random_states("cpu")
    second = torch.rand(4)
    set_random_states("cpu", states)
    assert torch.equal(torch.rand(4), second)
    set_seed(7)
    assert torch.equal(torch.rand(4), first)


def test_random_states_hold_those_of_the_device_too(monkeypatch: pytest.MonkeyPatch) -> None:
    put_back: dict[str, Any] = {}
    state = torch.zeros(3, dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [state + 1, state + 2])
    monkeypatch.setattr(
        torch.cuda, "set_rng_state_all", lambda states: put_back.update(cuda=states)
    )
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state + 3)
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state: put_back.update(mps=state))
    set_random_states("cuda", random_states("cuda"))
    set_random_states("mps", random_states("mps"))
    assert [int(card[0]) for card in put_back["cuda"]] == [1, 2]
    assert int(put_back["mps"][0]) == 3


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_what_lies_between_tensors_is_given_back() -> None:
    resident = psutil.Process().memory_info
    tensors = [torch.ones(4000) for _ in range(20_000)]
    before = resident().rss
    del tensors[:-1]  # the last one stands in the way at the end of the heap
    kept = resident().rss
    give_back_memory()
    freed = kept - resident().rss
    assert freed > 150_000_000 > before - kept, "of 320 MB"


def test_a_peak_is_not_that_of_what_started_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    before = peak_memory_bytes("cpu")
    monkeypatch.setattr(resource, "getrusage", lambda _: pytest.fail("asked for a parent's peak"))
    assert peak_memory_bytes("cpu") >= before > psutil.Process().memory_info().rss // 2
