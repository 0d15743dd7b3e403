"""The shape of the house, over ast: which file may know which, how large things may be, and that
the tree in the README is the one that is there."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "honing"
MOST_LINES = 450
MOST_FUNCTION_LINES = 60
MOST_PROCESSES = 15

Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


# --- imports


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in python_files("src")}


def imported(node: ast.AST) -> Iterator[str]:
    """Modules of honing that a statement imports; names that are no module name their own."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in MODULES)
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import in line {node.lineno}"
        for alias in node.names:
            below = f"{node.module}.{alias.name}"
            if below in MODULES or node.module in MODULES:
                yield below if below in MODULES else str(node.module)


def imports_anywhere(path: Path) -> set[str]:
    return {name for node in ast.walk(tree_of(path)) for name in imported(node)}


def imports_when_loaded(path: Path) -> set[str]:
    """Those that run when the module does: none in functions, none for type checkers alone."""
    found: set[str] = set()
    waiting: list[ast.AST] = [tree_of(path)]
    while waiting:
        node = waiting.pop()
        found |= set(imported(node))
        for child in ast.iter_child_nodes(node):
            for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            if not (isinstance(child, Function | ast.Lambda) or for_types):
                waiting.append(child)
    return found


FORBIDDEN = {
    "honing.data": ("model", "training", "generation", "evaluation", "report", "merging"),
    "honing.model": ("training", "generation", "evaluation", "report", "merging"),
    "honing.training": ("evaluation", "report", "merging"),
    "honing.generation": ("evaluation", "report", "merging"),
    "honing.evaluation": ("report", "merging"),
    "honing.report": ("model", "training", "generation", "merging"),
    "honing.merging": ("evaluation", "report"),
}
STAGES = ("cli", "commands", "demo", "init", "preparation")
NEEDS_A_MODEL = ("evaluate", "answers", "perplexity", "general")
"""Parts of honing.evaluation that compute with one; all others read and count."""


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package: str) -> None:
    inside = [module for module in MODULES if module.startswith(f"{package}.")]
    assert inside
    wrong = [
        f"{module} imports {name}"
        for module in inside
        for name in sorted(imports_anywhere(MODULES[module]))
        if name.split(".")[1:2] and name.split(".")[1] in FORBIDDEN[package]
    ]
    assert wrong == []


def test_stored_evaluations_are_read_and_compared_without_torch() -> None:
    light = {
        module
        for module in MODULES
        if module.startswith(("honing.report.", "honing.evaluation."))
        and module.rsplit(".", 1)[-1] not in NEEDS_A_MODEL
    }
    assert len(light) > 10
    waiting, reached = set(light), set(light)
    while waiting:
        more = imports_when_loaded(MODULES[waiting.pop()]) - reached
        waiting, reached = waiting | more, reached | more
    heavy = {module: foreign_packages(MODULES[module]) & HEAVY for module in reached}
    assert {module: names for module, names in heavy.items() if names} == {}


HEAVY = {"torch", "transformers", "peft", "datasets", "accelerate"}


def foreign_packages(path: Path) -> set[str]:
    """First names of what a file imports at its top."""
    found = set()
    for node in tree_of(path).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    return found


def test_nothing_imports_the_command_line() -> None:
    users = {module for module, path in MODULES.items() if "honing.cli" in imports_anywhere(path)}
    assert users == {"honing.__main__"}


def test_below_the_stages_nothing_imports_one() -> None:
    stages = {f"honing.{name}" for name in STAGES}
    packages = ("honing.data.", "honing.model.", "honing.generation.")
    wrong = {m for m in MODULES if m.startswith(packages) and imports_anywhere(MODULES[m]) & stages}
    assert wrong == set()


def test_no_module_imports_itself_round_a_circle() -> None:
    graph = {module: imports_when_loaded(path) for module, path in MODULES.items()}
    assert graph["honing.training.trainer"] > {"honing.config", "honing.data.encode"}
    assert circle_in(graph) is None


