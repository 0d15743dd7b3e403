"""The stage behind `honing init`: the user's own file → a commented configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from honing.config import Config, DataConfig, SplitFiles
from honing.config_file import dump_value, load_config
from honing.data.prepare import encode_examples, read_rows
from honing.data.reading.names import as_argument, shown
from honing.data.reading.read import ReadRows
from honing.data.reading.shapes import suggested_template
from honing.data.reading.source import SPLIT_NAMES
from honing.data.report import show_row
from honing.data.sample import SAMPLE_SOURCES
from honing.data.split import split_examples
from honing.data.template import choose_template
from honing.data.text_model import TextModel
from honing.errors import UserError
from honing.model.load import find_base, load_tokenizer, text_model
from honing.run import write_text

_NUM_SHOWN = 3
_NUM_ENCODED = 1_000
_FEW_ROWS = 200
"""Up to so many it is tried whether they can be split; more always can."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Written:
    """What init found in the files, and where it wrote the configuration."""

    config: str
    shape: str
    num_rows: int
    num_usable: int
    template: str
    max_length: int

    def to_record(self) -> dict[str, Any]:
        return asdict(self)


def init(
    files: Sequence[str],
    overrides: Sequence[str] = (),
    output: Path | None = None,
    *,
    overwrite: bool = False,
    say: Say = print,
) -> Written:
    """Look at the data, show three rows as the model will see them, and write a configuration.

    files: what data.source can name: a file, several, a folder, a Hub id. overrides: settings
    that the configuration shall have, such as model.base or data.columns.
    """
    name = _short_name(files[0])
    output = output or Path(f"{name}.yaml")
    _check_output(output, files, overwrite=overwrite)
    asked = {override.partition("=")[0] for override in overrides}
    config = load_config(None, overrides)
    if "data.source" in asked:
        raise UserError(f"data.source: {files[0]} is it already; name the data once")
    if "output_dir" not in asked:
        config = config.model_copy(update={"output_dir": f"outputs/{name}"})
    data = config.data.model_copy(update={"source": _source(files)})
    read = read_rows(data)
    base = find_base(config.model)
    tokenizer = load_tokenizer(base)
    template = _choose(data, read, asked, has_chat=bool(tokenizer.chat_template))
    data = data.model_copy(update={"template": template})
    text = text_model(base, tokenizer, choose_template(data.template, tokenizer.chat_template))
    data, notes = _fit(data, read, text, asked)
    head = _head(files, read)
    say(head)
    for note in [*(note for part in read.values() for note in part.notes), *notes]:
        say(f"  note: {note}")
    _show_rows(read, data, text, say)
    config = config.model_copy(update={"data": data})
    write_text(output, commented_yaml(config, f"{head}. Written by honing init."))
    say(f"Written: {output}")
    say(f"Next: honing train {as_argument(_no_option(output))}")
    return Written(
        config=str(output),
        shape=_first(read).shape,
        num_rows=sum(part.num_rows for part in read.values()),
        num_usable=sum(len(part.examples) for part in read.values()),
        template=text.template.name,
        max_length=data.max_length,
    )


def _no_option(path: Path) -> str:
    return f"./{path}" if str(path).startswith("-") else str(path)


def _short_name(file: str) -> str:
    """A name for the configuration and the run's folder, which needs no quotes in a shell."""
    path = Path(file).expanduser()
    stem = path.stem if os.path.isfile(path) else path.name
    if stem in ("", ".."):  # the folder here, or the one above
        stem = path.resolve().name
    return re.sub(r"[^\w.-]", "_", stem).lstrip("-.") or "data"


def _check_output(output: Path, files: Sequence[str], *, overwrite: bool) -> None:
    if any(
        os.path.exists(file) and os.path.realpath(file) == os.path.realpath(output)
        for file in files
    ):
        raise UserError(f"{output}: is the data itself; choose another --output")
    if os.path.exists(output) and not overwrite:
        raise UserError(f"{output}: is there already; choose --output, or replace it: --overwrite")


