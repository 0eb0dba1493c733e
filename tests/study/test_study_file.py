"""A study's file: what it declares, and what it is refused for."""

from __future__ import annotations

import pytest

from lnsegfm.errors import LnSegFmError
from lnsegfm.study.study_file import read_study
from lnsegfm.study.study_runs import planned_study_runs, rate_owner, recipe_fields, require_recipes, study_recipe

WHOLE = """\
shots = [1, 5]
draws = 3
reference = "full"
[training]
iterations = 120
mirroring = false
[bases]
small = "small"
large = "large"
[data.neck]
folder = "neck"
held_out = 10
source_data = "source"
[data.chest]
folder = "chest"
held_out_data = "chest-held-out"
bases = ["small"]
training = { iterations = 400 }
[methods.full]
lr = 0.01
[methods.dgst]
rates = [0.001, 0.01]
grid = { gamma = [1, 4], iterations = [60, 120] }
[methods.momentum]
method = "dgst"
rates_of = "dgst gamma=1 iterations=60"
settings = { mode = "momentum" }
[rate_choice]
shots = 5
"""


def read(tmp_path, text):
    file = tmp_path / "study.toml"
    file.write_text(text)
    study = read_study(file)
    require_recipes(study)
    return study


def test_every_method_on_every_base_data_shots_and_draw_is_a_run_and_draws_come_whole(tmp_path):
    study = read(tmp_path, WHOLE)
    runs = planned_study_runs(study)
    assert [arm.name for arm in study.arms] == [
        "full",
        *(f"dgst gamma={gamma} iterations={steps}" for gamma in (1, 4) for steps in (60, 120)),
        "momentum",
    ]
    assert len(runs) == len({run.name for run in runs}) == 3 + 3 * 6 * 2 * 3
    assert [run.draw for run in runs[3:]] == sorted(run.draw for run in runs[3:])
    assert len({run.job_name({}) for run in runs}) == len(runs)


def test_settings_of_a_method_come_before_the_datas_and_these_before_the_studys(tmp_path):
    study = read(tmp_path, WHOLE)

    def steps(data, method):
        return recipe_fields(study, study.of_data(data), method)["iterations"]

    assert (steps("neck", "full"), steps("chest", "full")) == (120, 400)
    assert steps("chest", "dgst gamma=4 iterations=60") == 60
    recipe = study_recipe(recipe_fields(study, study.of_data("neck"), "dgst gamma=4 iterations=60"), "")
    assert (recipe.settings["gamma"], recipe.lr, recipe.lr_grid, recipe.mirroring) == (4, "auto", (0.001, 0.01), False)


def test_a_rate_that_is_chosen_once_is_chosen_on_the_stated_shots_and_draw(tmp_path):
    study = read(tmp_path, WHOLE)
    by_method = {run.method: run for run in planned_study_runs(study) if run.data == "neck" and run.draw == 2}
    assert rate_owner(study, by_method["full"]) is None
    owner = rate_owner(study, by_method["momentum"])
    assert (owner.method, owner.shots, owner.draw) == ("dgst gamma=1 iterations=60", 5, 0)
    without = read(tmp_path, WHOLE.partition("[rate_choice]")[0])
    assert rate_owner(without, by_method["momentum"]) is None  # each run chooses by itself


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("draws = 3", "draw = 3", "draw: a study has no such key. Write draws."),
        ("draws = 3", "", "draws: it is missing"),
        ("shots = [1, 5]", "shots = [1, 1]", "shots = [1, 1]: it cannot stand there"),
        ("shots = [1, 5]", "shots = [0]", "different whole numbers from 1"),
        ("iterations = 120\nmirroring", "iteration = 120\nmirroring", "training has no such key. Write iterations."),
        ("iterations = 120\nmirroring", 'iterations = "many"\nmirroring', "a setting is of the wrong kind"),
        ("mirroring = false", "shots = 3", "training: shots: a training has no such key"),
        ('"small"]', '"smal"]', "nothing of this name is declared. Write small."),
        ('reference = "full"', 'reference = "ful"', "Write full."),
        ("held_out = 10\n", "", "held_out and held_out_data: neither is there"),
        ("held_out = 10\n", 'held_out = 10\nheld_out_data = "x"\n', "both are there"),
        ("held_out = 10\n", "held_out = 0\n", "a whole number from 1"),
        ('folder = "chest"', 'folders = "chest"', "Write folder."),
        ("[methods.full]", "[methods.ful]", "Method ful: not known"),
        ("[methods.full]", "[methods.zero-shot]", "the base is scored in every study"),
        ("[methods.full]", "[methods.base]\nmethod = 'full'", "the name is taken"),
        ("[methods.full]", '[methods."a/b"]\nmethod = "full"', "it cannot be a name"),
        ("lr = 0.01", "lr = 0.01\nrates = [0.1]", "say the same thing"),
        ("gamma = [1, 4]", "gama = [1, 4]", "Write gamma."),
        ("gamma = [1, 4]", "gamma = 4", "Write a list of values"),
        ("gamma = [1, 4]", "gamma = [0]", "gamma 0"),
        ('mode = "momentum"', 'mod = "momentum"', "mod"),
        ("rates = [0.001, 0.01]", 'rates = ["x"]', "Write numbers"),
        ("rates_of = ", "rates_of = 'x' #", "Write" if False else "nothing of this name is declared"),
        ("shots = 5\n", "", "shots: it is missing" if False else ""),
    ],
)
def test_what_cannot_be_is_refused_with_file_and_key(tmp_path, before, after, said):
    assert WHOLE.count(before) == 1, before
    text = WHOLE.replace(before, after)
    if not said:  # an empty table is as none
        assert read(tmp_path, text).rate_choice is None
        return
    with pytest.raises(LnSegFmError) as refused:
        read(tmp_path, text)
    assert said in str(refused.value)
    assert "study.toml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_none_and_one_that_is_no_toml_are_refused(tmp_path):
    with pytest.raises(LnSegFmError, match="no such file"):
        read_study(tmp_path / "none.toml")
    with pytest.raises(LnSegFmError, match="not TOML"):
        read(tmp_path, "shots = [")
