"""Recipes: the packaged one of every method, files of one's own, and what is refused; and the page of methods."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lnsegfm.cli.finetune_options import how_to_train
from lnsegfm.cli.methods_command import share
from lnsegfm.errors import ConfigError, UnknownName
from lnsegfm.methods.shares import share_of
from lnsegfm.methods.table import METHODS, load_method
from lnsegfm.recipe import AUTO, KINDS, Recipe, read_recipe, recipe_of, recipe_text

LEARNING = sorted(name for name, cls in METHODS.items() if cls.learns)


@pytest.mark.parametrize("name", LEARNING)
def test_a_recipe_writes_everything_out(name: str) -> None:
    content = tomllib.loads(recipe_text(name))
    assert set(content) == set(KINDS) - (set() if dataclasses.fields(METHODS[name]) else {"settings"})
    assert content["method"] == name
    recipe = recipe_of(name)
    rates = sorted(recipe.lr_grid)
    assert recipe.lr in rates
    assert len(rates) == 3
    assert all(2.5 < high / low < 4 for low, high in pairwise(rates))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_its_settings_are_those_that_the_method_has_from_python(name: str) -> None:
    """``lnsegfm.DGST()`` and ``--method dgst`` must mean the same."""
    content = tomllib.loads(recipe_text(name)).get("settings", {})
    own = {key: "none" if value is None else value for key, value in METHODS[name]().settings().items()}
    assert content == own
    assert load_method(name, recipe_of(name).texts()) == METHODS[name]()


@pytest.mark.parametrize(
    ("name", "lr", "grid"),
    [
        ("dgst", 0.01, (0.001, 0.003, 0.01)),
        ("full", 0.003, (0.001, 0.003, 0.01)),
        ("l2-sp", 0.001, (0.001, 0.003, 0.01)),
        ("dora", 0.003, (0.0003, 0.001, 0.003)),
    ],
)
def test_rates_are_those_that_the_comparison_chose(name: str, lr: float, grid: tuple[float, ...]) -> None:
    recipe = recipe_of(name)
    assert (recipe.iterations, recipe.lr, recipe.lr_grid, recipe.warm_up) == (1000, lr, grid, 0)


def test_a_method_that_does_not_learn_has_only_its_name() -> None:
    assert tomllib.loads(recipe_text("zero-shot")) == {"method": "zero-shot"}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_run_takes_what_it_is_not_told_from_its_methods_recipe(name: str) -> None:
    packaged = recipe_of(name)
    recipe = Recipe(method=name)
    assert (recipe.iterations, recipe.lr, recipe.warm_up) == (packaged.iterations, packaged.lr, packaged.warm_up)
    assert recipe.lr_grid is None
    auto = Recipe(method=name, lr=AUTO, iterations=7)
    assert (auto.lr_grid, auto.rate, auto.iterations) == (packaged.lr_grid, packaged.lr, 7)


def test_the_identity_holds_what_decides_the_result_and_nothing_else() -> None:
    same = [Recipe(), Recipe(lr_grid=(1.0, 2.0)), Recipe(lr_default=0.5), Recipe(warm_up=0)]
    assert all(recipe.identity() == same[0].identity() for recipe in same)
    others = [
        Recipe(warm_up=5),
        Recipe(lr=AUTO),
        Recipe(lr=AUTO, lr_grid=(0.1, 0.2)),
        Recipe(lr=AUTO, lr_default=0.5),
        Recipe(lr=0.5),
        Recipe(iterations=7),
    ]
    found = [json.dumps(recipe.identity(), sort_keys=True) for recipe in [same[0], *others]]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": "fast"}, "lr fast: a rate is a number, or auto"),
        ({"lr": float("nan")}, "lr nan"),
        ({"lr": float("inf")}, "lr inf"),
        ({"lr": 0.0}, "lr 0.0"),
        ({"lr": AUTO, "lr_grid": (0.1, 0.1)}, "lr_grid .* each once"),
        ({"lr": AUTO, "lr_grid": (0.1, -0.1)}, "lr_grid -0.1"),
        ({"warm_up": -1}, "warm_up -1"),
        ({"warm_up": 1000}, "warm_up 1000: training has 1000 iterations only"),
        ({"iterations": 0}, "iterations 0"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe(**fields)


def test_an_unknown_method_is_told_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"Method dgsd: not known\. The methods: zero-shot, .*dgst-bounded"):
        Recipe(method="dgsd")


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_packaged_recipe_saved_and_read_is_the_same(name: str, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(recipe_text(name), encoding="utf-8")
    assert read_recipe(file) == recipe_of(name)
    assert how_to_train(None, file, ()) == how_to_train(name, None, ())


def test_what_a_file_leaves_out_is_the_methods_own(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('method = "lora"\niterations = 5\nlr = 1\n[settings]\nrank = 2\n', encoding="utf-8")
    recipe, own = read_recipe(file), recipe_of("lora")
    assert recipe == dataclasses.replace(own, iterations=5, lr=1.0, settings={**own.settings, "rank": 2})
    assert isinstance(recipe.lr, float)


def test_options_win_over_a_file(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('method = "lora"\niterations = 50\nlr = 0.5\nwarm_up = 3\n[settings]\nrank = 2\n', encoding="utf-8")
    plain = how_to_train("lora", file, ())
    assert (plain["iterations"], plain["lr"], plain["warm_up"], plain["settings"]["rank"]) == (50, 0.5, 3, 2)
    given = how_to_train(None, file, ["rank=3", "alpha=1"], iterations=9, lr="0.25", warm_up=0)
    assert (given["iterations"], given["lr"], given["warm_up"]) == (9, 0.25, 0)
    assert (given["settings"]["rank"], given["settings"]["alpha"], given["settings"]["rule"]) == (3, 1.0, "adamw")
    auto = Recipe(**how_to_train(None, file, (), lr=AUTO, iterations=None))
    assert (auto.lr, auto.rate, auto.lr_grid) == (AUTO, 0.5, recipe_of("lora").lr_grid)


BAD_FILES = [
    ("method = ", "not TOML"),
    ("iterations = 5", "method: it is missing"),
    ('method = "dgsd"', "Method dgsd: not known"),
    ("method = 3", "method = 3: the name of a method"),
    ('method = "dgst"\niteration = 5', "iteration: a recipe has no such key"),
    ('method = "dgst"\niterations = 5.0', "iterations = 5.0: a whole number"),
    ('method = "dgst"\niterations = "5"', 'iterations = "5": a whole number'),
    ('method = "dgst"\niterations = true', "iterations = true: a whole number"),
    ('method = "dgst"\niterations = 0', "iterations 0: it must be at least 1"),
    ('method = "dgst"\nlr = "auto"', 'lr = "auto": a number'),
    ('method = "dgst"\nlr = nan', "lr nan"),
    ('method = "dgst"\nlr = -1', "lr -1"),
    ('method = "dgst"\nlr_grid = 0.1', "lr_grid = 0.1: a list of numbers"),
    ('method = "dgst"\nlr_grid = []', r"lr_grid = \[\]: a list of numbers"),
    ('method = "dgst"\nlr_grid = [0.1, "0.2"]', "lr_grid = .*: a list of numbers"),
    ('method = "dgst"\nlr_grid = [0.1, true]', "lr_grid = .*: a list of numbers"),
    ('method = "dgst"\nlr_grid = [0.1, 0.1]', "lr_grid .* each once"),
    ('method = "dgst"\nwarm_up = -1', "warm_up -1"),
    ('method = "dgst"\nwarm_up = 2000', "warm_up 2000: training has 1000"),
    ('method = "dgst"\nsettings = 3', "settings = 3: a table"),
    ('method = "dgst"\n[settings]\ngama = 2', "settings: Setting gama"),
    ('method = "dgst"\n[settings]\ngamma = "2"', 'settings.gamma = "2": a number has no quotes'),
    ('method = "dgst"\n[settings]\ngamma = 2.5', "settings: Setting gamma=2.5: .* a whole number"),
    ('method = "dgst"\n[settings]\ngamma = true', "settings: Setting gamma=True"),
    ('method = "dgst"\n[settings]\ngamma = [1]', r"settings.gamma = \[1\]: one number or word"),
    ('method = "dgst"\n[settings]\ngamma = 0', "settings: gamma 0"),
    ('method = "dgst"\n[settings]\nmode = "papers"', "settings: mode papers"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES)
def test_a_file_that_cannot_be_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises((ConfigError, UnknownName), match=f"my.toml: {message}") as caught:
        how_to_train(None, file, ())
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_and_one_of_another_method_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml: no such file"):
        how_to_train(None, tmp_path / "no.toml", ())
    with pytest.raises(ConfigError, match="cannot be read"):
        how_to_train(None, tmp_path, ())
    file = tmp_path / "my.toml"
    file.write_bytes(b"method = '\xff'")
    with pytest.raises(ConfigError, match=r"my\.toml: it cannot be read"):
        how_to_train(None, file, ())
    file.write_text('method = "lora"', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"--method dora: .*my.toml is a recipe of lora"):
        how_to_train("dora", file, ())
    with pytest.raises(ConfigError, match=r"--lr fast: a number such as 0\.01 is needed, or auto"):
        how_to_train("lora", None, (), lr="fast")


# -- lnsegfm methods -----------------------------------------------------------------------------------------------


def test_the_page_of_methods_tells_them_all(lnsegfm_here: Callable[..., Any]) -> None:
    done = lnsegfm_here("methods")
    assert done.returncode == 0
    words = " ".join(done.stdout.split())
    for name, cls in METHODS.items():
        assert re.search(rf"^{name} +[\d.]+ %  ", done.stdout, flags=re.MULTILINE), name
        assert cls.summary in words
        assert cls.source.split(",")[0].split(";")[0] in words


def test_on_eighty_columns_no_line_is_longer(lnsegfm: Callable[..., Any]) -> None:
    done = lnsegfm("methods", COLUMNS="80")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert len(done.stdout.splitlines()) < 4 * len(METHODS)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_one_method_tells_its_settings(name: str, lnsegfm_here: Callable[..., Any]) -> None:
    told = lnsegfm_here("methods", name).stdout
    for field in dataclasses.fields(METHODS[name]):
        assert f"{field.name}={'none' if field.default is None else field.default}" in told
        assert field.metadata["meaning"] in told
    assert METHODS[name].source in told


def test_json_tells_everything(lnsegfm_here: Callable[..., Any]) -> None:
    told = json.loads(lnsegfm_here("methods", "--json").stdout)
    assert list(told) == list(METHODS)
    for name, cls in METHODS.items():
        assert told[name]["summary"] == cls.summary
        assert told[name]["source"] == cls.source
        assert told[name]["share_percent"] == share_of(cls)
        assert told[name]["trains"] == sorted(cls.trains)
        assert list(told[name]["settings"]) == [field.name for field in dataclasses.fields(cls)]
        assert (told[name]["recipe"] is None) == (not cls.learns)
    assert told["lora"]["recipe"]["lr_grid"] == list(recipe_of("lora").lr_grid)


def test_a_recipe_is_printed_as_its_file(lnsegfm_here: Callable[..., Any]) -> None:
    assert lnsegfm_here("methods", "--recipe", "lora").stdout == recipe_text("lora")
    refused = lnsegfm_here("methods", "--recipe", "lorra")
    assert refused.returncode == 2
    assert refused.stderr.startswith("lnsegfm: Method lorra: not known.")


@pytest.mark.parametrize(
    ("percent", "text"),
    [(0, "0 %"), (100, "100 %"), (63.4, "63 %"), (9.96, "10 %"), (1.234, "1.2 %"), (0.0604, "0.06 %")],
)
def test_a_share_is_told_by_two_digits(percent: float, text: str) -> None:
    assert share(percent) == text
    assert share(0.00001234) == "0.000012 %"


@pytest.mark.parametrize(
    "words", [["methods"], ["methods", "lora"], ["methods", "--json"], ["methods", "--recipe", "lora"]]
)
def test_methods_load_neither_torch_nor_nnunet(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['lnsegfm', *{words!r}]\n"
        "from lnsegfm.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'nnunetv2', 'numpy') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_the_recipe_that_the_documents_show_is_the_packaged_one_and_is_taken(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "finetune.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```toml\n(# dgst.*?)```", page, flags=re.DOTALL)
    assert shown == recipe_text("dgst")
    file = tmp_path / "my.toml"
    file.write_text(shown, encoding="utf-8")
    assert how_to_train(None, file, ()) == how_to_train("dgst", None, ())
