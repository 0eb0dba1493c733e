"""Plugins are found by their metadata alone; what is broken is one line that names it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lnsegfm.datasets.convert import card_of
from lnsegfm.errors import PluginError, UnknownName
from lnsegfm.evaluation.metric_table import plugin_metrics
from lnsegfm.imaging.files import read_volume
from lnsegfm.methods.table import METHODS, load_method
from lnsegfm.networks.cards import card_of_path
from lnsegfm.plugins import GROUPS, plugins
from lnsegfm.prediction.writers.writer_table import formats_named
from tests.plugins.packages import describe, install_page, write_files

Bring = Callable[..., Path]


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bring:
    """Put a package on the path: its name, its entry points, its modules."""

    def put(name: str, entry_points: Mapping[str, Mapping[str, str]], **modules: str) -> Path:
        folder = tmp_path / name
        write_files(folder, {f"{module}.py": text for module, text in modules.items()})
        describe(folder, name, {f"lnsegfm.{group}": entries for group, entries in entry_points.items()}, f"Has {name}.")
        monkeypatch.syspath_prepend(str(folder))
        for module in modules:
            monkeypatch.delitem(sys.modules, module, raising=False)
        return folder

    return put


USE: dict[str, Callable[[str], Any]] = {
    "methods": load_method,
    "networks": lambda name: card_of_path(f"broken_{name}.Network"),
    "metrics": lambda name: plugin_metrics([name]),
    "readers": lambda name: read_volume(Path(f"scan.{name}")),
    "writers": formats_named,
    "datasets": card_of,
}
"""How something of each group is used by its name; commands are run."""


def test_nothing_is_brought_where_nothing_is_installed() -> None:
    assert [plugin.package for group in GROUPS for plugin in plugins(group)] == []
    assert list(METHODS) == list(METHODS.builtin)


def test_names_are_listed_without_an_import(bring: Bring) -> None:
    bring("loud", {group: {"thing": "loud_module:THING"} for group in GROUPS}, loud_module="raise SystemExit('loud')")
    assert all([plugin.name for plugin in plugins(group)] == ["thing"] for group in GROUPS)
    assert "thing" in METHODS
    assert list(METHODS)[-1] == "thing"
    assert len(METHODS) == len(METHODS.builtin) + 1
    assert "loud_module" not in sys.modules


@pytest.mark.parametrize("group", USE)
@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("raise RuntimeError('two\\nlines')", "it cannot be loaded (RuntimeError: two lines)"),
        ("import no_such_library", "it cannot be loaded (ModuleNotFoundError: No module named 'no_such_library')"),
        ("raise SystemExit(3)", "it cannot be loaded (SystemExit: 3)"),
        ("", "it cannot be loaded (AttributeError: "),
        ("THING = 3", "it "),
    ],
    ids=["raises", "lacks", "exits", "empty", "other"],
)
def test_a_broken_plugin_is_one_line_that_names_package_and_entry_point(
    group: str, module: str, reason: str, bring: Bring
) -> None:
    bring("broken-thing", {group: {"thing": "broken_thing:THING"}}, broken_thing=module)
    with pytest.raises(PluginError) as caught:
        USE[group]("thing")
    text = str(caught.value)
    assert text.startswith(f"Plugin broken-thing, entry point lnsegfm.{group}: thing = broken_thing:THING: {reason}")
    assert text.endswith(". Update or uninstall broken-thing.")
    assert "\n" not in text


BUILTIN = {"methods": "dgst", "metrics": "dice", "readers": "nii.gz", "writers": "rtstruct", "datasets": "radcure"}


@pytest.mark.parametrize("group", BUILTIN)
def test_a_name_that_is_built_in_is_refused_and_others_go_on(group: str, bring: Bring) -> None:
    name = BUILTIN[group]
    bring("rival", {group: {name: "rival_module:THING"}}, rival_module="THING = 1")
    with pytest.raises(PluginError, match=rf"Plugin rival, .*{name} is built into lnsegfm too") as caught:
        USE[group](name)
    assert "\n" not in str(caught.value)
    assert load_method("lora").name == "lora"


@pytest.mark.parametrize("group", USE)
def test_two_plugins_of_one_name_are_both_named(group: str, bring: Bring) -> None:
    for package in ("one-thing", "other-thing"):
        bring(package, {group: {"thing": "broken_thing:THING"}}, broken_thing="THING = 1")
    clash = r"Plugin one-thing, .*: other-thing brings thing too\. Uninstall one"
    with pytest.raises(PluginError, match=clash) as caught:
        USE[group]("thing")
    assert "\n" not in str(caught.value)


METHOD = """
from dataclasses import dataclass
from lnsegfm.methods.bias import Bias

