"""YAML and key=value in, Config out, and back to YAML. Errors name file, line, key and remedy."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from honing.config import Config
from honing.errors import UserError

Path_ = tuple[str, ...]  # a key as its parts: ("train", "epochs")

MAX_CONFIG_BYTES = 1_000_000


MAX_DEPTH = 20
"""Flow lists in flow lists take a parser quadratic time, and then the whole stack."""


_TOKEN = re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{30,}")
"""A token of the Hub, which has no place in a file that is kept, copied and pushed."""


class _Loader(yaml.SafeLoader):
    """Safe YAML, with plain words as YAML 1.2 reads them: 1e-4 is a number, and not a text.

    pyyaml reads YAML 1.1, where 010 is eight, 1:30 ninety and 2024-13-45 a date that crashes.
    """


class _Dumper(yaml.SafeDumper):
    """Writes quotes around a text that either YAML version would read as something else."""


class _LineDumper(_Dumper):
    """Writes a text of several lines in double quotes, on one line."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = None if text.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_LineDumper.add_representer(str, _LineDumper.represent_text)

_FLOAT = re.compile(
    r"^[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$"
    r"|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
)
_INT = re.compile(r"^[-+]?(0|[1-9][0-9_]{0,30})$")
_YAML_1_1 = {
    f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp", "merge", "value")
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _YAML_1_1]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
for _handler in (_Loader, _Dumper):
    _handler.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file, if any, and lay the overrides over it.

    Raises UserError with file, line, key, what was found, and the nearest right key.
    """
    values: dict[str, Any] = {}
    places: dict[Path_, str] = {}
    if path is not None:
        values, lines = _read_yaml(path)
        places = {key: f"{path}, line {line}" for key, line in lines.items()}
    for override in overrides:
        key, value = _parse_override(override)
        _assign(values, key, value, override)
        places = {known: place for known, place in places.items() if known[: len(key)] != key}
        places[key] = _on_command_line(override)
    # A section whose lines are all commented out reads as null, and means its defaults.
    fields = Config.model_fields
    for name in values.keys() & fields.keys():
        if values[name] is None and _is_section(fields[name].annotation):
            values[name] = {}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        where = str(path) if path else "command line"
        raise UserError(_one_line(error, values, places, where)) from None


def dump_config(config: Config) -> str:
    """The whole configuration as YAML, every value written out."""
    record = config.model_dump(mode="json")
    text: str = yaml.dump(record, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def dump_value(value: Any) -> str:
    """One value as YAML on one line, which load_config reads back as the same."""
    text: str = yaml.dump(
        value,
        Dumper=_LineDumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=True,
        width=1 << 30,
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[Path_, int]]:
    """Values of a YAML mapping, and the line of each key."""
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; name a YAML file in it")
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
        if len(content) > MAX_CONFIG_BYTES:
            raise UserError(
                f"{path}: larger than 1 MB, which no configuration is; is it a data file?"
            )
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such configuration file; write one with 'honing init FILE'"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not UTF-8 (byte {error.start}); save the file as UTF-8"
        ) from None
    if found := _TOKEN.search(text):
        number = text.count("\n", 0, found.start()) + 1
        raise UserError(_holds_token(f"{path}, line {number}"))
    try:
        values, lines = _parse_yaml(text, lambda line: f"{path}, line {line}")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: is not valid YAML ({error.problem})") from None
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: is not valid YAML ({reason})") from None
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no settings; expected lines such as 'seed: 42'")
    return values, lines


def _parse_yaml(text: str, at: Callable[[int], str]) -> tuple[Any, dict[Path_, int]]:
    """The value of a YAML text, and the line of each key in it. at: line → words for a message."""
    _refuse_what_no_setting_needs(text, at)
    node = yaml.compose(text, Loader=_Loader)
    lines = dict(_key_lines(node, (), at)) if isinstance(node, yaml.MappingNode) else {}
    return yaml.load(text, Loader=_Loader), lines


def _refuse_what_no_setting_needs(text: str, at: Callable[[int], str]) -> None:
    """Aliases, tags, deep nesting: the parts of YAML that make parsers slow, or raise anything."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        where = at(event.start_mark.line + 1 if event.start_mark else 1)
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"{where}: anchors and aliases are not read; write the value out")
        if isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)) and event.tag:
            raise UserError(f"{where}: tags such as !!str are not read; put quotes around a text")
        if isinstance(event, yaml.ScalarEvent) and re.search("[\0\ud800-\udfff]", event.value):
            raise UserError(f"{where}: holds a character that stands in no text; remove it")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UserError(f"{where}: is nested too deeply for a configuration")


