"""Awkward values keep what they are on the way to YAML and back; damaged files raise UserError."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from honing.config import (
    Config,
    DataConfig,
    GenerateConfig,
    LoraConfig,
    SplitFiles,
    TemplateConfig,
    TrainConfig,
)
from honing.config_file import dump_config, load_config
from honing.errors import UserError


def load(folder: Path, content: str | bytes) -> Config:
    path = folder / "c.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_config(path)


_WORDS = (
    "no null ~ 1e-4 1e5 10 0o17 2024-01-01 = << !x *x &x % ' \" \\ {instruction} +.5 .inf 1_000"
)
_TEXTS = ("", " x ", "a: b", "a #b", "- a", "줄\n바꿈\n", "x\r\ny", "\u2028", "tab\tx", "\ue0f0")
TEXTS = (*_WORDS.split(), *_TEXTS, "🎉", "긴 글 " * 60, "\x1b[0m")


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_survives_the_way_to_yaml_and_back(tmp_path: Path, text: str) -> None:
    config = Config(output_dir=text, generate=GenerateConfig(stop=[text, "끝"]))
    assert load(tmp_path, dump_config(config)) == config


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(train=TrainConfig(learning_rate=1e-05, eval_every=7, packing=True)),
        Config(data=DataConfig(source=SplitFiles(train=["a", "b"], val="c"))),
        Config(data=DataConfig(template=TemplateConfig(prompt="질문: {instruction}\n답:\n"))),
        Config(lora=LoraConfig(alpha=1e22, target_modules=["q"])),
    ],
)
def test_a_configuration_survives_the_way_to_yaml_and_back(tmp_path: Path, config: Config) -> None:
    assert load(tmp_path, dump_config(config)) == config


def mutated(content: bytes, chooser: random.Random) -> bytes:
    """A few bytes changed, dropped, doubled or put in."""
    bytes_ = bytearray(content)
    pieces = [*b"!!bool |&a |*a|[|{|? |- |\n".split(b"|"), b"9" * 40]
    for _ in range(chooser.randint(1, 4)):
        at = chooser.randrange(len(bytes_))
        kind = chooser.randrange(4)
        if kind == 0:
            bytes_[at] = chooser.randrange(256)
        elif kind == 1:
            del bytes_[at : at + chooser.randint(1, 20)]
        elif kind == 2:
            bytes_[at:at] = bytes_[at : at + chooser.randint(1, 40)]
        else:
            bytes_[at:at] = chooser.choice(pieces)
    return bytes(bytes_)


def test_damaged_files_raise_nothing_but_one_line_for_the_user(tmp_path: Path) -> None:
    valid = (
        "output_dir: 결과  # 폴더\nseed: 42\nlora: {rank: 8, target_modules: [q, k]}\ndata:\n"
        '  source: {train: "a\\u0041.csv", val: [b, c]}\n  template: {prompt: "{instruction}\\n"}\n'
        "train:\n  learning_rate: 1e-4\n  eval_every: 20\ngenerate:\n"
        "  stop:\n  - |\n    y\n  - 'x'\n"
    )
    assert load(tmp_path, valid).data.source == SplitFiles(train="aA.csv", val=["b", "c"])
    chooser = random.Random(0)
    messages: list[str] = []
    for _ in range(400):
        content = mutated(valid.encode(), chooser)
        try:
            load(tmp_path, content)
        except UserError as error:
            messages.append(str(error))
    assert 200 < len(messages) < 400
    assert not any("\n" in message for message in messages)


def test_a_key_in_bytes_of_another_encoding(tmp_path: Path) -> None:
    key = b"train.\xb0\xa1".decode("utf-8", "surrogateescape")
    with pytest.raises(UserError) as caught:
        load_config(None, [f"{key}=1"])
    assert str(caught.value) == (
        "command line, train.\\udcb0\\udca1=1: the key holds a character that stands in no text; "
        "remove it"
    )


TOKEN = "hf_" + "a1B2" * 9


@pytest.mark.parametrize(
    "line",
    [
        f"  base: {TOKEN}",
        f"  base: https://user:{TOKEN}@huggingface.co/owner/name",
        f"  # {TOKEN}",
        "  base: api_org_" + "a1B2" * 9,
    ],
)
def test_a_token_of_the_hub_is_not_taken_and_not_said(line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, f"seed: 1\nmodel:\n{line}\n".encode())
    advice = "take it out, and log in with 'hf auth login' or set HF_TOKEN"
    says = f"holds what looks like a token of the Hub, and settings are kept in files; {advice}"
    assert str(caught.value) == f"{tmp_path / 'c.yaml'}, line 3: {says}"
    for override in (line.strip("# ").replace(": ", "=", 1), f"{TOKEN}=1"):
        with pytest.raises(UserError) as caught:
            load_config(None, [override])
        assert str(caught.value) == f"command line: {says}"
