"""What the documents say can be done, can be done: links resolve, commands parse, marked Python runs."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from lnsegfm.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND_PAGES = {
    "demo": "demo.md",
    "finetune": "finetune.md",
    "predict": "predict.md",
    "presets": "predict.md",
    "evaluate": "evaluate.md",
    "report": "evaluate.md",
    "pretrain": "pretrain.md",
    "env": "env.md",
    "data convert": "convert.md",
    "data arrange": "arrange.md",
    "data check": "doctor.md",
    "data phantom": "phantoms.md",
    "methods": "methods.md",
    "architectures": "architectures.md",
    "adapter apply": "adapter.md",
    "adapter show": "adapter.md",
    "models list": "models.md",
    "models show": "models.md",
    "models pull": "models.md",
    "models import": "models.md",
    "models verify": "models.md",
    "models export": "models.md",
    "models postprocess": "postprocessing.md",
    "models remove": "models.md",
    "study run": "study.md",
    "study status": "study.md",
    "study report": "study.md",
}
UNTOLD = {
    "data phantom": {"--first"},
    "methods": {"--json"},
    "architectures": {"--json"},
}  # options that `--help` alone explains
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


@each_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_relative_to(ROOT), target
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", without_code(file.read_text(encoding="utf-8")), flags=re.MULTILINE)
            assert anchor in map(slug, headings), target


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [
        p.name for p in PAGES if p.parent.name == "docs" and p.name != "index.md" and f"({p.name})" not in index
    ] == []


def code_lines(text: str) -> Iterator[str]:
    """Lines of fenced (not Python) and indented blocks, continued lines joined."""
    kept, language = [], None
    for line in text.splitlines():
        if (fence := re.match(r"\s*```(\w*)", line)) is not None:
            language = fence[1] if language is None else None
        elif language in ("", "bash", "sh", "shell") or (language is None and line.startswith("    ")):
            kept.append(line.strip())
    yield from re.sub(r"\\\n\s*", " ", "\n".join(kept)).splitlines()


def commands_in(text: str) -> Iterator[str]:
    """The `lnsegfm ...` command lines of the blocks, and those inside `"$(...)"`."""
    for line in code_lines(text):
        inner = re.search(r"\$\((lnsegfm [^)]*)\)", line)
        line = inner[1] if inner else line.removeprefix("$ ").removeprefix(".venv/bin/")
        if line.startswith("lnsegfm "):
            yield line


@functools.cache
def program() -> Any:
    """The commands as click has them: typer makes them anew at every call."""
    return get_command(app)


def descend(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and the words that are left for it."""
    command = program()
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{words[0]} is no command"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def options_of(command: Any) -> dict[str, Any]:
    return {name: p for p in command.params if p.param_type_name == "option" for name in (*p.opts, *p.secondary_opts)}


