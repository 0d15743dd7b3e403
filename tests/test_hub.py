"""Is the Hub there? Without a network: connections are what the test makes of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from huggingface_hub import constants

from honing.hub import hub_is_reachable, use_cache_if_unreachable


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No switch, no proxy, nothing asked yet; afterwards all is as it was."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    hub_is_reachable.cache_clear()
    yield
    hub_is_reachable.cache_clear()


class Network:
    """Counts connections; refuses them where it is down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: OSError | None = None) -> None:
        self.asked: list[tuple[tuple[str, int], float]] = []
        self.error = error
        monkeypatch.setattr(socket, "create_connection", self.connect)

    def connect(self, address: tuple[str, int], timeout: float) -> socket.socket:
        self.asked.append((address, timeout))
        if self.error is not None:
            raise self.error
        return socket.socket()


def test_a_connection_that_opens_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch)
    assert hub_is_reachable()
    assert network.asked == [(("hub.example", 443), 5.0)]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        TimeoutError(),
        socket.gaierror(-2, "Name or service not known"),
        OSError(101, "Network is unreachable"),
    ],
)
def test_one_that_does_not_is_none(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    Network(monkeypatch, error)
    assert not hub_is_reachable()


def test_the_answer_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, TimeoutError())
    assert [hub_is_reachable() for _ in range(3)] == [False] * 3
    network.error = None
    assert not hub_is_reachable()
    assert len(network.asked) == 1


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("https://mirror.example/hub", ("mirror.example", 443)),
        ("http://localhost:8080", ("localhost", 8080)),
        ("http://mirror.example", ("mirror.example", 80)),
    ],
)
def test_a_mirror_is_asked_where_it_is(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, address: tuple[str, int]
) -> None:
    network = Network(monkeypatch)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    assert hub_is_reachable()
    assert [asked for asked, _ in network.asked] == [address]


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
@pytest.mark.parametrize("value", ["1", "ON", "yes", "True"])
def test_offline_is_offline_without_a_question(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    network = Network(monkeypatch)
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert not hub_is_reachable()
    assert network.asked == []


@pytest.mark.parametrize("value", ["0", "", "no", "false"])
def test_what_switches_nothing_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    network = Network(monkeypatch)
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert hub_is_reachable()
    assert len(network.asked) == 1


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_behind_a_proxy_only_trying_tells(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    network = Network(monkeypatch, TimeoutError())
    monkeypatch.setenv(name, "http://proxy:3128")
    assert hub_is_reachable()
    assert network.asked == []


@pytest.mark.parametrize("name", ["HTTP_PROXY", "NO_PROXY"])
def test_a_proxy_for_something_else_does_not_count(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    network = Network(monkeypatch, TimeoutError())
    monkeypatch.setenv(name, "http://proxy:3128")
    assert not hub_is_reachable()
    assert len(network.asked) == 1


def switches(monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[str | None, bool]:
    """The two switches after use_cache_if_unreachable."""
    import datasets

    Network(monkeypatch, **options)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # so that it is put back
    use_cache_if_unreachable()
    assert constants.HF_HUB_OFFLINE == datasets.config.HF_HUB_OFFLINE
    return os.environ.get("HF_HUB_OFFLINE"), constants.HF_HUB_OFFLINE


def test_without_a_network_the_libraries_look_into_their_caches_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert switches(monkeypatch, error=TimeoutError()) == ("1", True)


def test_with_a_network_they_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert switches(monkeypatch) == ("0", False)