@dataclass(frozen=True, kw_only=True)
class Mine(Bias):
    name = "mine"
"""


def test_a_method_has_the_name_of_its_entry_point(bring: Bring) -> None:
    bring("mine", {"methods": {"yours": "mine_module:Mine"}}, mine_module=METHOD)
    with pytest.raises(PluginError, match="the method calls itself mine, and both names must be the same"):
        load_method("yours")


def test_a_method_with_an_incomplete_card_is_refused(bring: Bring) -> None:
    text = METHOD.replace('name = "mine"', 'name = "mine"\n    width: int = 3')
    bring("mine", {"methods": {"mine": "mine_module:Mine"}}, mine_module=text)
    with pytest.raises(PluginError, match="width: no line of meaning; declare it by setting"):
        load_method("mine")


def test_a_network_of_another_package_is_refused_by_its_card(bring: Bring) -> None:
    text = "from lnsegfm.networks.cards import NetworkCard\nTHING = NetworkCard('os.path', list, (), list)"
    bring("nets", {"networks": {"thing": "nets_module:THING"}}, nets_module=text)
    with pytest.raises(PluginError, match=r"its class os\.path lies in another package"):
        card_of_path("nets_module.Network")


# -- the commands --------------------------------------------------------------------------------------------------


def test_methods_lists_what_works_and_says_what_does_not(bring: Bring, lnsegfm_here: Any) -> None:
    bring("mine", {"methods": {"mine": "mine_module:Mine"}}, mine_module=METHOD)
    bring("broken-thing", {"methods": {"thing": "broken_thing:THING"}}, broken_thing="1 / 0")
    for words in (["methods"], ["methods", "--json"], ["env", "--list"]):
        done = lnsegfm_here(*words)
        assert done.returncode == 0
        assert "mine" in done.stdout
        assert done.stderr.startswith("lnsegfm: Plugin broken-thing, entry point lnsegfm.methods: thing")
        assert len(done.stderr.splitlines()) == 1
    told = json.loads(lnsegfm_here("methods", "--json").stdout)["mine"]
    assert (told["share_percent"], told["recipe"]["lr"]) == (0.033, 0.01)
    assert lnsegfm_here("methods", "--recipe", "mine").stdout.startswith("# mine: every bias")


def test_a_broken_method_that_is_used_is_exit_code_2(bring: Bring, lnsegfm_here: Any, tmp_path: Path) -> None:
    bring("broken-thing", {"methods": {"thing": "broken_thing:THING"}}, broken_thing="1 / 0")
    done = lnsegfm_here("finetune", tmp_path, "--model", "m", "--out", tmp_path / "o", "--method", "thing")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "lnsegfm: Plugin broken-thing, entry point lnsegfm.methods: thing = broken_thing:THING: it cannot be loaded "
        "(ZeroDivisionError: division by zero). Update or uninstall broken-thing."
    ]


COMMANDS = """
import typer
from lnsegfm.errors import DataError

def hello(name: str, times: int = 1) -> None:
    \"\"\"Greet.\"\"\"
    if name == "nobody":
        raise DataError("Name nobody: it is none. Use another.")
    print(" ".join(["hello", name] * times))

