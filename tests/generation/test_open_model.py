"""MODEL on a command line → base, adapter and template; or one line that says why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import peft
import pytest
import torch

from honing.config import Config
from honing.data.template import TEMPLATES
from honing.errors import UserError
from honing.generation.answer import answer_questions
from honing.generation.open_model import OpenModel, answering_config, find_adapter, open_model
from tests.generation.asking import QUESTIONS, ask, encoded_questions, settings
from tests.tiny import CHAT_TEMPLATE, save_tiny_base, tiny_model, tiny_tokenizer
from tests.tiny_run import TinyRun

CONFIG = Config(device="cpu")


def opened(name: object, *overrides: str, base_only: bool = False) -> OpenModel:
    return open_model(str(name), answering_config(str(name), overrides), base_only=base_only)


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


def texts(model: OpenModel) -> list[str]:
    wanted = settings()
    answers, _ = answer_questions(model, encoded_questions(model, QUESTIONS, wanted), wanted)
    return [answer.text for answer in answers]


def logits(model: OpenModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.model(torch.arange(20)[None]).logits
    return found


def copy_of(run: TinyRun, folder: Path) -> Path:
    """The run in another place, its links kept."""
    return Path(shutil.copytree(run.folder, folder / "run", symlinks=True))


# --- base, adapter, template


def test_a_base_folder_is_asked_as_configured(tiny_run: TinyRun) -> None:
    model = opened(tiny_run.base)
    assert (model.adapter, model.notes, model.device) == (None, (), "cpu")
    assert model.text.template == TEMPLATES["instruction"]
    assert model.text.context_length == 256
    assert opened(tiny_run.base, "data.template=alpaca").text.template == TEMPLATES["alpaca"]
    assert torch.equal(logits(model), tiny_model("llama")(torch.arange(20)[None]).logits)


def test_a_run_is_asked_in_the_template_that_it_was_trained_with(tiny_run: TinyRun) -> None:
    """The default is another one, and does not count."""
    assert CONFIG.data.template == "instruction"
    for config in (CONFIG, answering_config(str(tiny_run.folder)), tiny_run.load()):
        model = open_model(str(tiny_run.folder), config)
        assert model.text.template == TEMPLATES["koalpaca-v1.1"]
        assert model.notes == ()


def test_the_base_of_a_run_is_the_base_in_the_same_template(tiny_run: TinyRun) -> None:
    base = opened(tiny_run.folder, base_only=True)
    plain = opened(tiny_run.base, "data.template=koalpaca-v1.1")
    tuned = opened(tiny_run.folder)
    assert base.adapter is None
    assert base.text.template == plain.text.template
    assert torch.equal(logits(base), logits(plain))
    assert texts(base) == texts(plain) != texts(tuned)


def test_a_run_answers_as_peft_has_it(tiny_run: TinyRun) -> None:
    base = tiny_model("llama")
    theirs = peft.PeftModel.from_pretrained(base, tiny_run.checkpoints / "best").eval()
    with torch.no_grad():
        expected = theirs(torch.arange(20)[None]).logits
    torch.testing.assert_close(logits(opened(tiny_run.folder)), expected)


@pytest.mark.parametrize("where", ["folder", "best"])
def test_a_template_that_is_not_the_checkpoints_is_refused(tiny_run: TinyRun, where: str) -> None:
    name = tiny_run.folder if where == "folder" else tiny_run.checkpoints / "best"
    adapter = find_adapter(str(name), None)
    message = (
        f"data.template: {adapter} was trained with the template 'koalpaca-v1.1', and answers in "
        "another would not be its own; leave it out"
    )
    custom = "data.template={prompt: '{instruction}'}"
    for override in ("data.template=instruction", "data.template=alpaca", custom):
        assert error_of(partial(opened, name, override)) == message
    assert opened(name, "data.template=koalpaca-v1.1").text.template.name == "koalpaca-v1.1"


@pytest.mark.parametrize("where", ["folder", "best"])
def test_a_base_in_other_bits_than_the_checkpoints_is_refused(
    tiny_run: TinyRun, where: str
) -> None:
    name = tiny_run.folder if where == "folder" else tiny_run.checkpoints / "best"
    adapter = find_adapter(str(name), None)
    assert error_of(partial(opened, name, "model.load_in_4bit=true")) == (
        f"model.load_in_4bit: {adapter} was trained with false, and answers on another base would "
        "not be its own; leave it out"
    )
    assert opened(name, "model.load_in_4bit=false").adapter == adapter


def test_a_template_that_this_version_does_not_know_is_refused(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_run.checkpoints / "final", tmp_path / "moved"))
    about = json.loads((folder / "honing.json").read_text())
    for template in ({"name": "new", "colour": 1}, "alpaca", ["a"], {}):
        (folder / "honing.json").write_text(json.dumps({**about, "template": template}))
        assert error_of(lambda: opened(folder)) == (
            f"{folder}: the template in honing.json is not one that this version of honing knows"
        )


def test_the_number_type_is_float32_on_a_cpu_unless_asked_for(tiny_run: TinyRun) -> None:
    name = str(tiny_run.folder)
    assert opened(name).model.get_base_model().dtype == torch.float32
    assert opened(name, "model.dtype=bfloat16").model.get_base_model().dtype == torch.bfloat16


def test_a_checkpoint_moved_elsewhere_is_enough(tiny_run: TinyRun, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(tiny_run.checkpoints / "final", tmp_path / "moved"))
    assert texts(opened(moved)) == texts(opened(tiny_run.checkpoints / "final"))


# --- a base that is not the one


def test_a_base_that_has_changed_since_is_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    other = save_tiny_base(tmp_path / "other", seed=1)
    folder = find_adapter(str(tiny_run.folder), None)
    message = error_of(lambda: opened(tiny_run.folder, f"model.base={other}"))
    start = f"{folder}: was trained on another base: {other} has changed since (fingerprint "
    assert message.startswith(start)
    assert message.endswith("; restore that base, or say where it is with model.base=…")
    assert error_of(lambda: opened(tiny_run.folder, f"model.base={other}", base_only=True)) == (
        message
    )


def test_a_base_that_was_moved_can_be_named(tiny_run: TinyRun, tmp_path: Path) -> None:
    run = copy_of(tiny_run, tmp_path)
    best = find_adapter(str(run), None)
    assert best is not None
    about = json.loads((best / "honing.json").read_text())
    gone = str(tmp_path / "gone")
    about["base"]["name"] = gone
    (best / "honing.json").write_text(json.dumps(about))
    (best / "manifest.json").unlink()  # whoever changes a file by hand removes it
    assert error_of(lambda: opened(run)) == (
        f"model.base: {gone}: no such folder, and not a Hub id either ({best} was trained on it: "
        "say where it is now with model.base=…)"
    )
    model = opened(run, f"model.base={tiny_run.base}")
    assert texts(model) == texts(opened(tiny_run.folder))


def test_a_hub_id_that_cannot_be_fetched_is_said_with_its_adapter(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_run.checkpoints / "final", tmp_path / "moved"))
    about = json.loads((folder / "honing.json").read_text())
    about["base"]["name"] = "nobody/no-such-model"
    (folder / "honing.json").write_text(json.dumps(about))
    message = error_of(lambda: opened(folder))
    assert message.startswith("model.base: nobody/no-such-model: no such folder here, and the Hub ")
    assert message.endswith(f"({folder} was trained on it: say where it is now with model.base=…)")


def test_two_bases_at_once_are_refused(tiny_run: TinyRun) -> None:
    assert error_of(lambda: opened(tiny_run.base, "model.base=gpt2")) == (
        f"model.base: gpt2, but {tiny_run.base} is the model to ask; name one"
    )
    assert opened(tiny_run.base, f"model.base={tiny_run.base}").adapter is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nothing", "model.base: ./nothing: no such folder, and not a Hub id either"),
        (
            "한국의 수도는?",
            "model.base: 한국의 수도는?: no such folder, and not a Hub id either",
        ),
    ],
)
def test_a_name_of_nothing_is_refused(name: str, message: str) -> None:
    assert error_of(lambda: opened(name)) == message


def test_a_whole_prompt_in_the_place_of_a_model_is_refused_in_one_line() -> None:
    assert error_of(lambda: opened("물은? " * 1000)).endswith("and not a Hub id either")


# --- adapters of others


@pytest.fixture
def foreign(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """An adapter that PEFT alone wrote: no honing.json."""
    folder = tmp_path / "foreign"
    model = tiny_model("llama")
    model.name_or_path = str(tiny_run.base)
    torch.manual_seed(7)
    targets = {"target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, task_type="CAUSAL_LM", **targets))
    adapted.peft_config["default"].base_model_name_or_path = str(tiny_run.base)
    adapted.save_pretrained(folder)
    return folder


def test_an_adapter_of_pefts_own_is_asked_with_a_note(tiny_run: TinyRun, foreign: Path) -> None:
    model = opened(foreign)
    assert model.adapter == foreign
    assert model.notes == (
        f"{foreign} does not say with which template it was trained; asking with 'instruction' "
        "(data.template)",
    )
    theirs = peft.PeftModel.from_pretrained(tiny_model("llama"), foreign).eval()
    with torch.no_grad():
        expected = theirs(torch.arange(20)[None]).logits
    torch.testing.assert_close(logits(model), expected)
    assert not torch.allclose(logits(opened(tiny_run.base)), expected)
    assert opened(foreign, "data.template=alpaca").text.template == TEMPLATES["alpaca"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"base_model_name_or_path": ""}', "names no base model in adapter_config.json; say "),
        ('{"peft_type": "LORA"}', "names no base model in adapter_config.json; say "),
        ("[]", "names no base model in adapter_config.json; say "),
        ("{oh", "its adapter_config.json cannot be read ("),
    ],
)
def test_an_adapter_without_a_base_is_refused(foreign: Path, content: str, message: str) -> None:
    (foreign / "adapter_config.json").write_text(content)
    assert error_of(lambda: opened(foreign)).startswith(f"{foreign}: {message}")


def test_a_checkpoint_without_a_base_is_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_run.checkpoints / "final", tmp_path / "moved"))
    for about in ({}, {"base": "gpt2"}, {"base": {"name": 3}}):
        (folder / "honing.json").write_text(json.dumps(about))
        assert error_of(lambda: opened(folder)) == (
            f"{folder}: names no base model in honing.json; say which it is with model.base=…"
        )


# --- a plain folder that says how to ask it, as a merged one does


def test_a_plain_folder_may_say_its_template(tiny_run: TinyRun, tmp_path: Path) -> None:
    merged = Path(shutil.copytree(tiny_run.base, tmp_path / "merged"))
    about = {"template": TEMPLATES["koalpaca-v1.1"].to_record()}
    (merged / "honing.json").write_text(json.dumps(about))
    model = opened(merged)
    assert (model.adapter, model.notes) == (None, ())
    assert model.text.template == TEMPLATES["koalpaca-v1.1"]
    assert error_of(lambda: opened(merged, "data.template=alpaca")).startswith(
        f"data.template: {merged} was trained with the template 'koalpaca-v1.1', "
    )


def test_a_chat_models_own_template_is_its_own(tiny_run: TinyRun, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_run.base, tmp_path / "chat"))
    assert error_of(lambda: opened(base, "data.template=chat")).startswith(
        "data.template: chat, but this base model has no chat template of its own"
    )
    (base / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    assert opened(base).notes == (
        f"{base} has a chat template of its own, and is asked in 'instruction'; "
        "data.template=chat asks in its own",
    )
    assert opened(base, "data.template=instruction").notes == ()
    model = opened(base, "data.template=chat")
    assert model.notes == ()
    assert model.text.chat is not None
    end = tiny_tokenizer().convert_tokens_to_ids("<|im_end|>")
    assert model.text.end_ids() == (end, 0)
    (tokens,) = encoded_questions(model, ["가"], settings())
    assert (
        model.text.decode(tokens.ids) == "<|im_start|>user\n가<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ask("가")[0].exchanges[0].instruction == "가"
