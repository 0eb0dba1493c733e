"""``lnsegfm models list``, ``show``, ``pull``, ``verify`` and ``remove``."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from lnsegfm.registry.manifest import FORMAT
from lnsegfm.registry.stored_model import read_stored
from tests.registry.conftest import card_at, make_card

CONTENT = b"PK a model" * 100


@pytest.fixture
def run(lnsegfm_here):
    def run(*words: object) -> tuple[int, str, str]:
        done = lnsegfm_here("models", *words)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def manifest(site, tmp_path):
    """A file of cards, one of them to pull."""
    site.files["/m/base.zip"] = CONTENT
    path = tmp_path / "cards.json"

    def write(**fields: Any) -> Path:
        card = card_at(f"{site.url}/m/base.zip", CONTENT, citation="Somebody 2025", **fields)
        path.write_text(json.dumps({"format": FORMAT, "models": [card.as_json()]}))
        return path

    write()
    return path, write


@pytest.fixture
def installed(monkeypatch, store):
    """What the import would be asked for; it stores a model without loading torch."""
    asked: list[tuple[Path, str]] = []

    def install(path: Path, name: str, options: Any, *, card: Any, progress: Any) -> Any:
        assert path.read_bytes() == CONTENT
        assert card.name == name
        assert progress is not None
        asked.append((path, name))
        return read_stored(store(name, card, hashlib.sha256(CONTENT).hexdigest()))

    monkeypatch.setitem(
        sys.modules,
        "lnsegfm.models.install",
        types.SimpleNamespace(install=install, ImportOptions=types.SimpleNamespace),
    )
    return asked


def test_list_table(run, store):
    store("ours", make_card("ours", task="nodes [of mice]"))
    code, out, err = run("list")
    rows = {line.split("│")[0].strip(): line for line in out.splitlines() if line.count("│") > 2}
    assert (code, err) == (0, "")
    assert {"ln-nnunet", "phantom-neck", "totalseg-organs", "totalseg-headneck-muscles-2", "ours"} <= rows.keys()
    assert all(cell in rows["ln-resencl"] for cell in ("resenc-l", "no", "none stated"))
    assert "beyond research" not in out
    assert all(cell in rows["ours"] for cell in ("yes", "nodes [of mice]", "CC-BY-4.0"))
    assert "built in" in rows["phantom-neck"]
    assert "Not for clinical use." in out


@pytest.mark.parametrize(
    ("words", "found"), [(["Parotid", "left"], "totalseg-head-glands"), (["head-muscles"], "totalseg-head-muscles")]
)
def test_list_only_what_speaks_of_words(run, words, found):
    names = [model["name"] for model in json.loads(run("list", *words, "--json")[1])["models"]]
    assert names == [found]


def test_list_of_words_that_nothing_speaks_of(run):
    assert run("list", "unicorn")[:2] == (0, "No model speaks of unicorn. All of them: lnsegfm models list\n")


def test_list_json(run, store, home):
    store("ln-nnunet")
    code, out, _ = run("list", "--json")
    found = json.loads(out)
    assert (code, found["home"]) == (0, str(home))
    assert {model["name"]: model["installed"] for model in found["models"]}["ln-nnunet"] is True
    assert [m["name"] for m in found["models"] if m["installed"]] == ["phantom-neck", "ln-nnunet"]
    assert [m["name"] for m in found["models"] if m["built_in"]] == ["phantom-neck"]
    assert found["models"][0]["figures"]


def test_list_a_manifest_of_ones_own(run, manifest):
    assert "A base" in run("list", "--json", "--manifest", manifest[0])[1]


def test_list_a_damaged_one_hides_no_other(run, store):
    store("good")
    (store("bad") / "card.json").write_text("{}")
    code, out, err = run("list")
    assert code == 0
    assert "good" in out
    assert "card.json" in err
    assert all(line.startswith("lnsegfm: ") for line in err.splitlines())


def test_list_a_wrong_manifest_is_exit_code_2(run, tmp_path):
    (tmp_path / "m.json").write_text('{"format": "lnsegfm.models/1", "models": [{"name": "x", "run": "y"}]}')
    code, out, err = run("list", "--manifest", tmp_path / "m.json")
    assert (code, out) == (2, "")
    assert "card x: field run: no such field is known" in err


def test_show_everything_with_its_source(run):
    code, out, err = run("show", "ln-resencl")
    assert (code, err) == (0, "")
    for told in (
        "83.55 %",
        "203.2 s",
        "22.6 GB",
        "arXiv 2503.00748",
        "none stated; ask",
        "Luo Z.",
        "by hand",
        "no",
    ):
        assert told in out
    assert out.splitlines()[-1] == "Not for clinical use."


def test_show_what_is_stored_says_what_it_was_made_of(run, store):
    folder = store("ours")
    out = run("show", "ours")[1]
    for told in (str(folder), "base.zip", "a" * 64, "an nnU-Net zip", "one fold of five", "2025-01-02"):
        assert told in out


def test_show_of_a_stored_model_tells_what_its_import_learned(run, store):
    assert "nodule=1" not in run("show", "ln-nnunet")[1]
    store("ln-nnunet", make_card("ln-nnunet", labels={"nodule": 1}))
    assert "nodule=1" in run("show", "ln-nnunet")[1]


def test_show_json(run, store):
    store("ours")
    found = json.loads(run("show", "ours", "--json")[1])
    assert (found["name"], found["installed"], found["stored"]["source"]["bytes"]) == ("ours", True, 7)
    assert json.loads(run("show", "ln-nnunet", "--json")[1])["installed"] is False


def test_show_each_place_is_told(run, manifest, site):
    path, _ = manifest
    assert f"{site.url}/m/base.zip" in run("show", "base", "--manifest", path)[1]
    content = json.loads(path.read_text())
    content["models"][0]["location"] = {"kind": "huggingface", "repo": "lab/base", "filename": "a.zip"}
    path.write_text(json.dumps(content))
    assert "Hugging Face lab/base: a.zip (main)" in run("show", "base", "--manifest", path)[1]


@pytest.mark.parametrize("name", ["nothing", "../x"])
def test_show_a_name_that_is_none(run, name):
    code, out, err = run("show", name)
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_pull_from_the_server_to_the_import(run, manifest, installed, home):
    code, out, err = run("pull", "base", "--manifest", manifest[0])
    assert code == 0
    assert [name for _, name in installed] == ["base"]
    assert out.count("Licence: CC-BY-4.0; cite") == 1
    assert out.count("Cite: Somebody 2025") == 1
    assert str(home / "models" / "base") in out
    assert "Note: one fold of five" in out
    assert out.splitlines()[-1] == "Not for clinical use."
    assert "Downloading base from http://127.0.0.1" in err


def test_pull_a_second_time_nothing_is_done(run, manifest, installed, site):
    run("pull", "base", "--manifest", manifest[0])
    code, out, _ = run("pull", "base", "--manifest", manifest[0])
    assert (code, len(installed), len(site.asked)) == (0, 1, 1)
    assert out.startswith("base is stored already: ")
    assert "Licence" not in out


def test_pull_unless_the_card_means_another_file(run, manifest, installed, site):
    path, write = manifest
    run("pull", "base", "--manifest", path)
    write(sha256="c" * 64)
    code, out, err = run("pull", "base", "--manifest", path)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert hashlib.sha256(CONTENT).hexdigest()[:12] in err
    assert "c" * 12 in err
    assert len(site.asked) == 1


def test_pull_a_wrong_hash_imports_nothing(run, manifest, installed, home):
    path, write = manifest
    write(sha256="c" * 64)
    code, out, err = run("pull", "base", "--manifest", path)
    assert (code, out, installed) == (2, "", [])
    assert "SHA-256" in err
    assert not (home / "models").exists()
    assert not list((home / "downloads").rglob("*.zip"))


def test_pull_offline_from_the_cache(run, manifest, installed, site):
    assert run("pull", "base", "--offline", "--manifest", manifest[0])[0] == 2
    run("pull", "base", "--manifest", manifest[0])
    run("remove", "base", "--yes")
    assert run("pull", "base", "--offline", "--manifest", manifest[0])[0] == 0
    assert (len(site.asked), len(installed)) == (1, 2)


def test_pull_from_a_mirror(run, manifest, installed, site):
    site.files["/mirror/base/base.zip"] = site.files.pop("/m/base.zip")
    assert run("pull", "base", "--manifest", manifest[0], "--mirror", f"{site.url}/mirror")[0] == 0


def test_pull_a_model_behind_share_links_is_two_lines(run, home):
    code, out, err = run("pull", "ln-resencl")
    first, second = err.splitlines()
    assert (code, out) == (2, "")
    assert "https://github.com/Zihaoluoh/LN-Seg-FM" in first
    assert "ResEnc-L" in first
    assert second == "lnsegfm: Then run: lnsegfm models import FILE --as ln-resencl"
    assert not home.exists()


def test_pull_a_name_that_is_none(run):
    code, _, err = run("pull", "ln-resencs")
    assert code == 2
    assert "ln-resencl" in err


def test_verify_all_or_some(run, store):
    assert run("verify")[:2] == (0, "phantom-neck: as it was stored\n")
    store("a")
    store("b")
    code, out, _ = run("verify")
    assert (code, out.splitlines()) == (
        0,
        ["a: as it was stored", "b: as it was stored", "phantom-neck: as it was stored"],
    )
    assert run("verify", "b")[1] == "b: as it was stored\n"


def test_verify_what_changed_is_listed_and_the_others_are_checked(run, store):
    (store("a") / "plans.json").write_text("changed")
    (store("b") / "card.json").write_text("{}")
    store("c")
    code, out, err = run("verify")
    assert (code, out) == (1, "c: as it was stored\nphantom-neck: as it was stored\n")
    told = [line for line in err.splitlines() if line.startswith("lnsegfm: ")]
    assert told[0] == "lnsegfm: Model a: plans.json: changed"
    assert told[1].startswith("lnsegfm: Model b: ")


def test_verify_json(run, store):
    (store("a") / "plans.json").unlink()
    code, out, _ = run("verify", "--json")
    assert (code, json.loads(out)) == (1, {"models": {"a": ["plans.json: missing"], "phantom-neck": []}})


@pytest.mark.parametrize("name", ["b", "../models/a"])
def test_verify_a_model_that_is_not_stored(run, store, name):
    store("a")
    code, out, err = run("verify", "a", name)
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_remove_with_yes(run, store, home):
    store("a")
    store("ab")
    code, out, _ = run("remove", "a", "--yes")
    assert (code, out) == (0, "a is removed.\n")
    assert [path.name for path in (home / "models").iterdir()] == ["ab"]


def test_remove_without_it_says_what_would_go(run, store):
    folder = store("a")
    code, out, err = run("remove", "a")
    assert (code, out) == (2, "")
    assert str(folder) in err
    assert "--yes" in err
    assert folder.is_dir()


def test_remove_a_damaged_one_too(run, store):
    folder = store("a")
    (folder / "card.json").unlink()
    assert run("remove", "a", "--yes")[0] == 0
    assert not folder.exists()


def test_remove_a_link_goes_and_not_what_it_points_to(run, store, tmp_path):
    folder = store("a")
    folder.rename(tmp_path / "big-disk")
    folder.symlink_to(tmp_path / "big-disk")
    assert run("remove", "a", "--yes")[0] == 0
    assert not folder.is_symlink()
    assert (tmp_path / "big-disk" / "plans.json").is_file()


def test_remove_the_download_is_kept_and_told(run, manifest, installed, home):
    run("pull", "base", "--manifest", manifest[0])
    (home / "downloads" / "base-2-0123456789ab").mkdir()
    out = run("remove", "base", "--yes")[1]
    assert out.count(str(home / "downloads")) == 1
    assert list((home / "downloads").rglob("base.zip"))


@pytest.mark.parametrize("name", ["b", "..", "../downloads", "/tmp", "."])
def test_remove_a_name_that_is_none(run, store, home, name):
    store("a")
    code, _, err = run("remove", name, "--yes")
    assert (code, len(err.splitlines())) == (2, 1)
    assert (home / "models" / "a" / "card.json").is_file()


def test_the_commands_load_nothing_until_they_run_and_the_registry_no_torch():
    """In a process of its own: what is loaded stays loaded."""
    script = """
