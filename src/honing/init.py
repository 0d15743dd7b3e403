"""The stage behind `honing init`: the user's own file → a commented configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from honing.config import Config
from honing.config_file import load_config
from honing.data.prepare import encode_examples, read_rows
from honing.data.report import show_row
from honing.data.shapes import suggested_template
from honing.data.template import choose_template
from honing.errors import UserError
from honing.model.load import find_base, load_tokenizer, text_model
from honing.run import write_text

_SEE_SHOWN = 3


@dataclass(frozen=True)
class Written:
    """What init found in the file, and where it wrote the configuration."""

    config: str
    shape: str
    num_rows: int
    num_usable: int
    template: str
    max_length: int

    def to_record(self) -> dict[str, Any]:
        return asdict(self)


def init(
    file: Path,
    overrides: Sequence[str] = (),
    output: Path | None = None,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Written:
    """Look at a file, show three rows as the model will see them, and write a configuration.

    overrides: settings that the file shall have, such as model.base or data.columns.
    """
    output = output or Path(f"{file.stem or 'data'}.yaml")
    if output.exists() and not overwrite:
        raise UserError(f"{output}: is there already; choose --output, or replace it: --overwrite")
    name = re.sub(r"[^\w.-]", "_", file.stem) or "data"
    fixed = [f"data.source={yaml.safe_dump(str(file), allow_unicode=True).splitlines()[0]}"]
    asked = {override.split("=")[0] for override in overrides}
    if "output_dir" not in asked:
        fixed.append(f"output_dir=outputs/{name}")
    config = load_config(None, [*fixed, *overrides])
    read = read_rows(config.data)
    rows = next(iter(read.values()))
    base = find_base(config.model)
    tokenizer = load_tokenizer(base)
    template = config.data.template
    if "data.template" not in asked:
        template = suggested_template(rows.shape)  # type: ignore[assignment]
        if template == "chat" and not tokenizer.chat_template:
            template = "instruction"
    text = text_model(base, tokenizer, choose_template(template, tokenizer.chat_template))
    max_length = config.data.max_length
    if "data.max_length" not in asked and text.context_length:
        max_length = min(max_length, text.context_length)
    data = config.data.model_copy(update={"template": template, "max_length": max_length})
    config = config.model_copy(update={"data": data})
    split, too_long = encode_examples(rows.examples[:1000], data, text)
    num_rows = sum(part.num_rows for part in read.values())
    num_usable = sum(len(part.examples) for part in read.values())
    head = f"{file}: {num_rows:,} rows, {num_usable:,} usable ({rows.shape})"
    say(head)
    for note in (note for part in read.values() for note in part.notes):
        say(f"  note: {note}")
    if too_long:
        say(f"  note: {len(too_long)} of the first 1,000 answers exceed {max_length} tokens")
    say(
        f"The first rows as the model will see them; ⟦ ⟧ is learnt (template {text.template.name}):"
    )
    for tokens in split.tokens[:_SEE_SHOWN]:
        row = show_row(tokens, text)
        say(f"  {row.id}")
        for line in row.text.split("\n"):
            say(f"  │ {line}")
    write_text(output, commented_yaml(config, f"{head}. Written by honing init."))
    say(f"Written: {output}")
    say(f"Next: honing train {output}")
    return Written(str(output), rows.shape, num_rows, num_usable, text.template.name, max_length)


def commented_yaml(config: Config, head: str) -> str:
    """A configuration as YAML with each setting's documentation above it."""
    lines = [f"# {head}", "# Every setting can be left out; what stands here is what counts.", ""]
    return "\n".join([*lines, *_section_lines(config, "")]) + "\n"


def _section_lines(section: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if not indent and isinstance(value, BaseModel):
            yield ""
        yield f"{indent}# {field.description}"
        if isinstance(value, BaseModel) and not indent:
            yield f"{indent}{name}:"
            yield from _section_lines(value, indent + "  ")
        else:
            yield f"{indent}{name}: {_flow(value)}"


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_none=True)
    text = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, width=10_000, sort_keys=False
    )
    return text.removesuffix("\n").removesuffix("\n...")
