"""YAML and key=value → Config, and back; every fault is one line with file, line, key, remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from honing.config import (
    ColumnNames,
    Config,
    DataConfig,
    LoraConfig,
    SplitFiles,
    TrainConfig,
)
from honing.config_file import dump_config, load_config, schema_text, setting_keys
from honing.errors import UserError

TEMPLATE_NAMES = "'instruction', 'alpaca', 'alpaca-ko', 'koalpaca-v1.0', 'koalpaca-v1.1' or 'chat'"
TOP_LEVEL = "output_dir, seed, device, model, lora, data, train, generate, evaluate"


def load(folder: Path, content: str | bytes, *overrides: str) -> Config:
    """Write c.yaml, and read it with overrides."""
    path = folder / "c.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_config(path, overrides)


def fault(folder: Path, content: str | bytes, *overrides: str) -> str:
    """The message about c.yaml, without the folder that it lies in."""
    with pytest.raises(UserError) as caught:
        load(folder, content, *overrides)
    return str(caught.value).replace(str(folder / "c.yaml"), "c.yaml")


def override_fault(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(None, overrides)
    return str(caught.value)


# --- what is read


@pytest.mark.parametrize(
    "content", ["", "# nothing\n", "---\n", "train:\n", "train:\n  # epochs: 1\n", "lora: ~\n"]
)
def test_a_file_or_section_without_a_value_means_the_defaults(tmp_path: Path, content: str) -> None:
    assert load(tmp_path, content) == Config()


def test_no_file_means_the_defaults() -> None:
    assert load_config(None) == Config()


def test_a_file_sets_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "# 한국어 설명\n"
        "output_dir: 결과\n"
        "data:\n"
        "  source: [하나.jsonl, 둘.csv]\n"
        "  columns: {instruction: Q, output: A}\n"
        "train:\n"
        "  epochs: 1\n",
    )
    assert config == Config(
        output_dir="결과",
        data=DataConfig(
            source=["하나.jsonl", "둘.csv"], columns=ColumnNames(instruction="Q", output="A")
        ),
        train=TrainConfig(epochs=1),
    )


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfseed: 7\n", b"seed: 7\r\n", b"--- \nseed: 7\n..."]
)
def test_byte_order_mark_line_ends_and_document_marks_do_not_matter(
    tmp_path: Path, content: bytes
) -> None:
    assert load(tmp_path, content) == Config(seed=7)


@pytest.mark.parametrize("number", ["1e-4", "1E-4", "1.e-4", "1.0e-4", "0.0001", "+1e-4"])
def test_numbers_with_an_exponent_are_numbers(tmp_path: Path, number: str) -> None:
    assert load(tmp_path, f"train: {{learning_rate: {number}}}").train.learning_rate == 0.0001


@pytest.mark.parametrize(
    "text", ["2024-01-01", "2024-13-45", "1:30", "=", "<<", "010", "0x10", "1_0e4"]
)
def test_words_that_only_old_yaml_takes_for_something_else_are_texts(
    tmp_path: Path, text: str
) -> None:
    assert load(tmp_path, f"output_dir: {text}").output_dir == text


# --- what is refused, with the exact words

FAULTS = {
    # a wrong key, at the top and below, with the nearest right one
    "sed: 1": "c.yaml, line 1: sed is no setting (found sed: 1); did you mean seed?",
    "train:\n  epoch: 3": (
        "c.yaml, line 2: train.epoch is no setting (found train.epoch: 3); "
        "did you mean train.epochs?"
    ),
    "epochs: 3": (
        "c.yaml, line 1: epochs is no setting (found epochs: 3); did you mean train.epochs?"
    ),
    "trian:\n  epochs: 3": (
        "c.yaml, line 1: trian is no setting (found trian: {epochs: 3}); did you mean train?"
    ),
    "LORA: {rank: 4}": (
        "c.yaml, line 1: LORA is no setting (found LORA: {rank: 4}); did you mean lora?"
    ),
    "train.epochs: 3": (
        "c.yaml, line 1: train.epochs is no setting (found train.epochs: 3); "
        "in a file, write 'train:' and below it, indented, 'epochs: …'"
    ),
    "data: {group: 주제}": (
        'c.yaml, line 1: data.group is no setting (found data.group: "주제"); '
        "did you mean data.columns.group or data.group_by?"
    ),
    "data: {columns: {instrction: Q}}": (
        'c.yaml, line 1: data.columns.instrction is no setting (found data.columns.instrction: "Q"'
        "); did you mean data.columns.instruction or data.columns.completion?"
    ),
    "학습: 1": (f"c.yaml, line 1: 학습 is no setting (found 학습: 1); settings there: {TOP_LEVEL}"),
    "seed: 1\n<<: {seed: 2}": (
        f"c.yaml, line 2: << is no setting (found <<: {{seed: 2}}); settings there: {TOP_LEVEL}"
    ),
    # a wrong value
    "seed: -1": "c.yaml, line 1: seed should be at least 0; found -1",
    "seed: 4294967296": "c.yaml, line 1: seed should be less than 4294967296; found 4294967296",
    "seed: null": "c.yaml, line 1: seed should be a whole number; found null",
    "seed: 017": 'c.yaml, line 1: seed should be a whole number; found "017"',
    "\n\nlora:\n\n  rank: true": "c.yaml, line 5: lora.rank should be a whole number; found true",
    "lora: {rank: '8'}": 'c.yaml, line 1: lora.rank should be a whole number; found "8"',
    "lora: {alpha: 1e400}": "c.yaml, line 1: lora.alpha should be a finite number; found .inf",
    "lora: {dropout: .nan}": "c.yaml, line 1: lora.dropout should be a finite number; found .nan",
    "lora: {use_dora: 1}": "c.yaml, line 1: lora.use_dora should be true or false; found 1",
    "lora: false": "c.yaml, line 1: lora should be a section of keys; found false",
    "train: [1]": "c.yaml, line 1: train should be a section of keys; found [1]",
    "output_dir: no": "c.yaml, line 1: output_dir should be a text; found false",
    "device: gpu": (
        "c.yaml, line 1: device should be 'auto', 'cuda', 'mps' or 'cpu'; found \"gpu\""
    ),
    "train: {learning_rate: fast}": (
        'c.yaml, line 1: train.learning_rate should be a number; found "fast"'
    ),
    "generate: {stop: [a, 1]}": (
        "c.yaml, line 1: generate.stop should be a list of texts; found [a, 1]"
    ),
    "data: {val_fraction: 0.5, test_fraction: 0.5}": (
        "c.yaml, line 1: data: val_fraction and test_fraction leave nothing to learn from; "
        "found {val_fraction: 0.5, test_fraction: 0.5}"
    ),
    # unions: every branch is named, or the one that the value belongs to
    "train: {micro_batch_size: some}": (
        "c.yaml, line 1: train.micro_batch_size should be 'auto', or a whole number; found \"some\""
    ),
    "train: {eval_every: 0}": (
        "c.yaml, line 1: train.eval_every should be 'epoch' or 'never', or at least 1; found 0"
    ),
    "train: {packing: maybe}": (
        "c.yaml, line 1: train.packing should be 'auto', or true or false; found \"maybe\""
    ),
    "lora: {target_modules: [q_proj, 1]}": (
        "c.yaml, line 1: lora.target_modules should be 'auto', or a list of texts; "
        "found [q_proj, 1]"
    ),
    "data: {source: 3}": (
        "c.yaml, line 1: data.source should be a text, or a list of texts, or a section of keys; "
        "found 3"
    ),
    "data: {source: {train: 3}}": (
        "c.yaml, line 1: data.source.train should be a text, or a list of texts; found 3"
    ),
    "data: {source: {val: a}}": (
        "c.yaml, line 1: data.source.train is missing; add it, or leave data.source out"
    ),
    "data: {source: {trian: a}}": (
        'c.yaml, line 1: data.source.trian is no setting (found data.source.trian: "a"); '
        "did you mean data.source.train or data.source.val?"
    ),
    "data: {template: foo}": (
        f"c.yaml, line 1: data.template should be {TEMPLATE_NAMES}, or a section of keys; "
        'found "foo"'
    ),
    "data: {template: {}}": (
        "c.yaml, line 1: data.template.prompt is missing; add it, or leave data.template out"
    ),
    "data: {template: {prompt: hi}}": (
        "c.yaml, line 1: data.template: a template needs {instruction} once in its text, and "
        "{input} at most once; found {prompt: hi}"
    ),
    # YAML itself
    "seed: [1,": (
        "c.yaml, line 1: is not valid YAML (expected the node content, but found '<stream end>')"
    ),
    "seed: 1\n\tlora:": (
        "c.yaml, line 2: is not valid YAML (found character '\\t' that cannot start any token)"
    ),
    "seed: 1\nseed: 2": "c.yaml, line 2: seed stands in line 1 too; keep one",
    "train:\n  epochs: 1\n  'epochs': 2": (
        "c.yaml, line 3: train.epochs stands in line 2 too; keep one"
    ),
    "seed: &a 1\ngenerate: {seed: *a}": (
        "c.yaml, line 2: anchors and aliases are not read; write the value out"
    ),
    "[1, 2]": "c.yaml: holds no settings; expected lines such as 'seed: 42'",
    "hello": "c.yaml: holds no settings; expected lines such as 'seed: 42'",
    "seed: 1\n---\nseed: 2": ("c.yaml, line 2: is not valid YAML (but found another document)"),
    "1: 2": "c.yaml, line 1: a key must be a plain word; found 1",
    "null: 2": "c.yaml, line 1: a key must be a plain word; found null",
    "train: {true: 2}": "c.yaml, line 1: a key must be a plain word; found train.true",
    "? [a]\n: 1": "c.yaml, line 1: a key must be a plain word",
}


@pytest.mark.parametrize("content", FAULTS)
def test_a_fault_in_a_file_is_one_exact_line(tmp_path: Path, content: str) -> None:
    assert fault(tmp_path, content) == FAULTS[content]


TAGGED = ("!!python/object:os.system x", "!!bool foo", "!!timestamp foo", "!!set {a}", "!x 1")


@pytest.mark.parametrize("value", TAGGED)
def test_yaml_tags_build_nothing(tmp_path: Path, value: str) -> None:
    words = "tags such as !!str are not read; put quotes around a text"
    assert fault(tmp_path, f"seed: 1\noutput_dir: {value}") == f"c.yaml, line 2: {words}"
    assert override_fault(f"seed={value}") == f"command line, seed={value}: {words}"


@pytest.mark.parametrize("opening", ["[", "- ", "? ", "{a: ", "{a, "])
def test_deep_nesting_is_refused_before_it_costs_time_or_stack(
    tmp_path: Path, opening: str
) -> None:
    message = fault(tmp_path, "seed: 1\nlora:\n  " + opening * 20_000)
    assert message == "c.yaml, line 3: is nested too deeply for a configuration"


def test_a_number_too_long_to_convert_is_no_number(tmp_path: Path) -> None:
    expected = f'c.yaml, line 1: seed should be a whole number; found "{"9" * 59}…"'
    assert fault(tmp_path, "seed: " + "9" * 5000) == expected
    assert fault(tmp_path, "seed: 0x" + "f" * 5000).startswith("c.yaml, line 1: seed should be")


@pytest.mark.parametrize("character", ["\\0", "\\uD800"])
def test_characters_that_no_text_holds_are_refused(tmp_path: Path, character: str) -> None:
    message = fault(tmp_path, f'seed: 1\noutput_dir: "{character}"')
    assert message == "c.yaml, line 2: holds a character that stands in no text; remove it"


def test_a_null_byte_is_not_yaml(tmp_path: Path) -> None:
    assert fault(tmp_path, b"seed\0: 1") == (
        "c.yaml: is not valid YAML (unacceptable character #x0000: special characters are not "
        "allowed)"
    )


@pytest.mark.parametrize(("content", "byte"), [("주제: 1".encode("cp949"), 0), (b"seed: \xff", 6)])
def test_another_encoding_is_named_with_its_byte(tmp_path: Path, content: bytes, byte: int) -> None:
    expected = f"c.yaml: is not UTF-8 (byte {byte}); save the file as UTF-8"
    assert fault(tmp_path, content) == expected


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "no.yaml")
    assert str(caught.value) == (
        f"{tmp_path / 'no.yaml'}: no such configuration file; write one with 'honing init FILE'"
    )


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_config(tmp_path)
    assert str(caught.value) == f"{tmp_path}: is a folder; name a YAML file in it"


def test_a_file_below_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "a" / "c.yaml")
    assert str(caught.value) == f"{tmp_path / 'a' / 'c.yaml'}: cannot be read (Not a directory)"


def test_a_data_file_given_for_a_configuration_is_not_parsed(tmp_path: Path) -> None:
    message = fault(tmp_path, "seed: 1 #" + "x" * 1_000_000)
    assert message == "c.yaml: larger than 1 MB, which no configuration is; is it a data file?"


# --- overrides


def test_an_override_wins_over_the_file_and_the_last_one_over_all(tmp_path: Path) -> None:
    config = load(tmp_path, "train: {epochs: 5, log_every: 3}", "train.epochs=6", "train.epochs=7")
    assert config.train == TrainConfig(epochs=7, log_every=3)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.learning_rate=1e-4", Config(train=TrainConfig(learning_rate=1e-4))),
        ("output_dir=a=b", Config(output_dir="a=b")),
        (
            "lora.target_modules=[c_attn,c_proj]",
            Config(lora=LoraConfig(target_modules=["c_attn", "c_proj"])),
        ),
        ("data.columns.output=A", Config(data=DataConfig(columns=ColumnNames(output="A")))),
        ("data.source.train=a.csv", Config(data=DataConfig(source=SplitFiles(train="a.csv")))),
        ("data={max_length: 64}", Config(data=DataConfig(max_length=64))),
        ("data.columns=null", Config()),
        ("train=null", Config()),
    ],
)
def test_an_override_is_parsed_as_yaml(override: str, expected: Config) -> None:
    assert load_config(None, [override]) == expected


def test_an_override_reaches_into_a_mapping_of_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, "data: {columns: {instruction: Q, output: B}}", "data.columns.output=A")
    assert config.data.columns == ColumnNames(instruction="Q", output="A")


OVERRIDE_FAULTS = {
    "train.epochs": "expected key=value, such as train.epochs=3",
    "--resume": "expected key=value, such as train.epochs=3",
    "=3": "expected key=value, such as train.epochs=3",
    "train..epochs=3": "expected key=value, such as train.epochs=3",
    "train.epochs=": "train.epochs should be a whole number; found null",
    "train.epochs=1e1": "train.epochs should be a whole number; found 10.0",
    "seed=[": "the value is not valid YAML; put quotes around a text",
    "seed=*x": "anchors and aliases are not read; write the value out",
    "trian.epochs=3": "trian is no setting (found trian: {epochs: 3}); did you mean train?",
    "train=5": "train should be a section of keys; found 5",
    "data.columns={output: A, output: B}": "output stands in line 1 too; keep one",
}


@pytest.mark.parametrize("override", OVERRIDE_FAULTS)
def test_a_fault_in_an_override_is_one_exact_line(override: str) -> None:
    expected = f"command line, {override}: {OVERRIDE_FAULTS[override]}"
    assert override_fault(override) == expected


@pytest.mark.parametrize(
    ("content", "override", "section"),
    [
        ("seed: 1", "seed.x=3", "seed"),
        ("data: {source: a.csv}", "data.source.train=b.csv", "data.source"),
        ("train: 5", "train.epochs=3", "train"),
    ],
)
def test_an_override_does_not_reach_into_a_value(
    tmp_path: Path, content: str, override: str, section: str
) -> None:
    message = fault(tmp_path, content, override)
    assert message == f"command line, {override}: {section} is a value, not a section"


def test_a_wrong_value_in_the_file_is_not_blamed_on_an_override(tmp_path: Path) -> None:
    message = fault(tmp_path, "seed: 1\ntrain:\n  epochs: 0", "train.log_every=1")
    assert message == "c.yaml, line 3: train.epochs should be at least 1; found 0"


def test_long_overrides_are_shown_in_one_short_line() -> None:
    expected = f"command line, seed={'x' * 94}…: seed should be a whole number; found"
    assert override_fault("seed=" + "x" * 5000) == f'{expected} "{"x" * 59}…"'
    assert "\n" not in override_fault("seed=1\n---\n2")


# --- back to YAML


def test_a_dumped_configuration_writes_every_value_out(tmp_path: Path) -> None:
    lines = dump_config(Config(output_dir="결과")).splitlines()
    assert lines[:4] == ["output_dir: 결과", "seed: 42", "device: auto", "model:"]
    assert "  learning_rate: 0.001" in lines
    assert "  max_steps: null" in lines


def test_setting_keys_are_the_places_where_a_value_can_stand() -> None:
    keys = {".".join(key) for key in setting_keys()}
    assert {"seed", "data.source", "data.source.train", "data.template.prompt"} <= keys
    assert "data.columns.output" in keys
    assert keys.isdisjoint({"data", "train", "data.columns"})


def test_the_schema_for_editors_describes_every_section() -> None:
    schema = json.loads(schema_text())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert list(schema["properties"]) == list(Config.model_fields)
    assert schema["properties"]["seed"]["description"] == (
        "Seed of splits, order, adapters and dropout."
    )
