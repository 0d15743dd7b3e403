"""`honing init`: the user's own file → a configuration that trains."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from honing.cli import main
from honing.config import ColumnNames, Config, TemplateConfig
from honing.config_file import load_config
from honing.errors import UserError
from honing.init import Written, commented_yaml, init
from tests.data.reading.files import save
from tests.runs import qa_rows
from tests.tiny import CHAT_TEMPLATE
from tests.tiny_run import TinyRun

Captured = pytest.CaptureFixture[str]
CONTEXT = 256  # positions of the tiny base


@pytest.fixture(autouse=True)
def base(tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The override that names the tiny base; written is into an empty folder."""
    monkeypatch.chdir(tmp_path)
    return f"model.base={tiny_run.base}"


def lines_of(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(path: str, rows: list[dict[str, str]]) -> str:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def expected(base: str, name: str, **data: Any) -> Config:
    """What a written file is to hold: the defaults, but for what init found."""
    settings = {"source": f"{name}.jsonl", "max_length": CONTEXT, **data}
    config = Config.model_validate({"output_dir": f"outputs/{name}", "data": settings})
    model = config.model.model_copy(update={"base": base.partition("=")[2]})
    return config.model_copy(update={"model": model})


def error_of(*arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        init(*arguments, **options)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


# --- own data to a running training in two commands


def test_two_commands_lead_from_a_file_to_a_tuned_model(base: str, capsys: Captured) -> None:
    save(Path("내 자료.jsonl"), lines_of(qa_rows()))
    assert main(["init", "내 자료.jsonl", base]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out == (
        "내 자료.jsonl: 12 rows, 12 usable (alpaca)\n"
        f"  note: data.max_length is {CONTEXT}, all that {base.partition('=')[2]} knows\n"
        "The first rows as the model will see them; ⟦ ⟧ is learnt (template instruction):\n"
        "  내 자료.jsonl:1\n"
        "  │ ### Instruction:\n"
        "  │ 대한민국의 수도는 어디인가요?\n"
        "  │ \n"
        "  │ ### Response:\n"
        "  │ ⟦답 1.<|end|>⟧\n"
        "  내 자료.jsonl:2\n"
        "  │ ### Instruction:\n"
        "  │ 물은 몇 도에서 끓나요?\n"
        "  │ \n"
        "  │ ### Response:\n"
        "  │ ⟦답 2.<|end|>⟧\n"
        "  내 자료.jsonl:3\n"
        "  │ ### Instruction:\n"
        "  │ hi there\n"
        "  │ \n"
        "  │ ### Response:\n"
        "  │ ⟦답 3.<|end|>⟧\n"
        "Written: 내_자료.yaml\n"
        "Next: honing train 내_자료.yaml\n"
    )
    command = out.splitlines()[-1].removeprefix("Next: honing ").split()
    assert main([*command, "train.max_steps=1"]) == 0
    assert Path("outputs/내_자료/checkpoints/final/adapter_model.safetensors").is_file()
    assert main(["generate", "outputs/내_자료", "--prompt", "물은?"]) == 0


def test_the_record_says_what_was_found(base: str, capsys: Captured) -> None:
    save(Path("rows.jsonl"), lines_of([*qa_rows(), {"instruction": "", "output": "a"}]))
    assert main(["init", "rows.jsonl", base, "--json", "--output", "my.yaml"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "config": "my.yaml",
        "shape": "alpaca",
        "num_rows": 13,
        "num_usable": 12,
        "template": "instruction",
        "max_length": CONTEXT,
    }
    assert err.splitlines()[-1] == "Next: honing train my.yaml"
    assert load_config(Path("my.yaml")) == expected(base, "rows")


# --- shapes


def test_questions_and_answers_in_a_table(base: str) -> None:
    rows = [{"Q": row["instruction"], "A": row["output"], "label": "0"} for row in qa_rows()]
    table("chat.csv", rows)
    written = init(["chat.csv"], [base])
    assert (written.shape, written.template) == ("question-answer", "instruction")
    assert load_config(Path("chat.yaml")) == expected(base, "chat", source="chat.csv")


def test_columns_of_other_names_are_written_down(base: str, capsys: Captured) -> None:
    rows = [{"물음": row["instruction"], "풀이": row["output"]} for row in qa_rows()]
    table("chat.csv", rows)
    assert "question and answer not found among its columns (found: 물음, 풀이)" in error_of(
        ["chat.csv"], [base]
    )
    columns = "data.columns={instruction: 물음, output: 풀이}"
    assert main(["init", "chat.csv", columns, base]) == 0
    config = load_config(Path("chat.yaml"))
    assert config.data.columns == ColumnNames(instruction="물음", output="풀이")
    assert "⟦답 1.<|end|>⟧" in capsys.readouterr().out
    assert main(["train", "chat.yaml", "train.max_steps=1"]) == 0


def chats() -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": row["instruction"]},
                {"role": "assistant", "content": row["output"]},
            ]
        }
        for row in qa_rows()
    ]


def test_chats_take_the_bases_own_template_where_it_has_one(base: str) -> None:
    save(Path("rows.jsonl"), lines_of(chats()))
    written = init(["rows.jsonl"], [base])
    assert (written.shape, written.template) == ("messages", "instruction")
    assert load_config(Path("rows.yaml")) == expected(base, "rows")
    shutil.copytree(base.partition("=")[2], "chat base")
    Path("chat base/chat_template.jinja").write_text(CHAT_TEMPLATE)
    said: list[str] = []
    base = "model.base=chat base"
    written = init(["rows.jsonl"], [base], overwrite=True, say=said.append)
    assert written.template == "chat"
    assert load_config(Path("rows.yaml")) == expected(base, "rows", template="chat")
    assert "  │ ⟦답 1.<|im_end|>⟧" in said


def test_koalpaca_texts_take_koalpacas_template(base: str) -> None:
    rows = [
        {"text": f"### 질문: {row['instruction']}\n\n### 답변: {row['output']}<|endoftext|>"}
        for row in qa_rows()
    ]
    save(Path("rows.jsonl"), lines_of(rows))
    said: list[str] = []
    written = init(["rows.jsonl"], [base], say=said.append)
    assert (written.shape, written.template) == ("koalpaca-text", "koalpaca-v1.1")
    assert load_config(Path("rows.yaml")) == expected(base, "rows", template="koalpaca-v1.1")
    assert "  │ ### 답변:⟦ 답 1.<|end|>⟧" in said


def test_a_template_that_was_asked_for_stays(base: str) -> None:
    save(Path("rows.jsonl"), lines_of(chats()))
    written = init(["rows.jsonl"], [base, "data.template=alpaca-ko"])
    assert written.template == "alpaca-ko"
    custom = (
        r'data.template={prompt: "물음: {instruction}\n# 답:\n\n", '
        r'prompt_without_input: "a: b {instruction}\n"}'
    )
    init(["rows.jsonl"], [base, custom], overwrite=True)
    assert load_config(Path("rows.yaml")).data.template == TemplateConfig(
        prompt="물음: {instruction}\n# 답:\n\n", prompt_without_input="a: b {instruction}\n"
    )


# --- few rows


@pytest.mark.parametrize("number", [1, 2, 5])
def test_few_rows_train_without_a_split(base: str, number: int, capsys: Captured) -> None:
    save(Path("few.jsonl"), lines_of(qa_rows(number)))
    assert main(["init", "few.jsonl", base]) == 0
    assert "data.val_fraction and data.test_fraction are 0" in capsys.readouterr().out
    assert load_config(Path("few.yaml")) == expected(
        base, "few", val_fraction=0.0, test_fraction=0.0
    )
    assert main(["train", "few.yaml", "train.max_steps=1"]) == 0


def test_fractions_that_were_asked_for_stay(base: str) -> None:
    save(Path("few.jsonl"), lines_of(qa_rows(5)))
    init(["few.jsonl"], [base, "data.val_fraction=0.4"])
    assert load_config(Path("few.yaml")) == expected(base, "few", val_fraction=0.4)


# --- what is refused


def test_a_file_that_is_there_is_not_replaced_unasked(base: str) -> None:
    save(Path("rows.jsonl"), lines_of(qa_rows()))
    Path("rows.yaml").write_text("mine")
    assert error_of(["rows.jsonl"], [base]) == (
        "rows.yaml: is there already; choose --output, or replace it: --overwrite"
    )
    assert Path("rows.yaml").read_text() == "mine"
    init(["rows.jsonl"], [base], overwrite=True)
    assert load_config(Path("rows.yaml")) == expected(base, "rows")


def test_the_data_itself_is_never_replaced(base: str) -> None:
    save(Path("rows.jsonl"), lines_of(qa_rows()))
    Path("link").symlink_to("rows.jsonl")
    for output in ("rows.jsonl", "./rows.jsonl", "link"):
        assert error_of(["rows.jsonl"], [base], Path(output), overwrite=True) == (
            f"{Path(output)}: is the data itself; choose another --output"
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "rows.jsonl is empty; give a file with rows"),
        ('{"instruction": "a", "output": "b"}\n{"instruct', "rows.jsonl, line 2: broken JSON "),
        ('{"a": "b", "c": "d"}\n', "rows.jsonl: question and answer not found among its columns"),
        ('{"instruction": "", "output": "b"}\n', "rows.jsonl: no usable row; "),
        ("그냥 글입니다.\n둘째 줄\n", "rows.jsonl, line 1: plain text "),
        ("version https://git-lfs.github.com/spec/v1\n", "rows.jsonl is a Git LFS pointer"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_nothing_written(
    base: str, capsys: Captured, content: str, message: str
) -> None:
    save(Path("rows.jsonl"), content)
    assert main(["init", "rows.jsonl", base]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"honing: {message}")
    assert [path.name for path in Path().iterdir()] == ["rows.jsonl"]


def test_a_file_that_is_not_there_is_refused(base: str) -> None:
    assert error_of(["no.jsonl"], [base]).startswith("data.source: no such file: no.jsonl")
    assert list(Path().iterdir()) == []


def test_a_folder_without_data_is_refused(base: str) -> None:
    Path("empty").mkdir()
    assert "no train file among its data files (none)" in error_of(["empty"], [base])


def test_the_data_is_named_once(base: str) -> None:
    save(Path("rows.jsonl"), lines_of(qa_rows()))
    assert error_of(["rows.jsonl"], [base, "data.source=other.jsonl"]) == (
        "data.source: rows.jsonl is it already; name the data once"
    )


def test_answers_that_do_not_fit_are_counted(base: str) -> None:
    rows = [*qa_rows(), {"instruction": "길게", "output": "가나다라" * 100}]
    save(Path("rows.jsonl"), lines_of(rows))
    said: list[str] = []
    init(["rows.jsonl"], [base], say=said.append)
    assert (
        f"  note: 1 of the first 1,000 answers do not fit into {CONTEXT} tokens and will be left "
        "out; raise data.max_length"
    ) in said


# --- the file


def test_every_setting_is_written_with_its_documentation() -> None:
    text = commented_yaml(Config(), "a head")
    lines = text.splitlines()
    assert lines[0] == "# a head"
    assert "  # Width of the two thin matrices of each adapted layer." in lines
    assert lines[lines.index("  rank: 8") - 1].startswith("  # Width")
    for name, section in Config.model_fields.items():
        assert f"# {section.description}" in lines, name


def test_every_value_comes_back(tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "output_dir": "a: b",
            "device": "cpu",
            "lora": {"target_modules": ["q_proj", "1e5"], "alpha": 0.1, "use_dora": True},
            "data": {
                "source": {"train": ["a", "b # c"], "val": "null", "test": "line\nline"},
                "columns": {"instruction": "Q: x", "group": "~"},
                "template": {"prompt": "글: {instruction}\n\n  # {input}\n"},
                "encoding": "cp949",
            },
            "train": {"learning_rate": 1e-30, "max_grad_norm": None, "warmup_steps": 0},
            "generate": {"stop": ["\n\n", "###", "'", '"', "끝\u2028", " "]},
        }
    )
    path = tmp_path / "c.yaml"
    path.write_text(commented_yaml(config, "head"), encoding="utf-8")
    assert load_config(path) == config


def test_what_init_gives_back(base: str) -> None:
    save(Path("rows.jsonl"), lines_of(qa_rows()))
    assert init(["rows.jsonl"], [base]) == Written(
        "rows.yaml", "alpaca", 12, 12, "instruction", CONTEXT
    )