import sys
from lnsegfm.cli import models_list_command, models_pull_command, models_remove_command, models_verify_command
print({"pydantic", "requests", "rich.table", "filelock", "torch"} & set(sys.modules))
from lnsegfm.registry import download, fetch, home, manifest, model_card, stored_model
manifest.cards()
print({"torch", "nnunetv2", "numpy"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\nset()\n"


def test_pull_tells_the_recorded_hash_and_show_knows_it(run, manifest, installed):
    path, write = manifest
    write(sha256=None, bytes=None)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert "none in its card; recorded at the first pull" in run("show", "base", "--manifest", path)[1]
    assert digest in run("pull", "base", "--manifest", path)[2]
    assert json.loads(run("show", "base", "--json")[1])["recorded"]["sha256"] == digest
    assert "recorded at the first pull on" in " ".join(run("show", "base")[1].replace("│", " ").split())


def test_verify_knows_the_recorded_hash(run, manifest, installed, home):
    path, write = manifest
    write(sha256=None, bytes=None)
    run("pull", "base", "--manifest", path)
    assert run("verify", "base")[0] == 0
    (download,) = (home / "downloads").rglob("*.zip")
    download.write_bytes(b"another")
    code, _, err = run("verify", "base")
    assert (code, f"lnsegfm: Model base: {download}: changed") == (1, err.splitlines()[-1])


def test_pull_a_changed_file_until_it_is_accepted(run, manifest, installed, home, site):
    path, write = manifest
    write(sha256=None, bytes=None)
    run("pull", "base", "--manifest", path)
    run("remove", "base", "--yes")
    record = next((home / "recorded").glob("*.json"))
    record.write_text(record.read_text().replace(hashlib.sha256(CONTENT).hexdigest(), "d" * 64))
    code, _, err = run("pull", "base", "--manifest", path)
    assert (code, len(installed)) == (2, 1)
    assert "d" * 64 in err
    assert hashlib.sha256(CONTENT).hexdigest() in err
    assert run("pull", "base", "--manifest", path, "--accept-change")[0] == 0
    code, _, err = run("pull", "base", "--manifest", path, "--accept-change")
    assert (code, "lnsegfm models remove base --yes" in err) == (2, True)


def test_the_built_in_base_is_shown_verified_and_kept(run, home):
    facts = json.loads(run("show", "phantom-neck", "--json")[1])
    assert facts["built_in"]
    assert facts["labels"] == {"lymph_node": 1}
    assert "not for clinical use" in facts["title"]
    assert [f["value"] > 0.9 for f in facts["figures"] if "domain base held out" in f["what"]] == [True]
    assert run("verify", "phantom-neck")[:2] == (0, "phantom-neck: as it was stored\n")
    assert run("pull", "phantom-neck")[1].startswith("phantom-neck is built in")
    code, _, err = run("remove", "phantom-neck", "--yes")
    assert (code, "part of the package" in err) == (2, True)
    assert not home.exists()
