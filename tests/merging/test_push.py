"""`honing merge --push`: what goes to the Hub, and what does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from honing.cli import main
from honing.run import RunFolder
from tests.report.test_push import TOKEN, StandIn, hub, refused
from tests.tiny_run import TinyRun

Captured = pytest.CaptureFixture[str]

__all__ = ["hub"]


@pytest.fixture
def run(tiny_run: TinyRun, tmp_path: Path) -> RunFolder:
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(tiny_run.folder, copy.root, symlinks=True)
    return copy


def all_bytes(folder: Path) -> Iterator[bytes]:
    return (path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_the_merged_folder_is_pushed_whole_after_its_checks(
    run: RunFolder, hub: StandIn, capsys: Captured
) -> None:
    assert main(["merge", str(run.root), "--push", "me/mine", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["checks_passed"]
    assert "Pushed: https://huggingface.co/me/mine/commit/1\n" in said.err
    (made, uploaded) = hub.calls
    assert made == ("create_repo", ("me/mine",), {"exist_ok": True})
    values: dict[str, Any] = uploaded[2]
    assert (values["repo_id"], values["folder_path"]) == ("me/mine", run.merged)
    there = {path.name for path in run.merged.iterdir()}
    assert set(values["allow_patterns"]) == there
    assert there >= {
        "README.md",
        "config.json",
        "model.safetensors",
        "honing.json",
        "tokenizer.json",
    }
    assert "trainer_state.pt" not in there
    assert TOKEN not in said.out + said.err
    assert not any(TOKEN.encode() in content for content in all_bytes(run.root))


def test_a_refusal_is_one_line_and_leaves_the_merged_model(
    run: RunFolder, hub: StandIn, capsys: Captured
) -> None:
    hub.error = refused(403)
    assert main(["merge", str(run.root), "--push", "me/mine"]) == 2
    said = capsys.readouterr()
    assert said.err.endswith(
        "honing: me/mine: your token may not write there; use your own name or a token that "
        "writes\n"
    )
    assert TOKEN not in said.out + said.err
    assert (run.merged / "merge_report.json").is_file()
    assert not any(TOKEN.encode() in content for content in all_bytes(run.root))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine", "mine: is no name of a repository; use OWNER/NAME"),
        ("me/mine", "me/mine: the Hub does not know you; run 'hf auth login' with a token that"),
    ],
)
def test_what_cannot_be_pushed_is_not_merged_first(
    name: str, said: str, run: RunFolder, hub: StandIn, capsys: Captured
) -> None:
    hub.login_error = refused(401)
    for command in ("merge", "compare"):
        assert main([command, str(run.root), "--push", name]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"honing: {said}")
    assert hub.calls == []
    assert not run.merged.exists()


def test_a_strange_owner_is_said_and_may_be_right(
    run: RunFolder, hub: StandIn, capsys: Captured
) -> None:
    assert main(["merge", str(run.root), "--push", "mee/mine"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("WARNING: --push: mee is neither me, who is logged in, nor one of")


def test_what_fails_its_checks_is_not_pushed(
    run: RunFolder, hub: StandIn, capsys: Captured
) -> None:
    best = run.checkpoints / "best"
    weights = best / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert main(["merge", str(run.root), "--push", "me/mine"]) != 0
    assert hub.calls == []
    assert capsys.readouterr().err.count("\nhoning: ") <= 1
    assert not run.merged.exists()


def test_nothing_that_is_pushed_names_a_place_on_this_machine(
    run: RunFolder, tiny_run: TinyRun, hub: StandIn
) -> None:
    assert main(["merge", str(run.root), "--push", "me/mine"]) == 0
    pushed = hub.calls[1][2]["allow_patterns"]
    places = [str(run.root.parent).encode(), str(tiny_run.base).encode()]
    for name in pushed:
        content = (run.merged / name).read_bytes()
        assert not any(place in content for place in places), name
    about = json.loads((run.merged / "honing.json").read_text(encoding="utf-8"))
    assert (about["merged_from"]["run"], about["base"]["name"]) == ("run", "base")