group = typer.Typer(help="Two of them.")

@group.command()
def one() -> None:
    \"\"\"One.\"\"\"
    print("one")

@group.command()
def two() -> None:
    \"\"\"Two.\"\"\"
    print("two")
"""


def test_commands_of_other_packages_are_listed_and_run(bring: Bring, lnsegfm_here: Any) -> None:
    points = {"commands": {"hello": "hello_module:hello", "pair": "hello_module:group"}}
    bring("hello-package", points, hello_module=COMMANDS)
    listed = lnsegfm_here("--help")
    assert listed.returncode == 0
    assert "hello_module" not in sys.modules
    assert "Commands of other packages" in listed.stdout
    assert "Has hello-package (hello-package)." in listed.stdout
    assert "finetune" in listed.stdout
    assert lnsegfm_here("hello", "you", "--times", "2").stdout == "hello you hello you\n"
    assert "Greet." in lnsegfm_here("hello", "--help").stdout
    assert lnsegfm_here("pair", "two").stdout == "two\n"
    assert "Two of them." in lnsegfm_here("pair", "--help").stdout
    refused = lnsegfm_here("hello", "nobody")
    assert (refused.returncode, refused.stderr) == (2, "lnsegfm: Name nobody: it is none. Use another.\n")
    assert lnsegfm_here("hello").returncode == 2


@pytest.mark.parametrize("module", ["1 / 0", "THING = 3", "def THING(x: int | str): 'Help.'"])
def test_a_broken_command_is_met_when_it_is_run_and_help_still_works(
    module: str, bring: Bring, lnsegfm_here: Any
) -> None:
    bring("broken-thing", {"commands": {"thing": "broken_thing:THING"}}, broken_thing=module)
    assert lnsegfm_here("--help").returncode == 0
    assert lnsegfm_here("methods").returncode == 0
    for words in (["thing"], ["thing", "--help"]):
        done = lnsegfm_here(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("lnsegfm: Plugin broken-thing, entry point lnsegfm.commands: thing")
        assert len(done.stderr.splitlines()) == 1


def test_a_command_that_is_built_in_is_not_replaced(bring: Bring, lnsegfm_here: Any) -> None:
    bring("rival", {"commands": {"methods": "rival_module:THING"}}, rival_module="def THING(): print('rival')")
    assert "rival" not in lnsegfm_here("--help").stdout
    done = lnsegfm_here("methods")
    assert (done.returncode, done.stdout) == (2, "")
    assert "methods is built into lnsegfm too" in done.stderr
    assert lnsegfm_here("env").returncode == 0


def test_help_and_lists_load_neither_torch_nor_a_plugin(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom lnsegfm.cli.main import main\n"
        "for words in (['--help'], ['finetune', '--help'], ['env']):\n"
        "    sys.argv = ['lnsegfm', *words]\n"
        "    try:\n        main()\n    except SystemExit:\n        pass\n"
        "print([m for m in ('torch', 'nnunetv2', 'ln_extras') if m in sys.modules], file=sys.stderr)"
    )
    environment = {"PYTHONPATH": f"{install_page(tmp_path)}:{':'.join(sys.path)}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stderr.strip() == "[]"
    assert "count-voxels" in done.stdout
    assert "Extras for lnsegfm (ln-extras)." in done.stdout


def test_an_unknown_metric_is_told_with_those_that_there_are(bring: Bring) -> None:
    with pytest.raises(UnknownName, match=r"Metric thing: not known\. Metrics of other packages: none is installed"):
        plugin_metrics(["thing"])
    bring("metric", {"metrics": {"mine": "metric_module:THING"}}, metric_module="")
    with pytest.raises(UnknownName, match="Metrics of other packages: mine"):
        plugin_metrics(["thing"])
    assert plugin_metrics(["dice"]) == ()
