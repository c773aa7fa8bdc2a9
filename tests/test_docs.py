"""What the documents say agrees with what the code does."""

import importlib
import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic_core import PydanticUndefined

from subclass_kd.config import Augment, Range, Study, Votes
from subclass_kd.models import check_model_name
from subclass_kd.networks import SmallConvNet, SmallResNet
from subclass_kd.study_file import make_study
from subclass_kd.work import network_cost

DOCS = Path(__file__).parent.parent / "docs"


def table_rows(page, first_column):
    """Give the cells of a Markdown page's table rows whose first cell matches."""
    lines = (DOCS / page).read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in rows if re.fullmatch(first_column, row[0])]


def keys_of(section, prefix=""):
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if hasattr(value, "model_fields_set") and not isinstance(value, Range):
            yield from keys_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def test_every_key_of_a_study_is_documented_with_its_default():
    documented = {row[0].strip("`"): row[1].strip("`") for row in table_rows("study-file.md", r"`[a-z0-9_.…]+`")}
    undocumented = []
    keys = [*keys_of(Study()), *keys_of(Votes(), "votes.")]  # none by default
    for key, field in keys:
        if key.startswith("student."):  # "the same keys" as the teacher's
            continue
        if key not in documented:
            undocumented.append(key)
        elif isinstance(field.default, Range):
            low, high = field.default.ends
            assert documented[key] == f"{{low: {low:g}, high: {high:g}}}", key
        elif field.default not in (None, PydanticUndefined):
            shown = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
            assert documented[key] == shown, key
    assert undocumented == []
    assert {key for key in documented if "…" not in key and "." in key} <= {key for key, _ in keys}


@pytest.mark.parametrize(("name", "network"), [("resnet", SmallResNet), ("convnet", SmallConvNet)])
def test_documented_sizes_of_the_small_networks_are_counted(name, network):
    [row] = table_rows("models.md", rf"`small:{name}`.*")[-1:]
    small, large = (network_cost(network(2), (1, size, size)) for size in (28, 64))
    counted = [small["parameters"], small["multiply_adds"], large["multiply_adds"]]
    assert [int(cell.replace(",", "")) for cell in row[2:]] == counted


def test_the_demos_recipe_is_tabled_as_it_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS.parent))
    recipe = importlib.import_module("benchmarks.demo_recipe")
    measured = json.loads((DOCS / "demo-recipe.json").read_text())
    page = (DOCS / "demo.md").read_text("utf-8").splitlines()
    assert measured["demo"] == recipe.DEMO
    assert list(measured["candidates"]) == list(recipe.CANDIDATES)
    for name, row in measured["candidates"].items():
        assert recipe.table_row(name, row) in page


def test_the_curriculums_effect_is_tabled_as_it_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS.parent))
    benchmark = importlib.import_module("benchmarks.curriculum")
    measured = json.loads((DOCS / "curriculum.json").read_text())
    page = (DOCS / "data.md").read_text("utf-8").splitlines()
    assert len(measured["comparisons"]) == 8
    for row in measured["comparisons"]:
        assert benchmark.table_row(row, measured["f1"]) in page


def test_what_views_cost_and_buy_is_tabled_as_it_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS.parent))
    views, operations = (importlib.import_module(f"benchmarks.{name}") for name in ("views", "view_operations"))
    page = (DOCS / "views.md").read_text("utf-8").splitlines()
    measured = json.loads((DOCS / "views.json").read_text())
    assert measured["recipe"] == views.RECIPE
    assert [(row["arm"], row["views"]) for row in measured["rows"]] == [
        (arm, count) for arm in views.ARMS for count in views.VIEWS
    ]
    assert all(views.table_row(row, measured["comparisons"]) in page for row in measured["rows"])
    milliseconds = json.loads((DOCS / "view-operations.json").read_text())["milliseconds"]
    assert all(operations.table_row(operation, milliseconds) in page for operation in operations.CHANGES)


def test_every_key_of_augment_is_explained():
    explained = [row[0].strip("`").removeprefix("augment.") for row in table_rows("views.md", r"`augment\..+`")]
    assert sorted(explained) == sorted(Augment.model_fields)


def test_a_new_users_first_commands_are_found():
    """The set-up installs into .venv, and calls Python by one name of several."""
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    setup, rest = readme.split(". .venv/bin/activate", 1)
    assert re.findall("^(?:skd|pip) ", setup, re.MULTILINE) == []
    assert len(re.findall("^skd ", rest, re.MULTILINE)) >= 5
    assert "Python 3.11 or later" in setup
    assert "python3.12" in setup
    [[make, argument]] = re.findall(r"`make (\w+) (\w+)=\S+`", (DOCS.parent / "CONTRIBUTING.md").read_text("utf-8"))
    makefile = (DOCS.parent / "Makefile").read_text("utf-8")
    assert f"\n{make}:\n\t$({argument}) -m venv" in makefile


def test_every_study_that_is_shown_is_a_study():
    root = DOCS.parent
    pages = [root / "README.md", *DOCS.glob("*.md")]
    shown = [block for page in pages for block in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    shown += [path.read_text("utf-8") for path in (root / "examples").glob("*.yaml")]
    assert len(shown) >= 3
    for text in shown:
        study = make_study(yaml.safe_load(text))
        check_model_name(study.teacher, "teacher")
        check_model_name(study.student, "student")
