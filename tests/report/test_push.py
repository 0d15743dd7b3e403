"""The push to the Hub, against a stand-in for its client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from honing.errors import UserError
from honing.report.push import check_push, push_folder

TOKEN = "hf_" + "x" * 30


class StandIn:
    """An HfApi that writes down what it is asked, and raises what it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.error: Exception | None = None
        self.login_error: Exception | None = None

    def whoami(self) -> dict[str, Any]:
        if self.login_error is not None:
            raise self.login_error
        return {"name": "me", "orgs": [{"name": "our-lab"}]}

    def create_repo(self, *args: Any, **values: Any) -> None:
        self.calls.append(("create_repo", args, values))
        if self.error is not None:
            raise self.error

    def upload_folder(self, *args: Any, **values: Any) -> SimpleNamespace:
        self.calls.append(("upload_folder", args, values))
        return SimpleNamespace(commit_url="https://huggingface.co/me/mine/commit/1")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    hub = StandIn()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr("honing.report.push.hub_is_reachable", lambda: True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("README.md", "adapter_model.safetensors", "trainer_state.pt"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    return tmp_path


def test_the_named_files_go_to_a_repository_that_may_be_there(hub: StandIn, folder: Path) -> None:
    files = ("README.md", "adapter_model.safetensors", "missing.json")
    assert push_folder(folder, "me/mine", files) == "https://huggingface.co/me/mine/commit/1"
    assert hub.calls == [
        ("create_repo", ("me/mine",), {"exist_ok": True}),
        (
            "upload_folder",
            (),
            {
                "repo_id": "me/mine",
                "folder_path": folder,
                "allow_patterns": ["README.md", "adapter_model.safetensors"],
                "commit_message": "Upload by honing",
            },
        ),
    ]


def test_without_names_all_files_go(hub: StandIn, folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "part.txt").touch()
    push_folder(folder, "me/mine")
    assert hub.calls[1][2]["allow_patterns"] == [
        "README.md",
        "adapter_model.safetensors",
        "sub/part.txt",
        "trainer_state.pt",
    ]


def test_without_a_card_nothing_is_asked_of_the_hub(hub: StandIn, folder: Path) -> None:
    (folder / "README.md").unlink()
    with pytest.raises(UserError, match=r"holds no README\.md to upload; write the card first$"):
        push_folder(folder, "me/mine")
    assert hub.calls == []


def test_an_unreachable_hub_is_said_before_anything_is_tried(
    hub: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("honing.report.push.hub_is_reachable", lambda: False)
    with pytest.raises(UserError, match=r"^me/mine: the Hub cannot be reached"):
        push_folder(folder, "me/mine")
    assert hub.calls == []


def refused(status: int) -> Exception:
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    error: Exception = HfHubHTTPError(f"{status} for\n{TOKEN}", response=response)
    return error


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalTokenNotFoundError("no token"), "nobody is logged in; run 'hf auth login'"),
        (lambda: HFValidationError("bad\nname"), "is no name of a repository; use OWNER/NAME"),
        (lambda: refused(401), "the Hub does not know you; run 'hf auth login'"),
        (lambda: refused(403), "your token may not write there"),
        (lambda: refused(404), "there is no such owner"),
        (lambda: refused(429), "the Hub asks to wait"),
        (lambda: refused(500), "the Hub refused the upload (status 500)"),
        (lambda: ConnectionError(f"{TOKEN}\n"), "the upload failed (ConnectionError); try again"),
        (lambda: RuntimeError(f"{TOKEN}\n"), "the upload failed (RuntimeError); try again"),
    ],
)
def test_each_refusal_is_one_line_without_the_token(
    hub: StandIn, folder: Path, make: Callable[[], Exception], message: str
) -> None:
    hub.error = make()
    with pytest.raises(UserError) as caught:
        push_folder(folder, "me/mine")
    text = str(caught.value)
    assert text.startswith(f"me/mine: {message}")
    assert "\n" not in text
    assert TOKEN not in text
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("name", ["mine", "me/mine/more", "me/ mine", "../mine", "", "me/"])
def test_a_name_that_is_none_is_found_before_the_hub_is_asked(hub: StandIn, name: str) -> None:
    hub.login_error = AssertionError("asked")
    with pytest.raises(UserError, match=r"is no name of a repository; use OWNER/NAME$"):
        check_push(name)


def test_whose_repository_it_is_is_asked_first(hub: StandIn) -> None:
    assert check_push("me/mine") is None
    assert check_push("our-lab/ours") is None
    assert check_push("mee/mine") == (
        "--push: mee is neither me, who is logged in, nor one of their organisations; check the "
        "name"
    )
    assert hub.calls == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalTokenNotFoundError("no token"), "nobody is logged in; run 'hf auth login'"),
        (lambda: refused(401), "the Hub does not know you; run 'hf auth login'"),
        (lambda: ConnectionError(f"{TOKEN}\n"), "the Hub cannot be asked (ConnectionError); try"),
    ],
)
def test_who_cannot_push_is_told_before_the_work(
    hub: StandIn, make: Callable[[], Exception], message: str
) -> None:
    hub.login_error = make()
    with pytest.raises(UserError) as caught:
        check_push("me/mine")
    assert str(caught.value).startswith(f"me/mine: {message}")
    assert TOKEN not in str(caught.value)
    assert hub.calls == []


def test_an_unreachable_hub_is_said_before_the_work(
    hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("honing.report.push.hub_is_reachable", lambda: False)
    with pytest.raises(UserError, match=r"^me/mine: the Hub cannot be reached"):
        check_push("me/mine")