def _key_lines(
    node: yaml.MappingNode, above: Path_, at: Callable[[int], str]
) -> Iterator[tuple[Path_, int]]:
    """(key, line) for each key below a node. A key that stands twice is an error, not a choice."""
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{at(line)}: a key must be a plain word")
        key = str(key_node.value)
        if key_node.tag != "tag:yaml.org,2002:str":
            raise UserError(f"{at(line)}: a key must be a plain word; found {_name(above, key)}")
        if key in seen:
            raise UserError(
                f"{at(line)}: {_name(above, key)} stands in line {seen[key]} too; keep one"
            )
        seen[key] = line
        yield (*above, key), line
        if isinstance(value_node, yaml.MappingNode):
            yield from _key_lines(value_node, (*above, key), at)


def _holds_token(where: str) -> str:
    return (
        f"{where}: holds what looks like a token of the Hub, and settings are kept in files; take "
        "it out, and log in with 'hf auth login' or set HF_TOKEN"
    )


def _parse_override(override: str) -> tuple[Path_, Any]:
    name, equals, text = override.partition("=")
    key = tuple(name.split("."))
    if _TOKEN.search(override):
        raise UserError(_holds_token("command line"))
    where = _on_command_line(override)
    if not equals or not all(key):
        raise UserError(f"{where}: expected key=value, such as train.epochs=3")
    if re.search("[\ud800-\udfff]", name):  # bytes of another encoding, as Python passes them on
        raise UserError(f"{where}: the key holds a character that stands in no text; remove it")
    try:
        value, _ = _parse_yaml(text, lambda _: where)
    except (yaml.YAMLError, ValueError):
        raise UserError(f"{where}: the value is not valid YAML; put quotes around a text") from None
    return key, value


def _on_command_line(override: str) -> str:
    return f"command line, {_one_line_of(override, 100)}"


def _assign(values: dict[str, Any], key: Path_, value: Any, override: str) -> None:
    for depth, part in enumerate(key[:-1], start=1):
        below = values.get(part)
        if below is None:
            below = values[part] = {}
        if not isinstance(below, dict):
            raise UserError(
                f"{_on_command_line(override)}: {_name(key[:depth])} is a value, not a section"
            )
        values = below
    values[key[-1]] = value


def _one_line(
    error: ValidationError, values: dict[str, Any], places: dict[Path_, str], where: str
) -> str:
    """The most telling of pydantic's errors, as one line."""
    problem = min(error.errors(), key=lambda item: _rank(item, values))
    key, found = _existing_key(problem["loc"], values)
    name, shown = _name(key), _shown(found)
    known = [places[key[:n]] for n in range(len(key), 0, -1) if key[:n] in places]
    known += [place for path, place in places.items() if path[: len(key)] == key]
    place = known[0] if known else where
    if problem["type"] == "extra_forbidden":
        return f"{place}: {name} is no setting (found {name}: {shown}); {_nearest_keys(key)}"
    if problem["type"] == "missing":
        missing = _name(key, str(problem["loc"][-1]))
        return f"{place}: {missing} is missing; add it, or leave {name} out"
    if problem["type"] == "value_error":
        return f"{place}: {name}: {problem['ctx']['error']}; found {shown}"
    others = [item for item in error.errors() if _existing_key(item["loc"], values)[0] == key]
    allowed = dict.fromkeys(_plain_words(item) for item in others)
    return f"{place}: {name} should be {', or '.join(allowed)}; found {shown}"