@each_page
def test_command_lines_parse(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text('data = "clinic"\nmodel = "base"\nout = "run"\n')
    for line in commands_in(page.read_text(encoding="utf-8")):
        words = shlex.split(line, comments=True)[1:]
        command, rest = descend(words)
        known = {*options_of(command), "--help", "-h"}
        assert [word for word in rest if word.startswith("-") and word not in known] == [], line
        sketch = any(re.fullmatch(r"[A-Z]+", word) for word in rest)  # `lnsegfm finetune DATA --model M ...`
        if not hasattr(command, "commands") and not sketch and not {"--help", "-h"} & set(rest):
            command.make_context(command.name, rest)  # raises for a missing argument or a value of the wrong kind


@each_page
def test_commands_named_in_the_text_exist(page: Path) -> None:
    for span in re.findall(r"`lnsegfm ([^`]+)`", without_code(page.read_text(encoding="utf-8"))):
        command, rest = descend(span.split())
        assert [w for w in rest if w.startswith("--") and w not in {*options_of(command), "--help"}] == [], span


@pytest.mark.parametrize("name", COMMAND_PAGES)
def test_a_commands_page_tells_every_option_and_its_default(name: str) -> None:
    page_name = COMMAND_PAGES[name]
    page = (ROOT / "docs" / page_name).read_text(encoding="utf-8")
    command, _ = descend(name.split())
    options = options_of(command)
    told = {option for option in options if f"{option}`" in page or f"{option} " in page}
    assert set(options) - told <= UNTOLD.get(name, set())
    rows = re.findall(r"^\| `(--[\w-]+)`[^|]* \| ([^|]*) \| .+ \|$", page, flags=re.MULTILINE)
    if "| option | default |" not in page:
        return
    for option, default in rows:
        if option not in options:  # a page of several commands
            assert any(option in options_of(descend(n.split())[0]) for n, p in COMMAND_PAGES.items() if p == page_name)
            continue
        stated = options[option].default
        if options[option].required:
            assert default == "required", option
        elif isinstance(stated, bool):
            assert default == ("on" if stated else "off"), option
        elif stated is not None:
            assert default == str(stated), option


def test_every_command_has_a_page() -> None:
    root = program()
    names = {n for n, c in root.commands.items() if not hasattr(c, "commands")}
    names |= {f"{n} {inner}" for n, c in root.commands.items() for inner in getattr(c, "commands", {})}
    assert names == set(COMMAND_PAGES)


def python_blocks(page: Path) -> list[tuple[bool, str]]:
    """Fenced Python, and whether `<!-- run -->` stands before it."""
    found = re.findall(r"(<!-- run -->\n)?```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [(bool(mark), block) for mark, block in found]


@each_page
def test_python_that_is_marked_runs(page: Path) -> None:
    for number, (marked, block) in enumerate(python_blocks(page)):
        code = compile(block, f"{page.name}, block {number}", "exec")
        if marked:
            exec(code, {"__name__": "document"})


@each_page
def test_python_imports_what_there_is(page: Path) -> None:
    for _, block in python_blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lnsegfm"):
                assert {alias.name for alias in node.names} <= names_of(node.module), ast.unparse(node)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lnsegfm":
                assert node.attr in names_of("lnsegfm"), ast.unparse(node)


def names_of(module: str) -> set[str]:
    """What a module defines or imports at its top, read without running it; of a package, what it exports."""
    if module in ("lnsegfm", "lnsegfm.testing"):
        return set(importlib.import_module(module).__all__)
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    found: set[str] = set()
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(t.id for t in targets if isinstance(t, ast.Name))
    return found


def test_pretrain_presets_are_those_of_the_code() -> None:
    from lnsegfm.models.planning import PRESETS

    page = (ROOT / "docs" / "pretrain.md").read_text(encoding="utf-8")
    for name, p in PRESETS.items():
        features, patch = (" ".join(map(str, numbers)) for numbers in (p.features, p.patch_size))
        training = f"AdamW, {p.iterations} iterations at {p.lr}"
        assert f"| `{name}` | {features} | {patch} | {p.batch_size} | {training} |" in page


def test_the_readmes_two_commands_are_make_targets() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    asked = {
        line.split()[1] for page in PAGES for line in code_lines(page.read_text("utf-8")) if line.startswith("make ")
    }
    assert {"demo", "test"} <= asked <= targets
    assert "Not for clinical use" in "\n".join(readme.splitlines()[:10])


def test_ci_runs_what_the_readme_says() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o100
    assert "make test" in script.read_text(encoding="utf-8")


def test_the_citation_names_the_paper_and_the_engine() -> None:
    yaml = pytest.importorskip("yaml")
    from lnsegfm import __version__

    content = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert content["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license"} <= set(content)
    assert str(content["version"]) == __version__
    assert {r["doi"] for r in content["references"]} == {"10.1007/978-3-032-04971-1_16", "10.1038/s41592-020-01008-z"}
    for reference in content["references"]:
        assert {"type", "title", "authors"} <= set(reference)
        assert reference["doi"] in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_changelog_has_this_version() -> None:
    from lnsegfm import __version__

    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "file", [*PAGES, ROOT / "Makefile", ROOT / ".ci" / "run", ROOT / "CITATION.cff"], ids=lambda file: file.name
)
def test_no_place_of_one_machine_is_named(file: Path) -> None:
    assert re.findall(r"(?<![\w.])/(?:work|tmp|root|home|Users|mnt)/\S*", file.read_text(encoding="utf-8")) == []