def test_a_circle_would_be_found() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()}) == ["a", "b", "c", "a"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def circle_in(graph: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()

    def search(path: list[str]) -> list[str] | None:
        for name in sorted(graph[path[-1]]):
            if name in path:
                return [*path[path.index(name) :], name]
            if name not in done and (found := search([*path, name])):
                return found
        done.add(path[-1])
        return None

    for start in sorted(graph):
        if start not in done and (found := search([start])):
            return found
    return None


# --- names and sizes


def test_no_file_is_called_after_nothing() -> None:
    names = {path.name for path in python_files("src", "tests", "scripts")}
    assert names.isdisjoint({"utils.py", "util.py", "common.py", "helpers.py", "misc.py"})


def test_files_are_short() -> None:
    sizes = {
        name_of(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files("src", "tests", "scripts")
    }
    assert {name: lines for name, lines in sizes.items() if lines > MOST_LINES} == {}


def test_functions_are_short() -> None:
    sizes = {
        f"{name_of(path)}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in python_files("src", "scripts")
        for node in ast.walk(tree_of(path))
        if isinstance(node, Function)
    }
    assert {name: lines for name, lines in sizes.items() if lines > MOST_FUNCTION_LINES} == {}


def test_every_file_says_what_it_is_for() -> None:
    silent = [
        name_of(path)
        for path in python_files("src", "tests", "scripts")
        if path.stat().st_size and not ast.get_docstring(tree_of(path))
    ]
    assert silent == []


# --- the tree in the README


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_the_readmes_tree_is_the_real_one(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8") if (ROOT / name).is_file() else ""
    if not text or "<!-- tree -->" in text:
        pytest.skip(f"the tree of {name} is not written yet")
    listed = dict(files_in_tree(text))
    there = {
        path.relative_to(ROOT).as_posix()
        for path in SRC.rglob("*")
        if path.is_file() and path.suffix in (".py", ".j2") and path.name != "__init__.py"
    }
    assert there - set(listed) == set(), "not in the tree"
    assert [file for file in listed if not (ROOT / file).exists()] == [], "in the tree only"
    assert [file for file, purpose in listed.items() if not purpose] == [], "without a purpose"


def files_in_tree(text: str) -> Iterator[tuple[str, str]]:
    """(path, purpose) of each line below `src/honing/` in the first fenced block that has one."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    pattern = re.compile(r"^[\s│├└─|`+-]*src/honing/", re.MULTILINE)
    block = next((block for block in blocks if pattern.search(block)), "")
    above: list[tuple[int, str]] = []
    for line in block.splitlines():
        plain = re.sub(r"^[\s│├└─|`+-]*", lambda marks: " " * len(marks[0]), line)
        depth = len(plain) - len(plain.lstrip())
        if plain.lstrip().startswith("src/honing/"):
            above = [(depth, "src/honing/")]
        elif above and plain.strip():
            while above and above[-1][0] >= depth:
                above.pop()
            if not above:
                return
            name, _, purpose = plain.strip().partition(" ")
            path = above[-1][1] + name
            if name.endswith("/"):
                above.append((depth, path))
            else:
                yield path, purpose.strip()


def test_a_tree_is_read_with_and_without_lines() -> None:
    plain = (
        "```\nmake demo\n```\n```text\nconfigs/    YAML\nsrc/honing/   the package\n"
        "  cli.py     flags\n  data/      rows\n    read.py  files\n  run.py\n"
        "tests/  tests\n  a.py x\n```\n"
    )
    drawn = (
        "```\nhoning/\n├── src/honing/\n│   ├── cli.py    flags\n│   ├── data/\n"
        "│   │   └── read.py  files\n│   └── run.py\n└── tests/ tests\n```\n"
    )
    expected = {
        "src/honing/cli.py": "flags",
        "src/honing/data/read.py": "files",
        "src/honing/run.py": "",
    }
    assert dict(files_in_tree(plain)) == expected
    assert dict(files_in_tree(drawn)) == expected


# --- tests that start a process: some seven seconds of imports each


def test_few_tests_start_a_process(request: pytest.FixtureRequest) -> None:
    """Of those collected in this call: all, where the whole gate runs."""
    marked = [item for item in request.session.items if item.get_closest_marker("process")]
    assert len(marked) <= MOST_PROCESSES


def test_each_test_that_starts_a_process_says_so() -> None:
    files = {path: tree_of(path) for path in python_files("tests")}
    starting = functions_that_start_a_process(files)
    marked = {
        (path, node.name)
        for path, tree in files.items()
        for node in ast.walk(tree)
        if isinstance(node, Function)
        and any("mark.process" in ast.unparse(mark) for mark in node.decorator_list)
    }
    tests = {(path, name) for path, name in starting if name.startswith("test_")}
    assert {f"{name_of(path)}: {name}" for path, name in tests - marked} == set()
    assert {f"{name_of(path)}: {name}" for path, name in marked - tests} == set()


def test_hidden_processes_would_be_found() -> None:
    source = """
from subprocess import run as launch
import multiprocessing as mp

def helper(): launch(["true"])
def test_by_a_helper(): helper()
def made(): return mp.Pool()
def test_by_a_fixture(made): pass
def test_by_a_call(): os.fork()
def test_without(tmp_path): run = tmp_path.name
"""
    path = ROOT / "tests" / "made_up.py"
    found = functions_that_start_a_process({path: ast.parse(source)})
    assert {name for _, name in found if name.startswith("test_")} == {
        "test_by_a_helper",
        "test_by_a_fixture",
        "test_by_a_call",
    }


def test_honing_itself_starts_none() -> None:
    pattern = re.compile(r"^\s*(import|from) (subprocess|multiprocessing)", re.MULTILINE)
    files = python_files("src", "scripts")
    assert [f for f in files if pattern.search(f.read_text(encoding="utf-8"))] == []


PROCESS_MODULES = {"subprocess", "multiprocessing", "pty"}
PROCESS_CALLS = {"os.fork", "os.system", "os.popen", "os.posix_spawn", "os.spawnv"}


def functions_that_start_a_process(files: dict[Path, ast.Module]) -> set[tuple[Path, str]]:
    """Functions that name such a module, and those that use one of them: by a call, or as a
    fixture in their arguments."""
    uses: dict[tuple[Path, str], set[str]] = {}
    for path, tree in files.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                uses[path, node.name] = _names_in(node)
    starting = {
        (path, name)
        for (path, name), names in uses.items()
        if names & (_process_names(files[path]) | PROCESS_CALLS)
    }
    borrowed = {path: _names_from_elsewhere(tree) for path, tree in files.items()}
    while True:
        known = {name for _, name in starting}
        more = {
            (path, name)
            for (path, name), names in uses.items()
            if any((path, other) in starting for other in names) or names & known & borrowed[path]
        }
        if more <= starting:
            return starting
        starting |= more


def _names_in(function: Function) -> set[str]:
    """What a function calls or names, its fixtures among it."""
    nodes = list(ast.walk(function))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    of_os = {
        f"os.{node.attr}"
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }
    return names | of_os | {arg.arg for arg in function.args.args}


def _process_names(tree: ast.Module) -> set[str]:
    """The names under which a file has imported a module that starts processes, or parts of it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias for alias in node.names if alias.name.split(".")[-1] in PROCESS_MODULES]
            names |= {alias.asname or alias.name.split(".")[0] for alias in found}
        if isinstance(node, ast.ImportFrom) and node.module in PROCESS_MODULES:
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def _names_from_elsewhere(tree: ast.Module) -> set[str]:
    """What a test file imports from a helper, or can have as a fixture of all."""
    helpers = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests")
        for alias in node.names
    }
    shared = tree_of(ROOT / "tests/conftest.py").body
    return helpers | {node.name for node in shared if isinstance(node, Function)}
