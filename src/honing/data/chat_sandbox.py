"""A chat template rendered in a sandbox that bounds what it can reach and what it can cost.

A template comes with a model, from anyone. Jinja's immutable sandbox keeps it from Python's own
attributes; it still may loop for hours, or write 'x' * 10**12. So loops, calls, filters, sums and
output spend a budget here, and a template that spends it all is refused. Tags, filters and globals
are those of transformers' apply_chat_template, whose text this one equals.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from datetime import datetime
from functools import partial
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

BUDGET = 30_000_000
"""Characters, and items of lists, that one rendering may make: some seconds, some 200 MB."""
STEP = 30
"""What a call, a filter or a turn of a loop costs: a million of them is all there is."""
MOST_SOURCE_CHARS = 200_000
MOST_BITS = 256
"""Of a whole number. Python's own grow until memory is full."""

_FILTERS = (
    "abs capitalize count d default dictsort e escape first float indent int items join last "
    "length list lower map max min reject rejectattr replace reverse round safe select selectattr "
    "sort string title tojson trim unique upper"
)
"""Jinja's filters that chat templates use. Others make texts of a length that they are told."""
GROWING = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"})
"""Methods of texts, likewise."""


class TooCostly(jinja2.TemplateError):  # type: ignore[misc]
    """The template has spent its budget."""


class _Budget:
    """What may still be spent. One for all renderings of a template, refilled before each."""

    def __init__(self) -> None:
        self.left = 0

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise TooCostly("it computes or writes more than any chat needs")

    def pay(self, value: Any) -> Any:
        """The value, once it is paid for: its characters and items, those of its items too.

        A list that holds a list twice, which does the same, and so on, is small in memory and
        endless once it is written or compared.
        """
        self.spend(STEP + (len(value) if isinstance(value, Sized) else 0))
        items = [*value, *value.values()] if isinstance(value, dict) else value
        if isinstance(items, list | tuple):
            for item in items:
                if not isinstance(item, int | None):
                    self.pay(item)
        elif isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise TooCostly("it computes with numbers of hundreds of digits")
        return value


class _Generation(Extension):  # type: ignore[misc]
    """transformers' mark around answers: {% generation %} … {% endgeneration %}."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Dictionary:
    """dict() without the class itself."""

    def __call__(self, *arguments: Any, **items: Any) -> dict[Any, Any]:
        return dict(*arguments, **items)


class _Namespace(Namespace):  # type: ignore[misc]
    """Jinja's namespace() without names that begin with an underscore."""

    def __init__(*arguments: Any, **names: Any) -> None:
        self = arguments[0]
        Namespace.__init__(self)
        for name, value in dict(*arguments[1:], **names).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace takes no {name!r}")
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "namespace()"  # it may hold itself


class _Sandbox(ImmutableSandboxedEnvironment):  # type: ignore[misc]
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self) -> None:
        self.budget = _Budget()
        pay = self.budget.pay
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # which would compute constants before there is a budget
            finalize=lambda value: pay(value if isinstance(value, str) else str(pay(value))),
            extensions=[_Generation, loopcontrols],
        )
        filters: dict[str, Any] = {**self.filters, "tojson": _to_json, "indent": _indented}
        filters["replace"] = partial(_replace, self.budget)
        filters["join"] = partial(_join, self.budget)
        known = _FILTERS.split()
        self.filters: dict[str, Any] = {name: self._paid(filters[name]) for name in known}
        self.filters |= {"_pay": pay, "_spend": self.budget.spend, "_turns": self._turns}
        self.tests: dict[str, Any] = {name: self._paid(test) for name, test in self.tests.items()}
        self.globals: dict[str, Any] = {
            "range": self.globals["range"],
            "namespace": _Namespace,
            "dict": _Dictionary(),
            "raise_exception": _raise,
            "strftime_now": lambda wanted: datetime.now().strftime(str(wanted)[:100]),
        }

    def _paid(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function, updated=("__dict__",))
        def call(*arguments: Any, **options: Any) -> Any:
            for argument in arguments:
                if isinstance(argument, str | list | tuple | dict | range):
                    self.budget.pay(argument)
            return self.budget.pay(function(*arguments, **options))

        return call

    def _turns(self, values: Any, cost: int) -> Any:
        """What a loop goes through, paid at once where its length is known, else turn by turn."""
        if isinstance(values, Sized):
            self.budget.spend(len(values) * cost)
            return values
        return self._each_turn(values, cost)

    def _each_turn(self, values: Any, cost: int) -> Iterator[Any]:
        for value in values:
            self.budget.spend(cost)
            yield value

    def call(self, context: Any, function: Any, *arguments: Any, **options: Any) -> Any:
        method = getattr(function, "__wrapped__", function)  # the sandbox wraps str.format
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, str):
            if name in GROWING:
                raise TooCostly(f"it calls {name}(), which no chat needs")
            if name in ("replace", "join"):
                ours = _replace if name == "replace" else _joined_by
                return self.budget.pay(ours(self.budget, owner, *arguments, **options))
            self.budget.spend(len(owner))
        self.budget.spend(STEP)
        return self.budget.pay(super().call(context, function, *arguments, **options))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise TooCostly(f"it computes with {operator}, which no chat needs")
        if operator == "*":
            for items, times in ((left, right), (right, left)):
                if isinstance(items, Sized) and isinstance(times, int):
                    self.budget.spend(len(items) * max(0, times))
        return self.budget.pay(super().call_binop(context, operator, left, right))