def _source(files: Sequence[str]) -> str | list[str] | SplitFiles:
    """Files that are named train, val and test are the splits that the user made."""
    if len(files) == 1:
        is_file_of_that_name = files[0] in SAMPLE_SOURCES and os.path.exists(files[0])
        return f"./{files[0]}" if is_file_of_that_name else files[0]
    splits = {SPLIT_NAMES.get(Path(file).stem.lower(), file): file for file in files}
    if (
        len(splits) == len(files)
        and "train" in splits
        and splits.keys() <= {"train", "val", "test"}
    ):
        return SplitFiles(**splits)
    return list(files)


def _first(read: Mapping[str, ReadRows]) -> ReadRows:
    return next(iter(read.values()))


def _head(files: Sequence[str], read: Mapping[str, ReadRows]) -> str:
    num_rows = sum(part.num_rows for part in read.values())
    num_usable = sum(len(part.examples) for part in read.values())
    name = shown(", ".join(files), 200)
    return f"{name}: {num_rows:,} rows, {num_usable:,} usable ({_first(read).shape})"


def _choose(
    data: DataConfig, read: Mapping[str, ReadRows], asked: set[str], *, has_chat: bool
) -> Any:
    """The template that was asked for, else the one that fits the rows and the base."""
    if any(key.startswith("data.template") for key in asked):
        return data.template
    suggested = suggested_template(_first(read).shape)
    return "instruction" if suggested == "chat" and not has_chat else suggested


def _fit(
    data: DataConfig, read: Mapping[str, ReadRows], text: TextModel, asked: set[str]
) -> tuple[DataConfig, list[str]]:
    """Settings without which these rows or this base could not be trained, and what was changed."""
    update: dict[str, Any] = {}
    notes = []
    context = text.context_length
    if "data.max_length" not in asked and context is not None and context < data.max_length:
        update["max_length"] = context
        notes.append(f"data.max_length is {context}, all that {text.name} knows")
    fractions = {"val_fraction", "test_fraction"}
    if "all" in read and not fractions & {key.removeprefix("data.") for key in asked}:
        examples = read["all"].examples
        try:
            if len(examples) <= _FEW_ROWS:
                split_examples(
                    examples,
                    how=data.split,
                    val_fraction=data.val_fraction,
                    test_fraction=data.test_fraction,
                    seed=0,
                )
        except UserError:
            update |= dict.fromkeys(sorted(fractions), 0.0)
            notes.append(
                "too few rows, or too like each other, to hold some back: data.val_fraction and "
                "data.test_fraction are 0, and nothing will tell whether the model got better"
            )
    return data.model_copy(update=update), notes


def _show_rows(read: Mapping[str, ReadRows], data: DataConfig, text: TextModel, say: Say) -> None:
    split, too_long = encode_examples(_first(read).examples[:_NUM_ENCODED], data, text)
    if too_long:
        say(
            f"  note: {len(too_long)} of the first {_NUM_ENCODED:,} answers do not fit into "
            f"{data.max_length} tokens and will be left out; raise data.max_length"
        )
    say(
        f"The first rows as the model will see them; ⟦ ⟧ is learnt (template {text.template.name}):"
    )
    for tokens in split.tokens[:_NUM_SHOWN]:
        row = show_row(tokens, text)
        say(f"  {row.id}")
        for line in row.text.split("\n"):
            say(f"  │ {line}")


def commented_yaml(config: Config, head: str) -> str:
    """A configuration as YAML with each setting's documentation above it."""
    lines = [f"# {head}", "# Every setting can be left out; what stands here is what counts.", ""]
    return "\n".join([*lines, *_section_lines(config, "")]) + "\n"


def _section_lines(section: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        is_section = isinstance(value, BaseModel) and not indent
        if is_section:
            yield ""
        for line in str(field.description).splitlines():
            yield f"{indent}# {line}"
        if is_section:
            yield f"{indent}{name}:"
            yield from _section_lines(value, indent + "  ")
        else:
            yield f"{indent}{name}: {dump_value(_plain(value))}"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return value