def _rank(problem: Any, values: dict[str, Any]) -> tuple[int, int]:
    """Unknown keys first, then our own checks, then the deepest: a union's right branch."""
    kinds = ["extra_forbidden", "value_error", "missing"]
    kind = kinds.index(problem["type"]) if problem["type"] in kinds else len(kinds)
    return kind, -len(_existing_key(problem["loc"], values)[0])


def _plain_words(problem: Any) -> str:
    """Pydantic's words, said to people who do not write Python."""
    if isinstance(problem["loc"][-1], int):
        return "a list of texts"  # the only lists there are
    message: str = problem["msg"].removeprefix("Input should be ").replace("a valid ", "a ")
    message = message.replace("greater than or equal to", "at least")
    message = re.sub(r"a (dictionary|dictionary or instance of \w+)$", "a section of keys", message)
    plain = {
        "a integer": "a whole number",
        "a boolean": "true or false",
        "a string": "a text",
        "a list": "a list of texts",
    }
    return plain.get(message, message)


def _existing_key(location: Sequence[int | str], values: Any) -> tuple[Path_, Any]:
    """A location without the names that pydantic puts in for the branches of a union, and the
    value there."""
    key: list[str] = []
    for part in location:
        if isinstance(values, dict) and part in values:
            values = values[part]
            key.append(str(part))
    return tuple(key), values


def _name(key: Path_, below: str = "") -> str:
    return _one_line_of(".".join((*key, below) if below else key), 80)


def _shown(value: object) -> str:
    """A value as it would stand in a YAML file, in one short line."""
    if isinstance(value, str):
        return f'"{_one_line_of(value, 60)}"'
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False)
    return _one_line_of(text.removesuffix("...\n"), 60)


def _one_line_of(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _nearest_keys(key: Path_) -> str:
    """Advice for a wrong key: the same word elsewhere, a similar one, else those that are there."""
    if "." in key[-1]:
        section, _, word = key[-1].partition(".")
        return f"in a file, write '{section}:' and below it, indented, '{word}: …'"
    settings = list(setting_keys())
    paths = dict.fromkeys(path[:n] for path in settings for n in range(1, len(path) + 1))
    above = {key[:n] for n in range(1, len(key))}
    known = {".".join(path): path[-1] for path in paths if path not in above}
    word = key[-1].lower()
    same_word = [name for name, last in known.items() if last == word]
    near = same_word + difflib.get_close_matches(".".join(key).lower(), known, n=2, cutoff=0.7)
    if not near:
        words = difflib.get_close_matches(word, known.values(), n=2)
        near = [name for name, last in known.items() if last in words]
    if near:
        return "did you mean " + " or ".join(list(dict.fromkeys(near))[:2]) + "?"
    siblings = [".".join(path) for path in paths if path[:-1] == key[:-1]]
    return "settings there: " + ", ".join(siblings)


def setting_keys(section: type[BaseModel] = Config, above: Path_ = ()) -> Iterator[Path_]:
    """Every key that a configuration file can hold, as its parts, without the sections."""
    for name, field in section.model_fields.items():
        below = list(_sections_in(field.annotation))
        for inner in below:
            yield from setting_keys(inner, (*above, name))
        if not below or _takes_plain_value(field.annotation):
            yield (*above, name)


def _members(annotation: Any) -> Iterable[Any]:
    """The alternatives of a union, Annotated taken off."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [inner for part in get_args(annotation) for inner in _members(part)]
    return [annotation]


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    for part in _members(annotation):
        if _is_section(part):
            yield part


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _takes_plain_value(annotation: Any) -> bool:
    return any(not _is_section(part) and part is not type(None) for part in _members(annotation))


def schema_text() -> str:
    """JSON schema of the configuration, for editors that check and complete YAML."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(),
    }
    return json.dumps(schema, ensure_ascii=False, indent=1) + "\n"