def _raise(message: object) -> None:
    raise jinja2.TemplateError(str(message)[:1000])


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(indent, int) and not 0 <= indent <= 16:
        raise TooCostly("it indents further than any chat needs")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _indented(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    if (width if isinstance(width, int) else len(width)) > 100:
        raise TooCostly("it indents further than any chat needs")
    return str(jinja2.filters.do_indent(text, width, first, blank))


def _replace(budget: _Budget, text: Any, old: str, new: str, count: int = -1) -> str:
    whole, old, new = str(text), str(old), str(new)
    budget.spend(len(whole) + (whole.count(old) + 1) * len(new))
    return whole.replace(old, new, -1 if count is None else count)


def _join(budget: _Budget, values: Any, d: str = "", attribute: str | None = None) -> str:
    texts = []
    for value in values:
        if attribute is not None:
            value = value[attribute] if isinstance(value, Mapping) else ""
        budget.spend(len(d))
        texts.append(str(budget.pay(value)))
    return str(d).join(texts)


def _joined_by(budget: _Budget, between: str, values: Any) -> str:
    return _join(budget, values, between)


def _with_prices(tree: nodes.Template) -> nodes.Template:
    """Put a price on what compiles to plain Python: `~`, slices, lists, comparisons, loops, and
    the plain text that a loop or a macro writes each time."""
    everything = list(tree.find_all(nodes.Node))
    for node in everything:
        for name, value in list(node.iter_fields()):
            if isinstance(value, list):
                value[:] = [_priced(node, item) for item in value]
            else:
                setattr(node, name, _priced(node, value))
    for node in everything:
        own = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        if isinstance(node, nodes.For):
            node.iter = _filtered(node.iter, "_turns", nodes.Const(STEP + own))
        if isinstance(node, nodes.Macro | nodes.CallBlock):
            spent = _filtered(nodes.Const(own), "_spend")
            node.body = [nodes.Assign(nodes.Name("_spent", "store"), spent), *node.body]
        if isinstance(node, nodes.AssignBlock):
            node.filter = _filtered(node.filter, "_pay")
    return tree


def _priced(parent: nodes.Node, node: Any) -> Any:
    is_slice = isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
    compared = isinstance(parent, nodes.Compare | nodes.Operand) and isinstance(node, nodes.Expr)
    made = isinstance(node, nodes.Concat | nodes.List | nodes.Dict)
    return _filtered(node, "_pay") if is_slice or compared or made else node


def _filtered(value: Any, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(arguments), [], None, None)


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> tuple[_Budget, jinja2.Template]:
    sandbox = _Sandbox()
    tree = _with_prices(sandbox.parse(source))
    tree.set_environment(sandbox)
    tree.set_lineno(1)
    return sandbox.budget, sandbox.from_string(tree)


def render_chat_template(
    source: str, messages: Sequence[Mapping[str, str]], special_tokens: Mapping[str, Any]
) -> str:
    """The text that a chat template makes of messages.

    Raises jinja2.TemplateError, or whatever else its author's expressions raise.
    """
    if len(source) > MOST_SOURCE_CHARS:
        raise TooCostly("it is longer than any chat template")
    budget, template = _compiled(source)
    given = sum(len(text) for message in messages for text in message.values())
    budget.left = BUDGET + 100 * given
    return "".join(
        template.generate(
            **special_tokens,
            messages=[dict(message) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=False,
        )
    )
