"""The evidence: its tables are re-made from a run, its correlations and intervals agree with independent ones."""

import importlib
import json
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from subclass_kd.jackknife import auroc_left_out
from subclass_kd.study_file import load_study

ROOT = Path(__file__).parent.parent
JSON = ROOT / "docs/evidence"


@pytest.fixture
def benchmark(monkeypatch):
    """Give the function that imports one of the benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


TINY = ["teacher.options={width: 4}", "teacher.epochs=1", "student.options={width: 4}", "student.epochs=2"]
TINY += ["distillation.views=1", "data.train_images=200"]
VARIANT = ["data.train_images=2000", "teacher.epochs=30", "student.epochs=60", *TINY]


@pytest.fixture(scope="module")
def made(tmp_path_factory, small_idx_folder):
    """Give the folder and the report of a tiny table: two seeds, then a third beside them."""
    evidence = importlib.import_module("benchmarks.evidence")
    folder = tmp_path_factory.mktemp("evidence")
    options = Namespace(runs=folder / "runs", seeds=3, variant="2,000 images", set=TINY, workers=1)
    options = Namespace(**vars(options), json=folder / "json", chest=Path("none"), fashion=small_idx_folder)
    return folder, evidence.make("fashion-2x5", options, float("inf"))


def test_a_small_table_is_remade_from_its_run(made, benchmark):
    folder, report = made
    row = report["variants"]["2,000 images"]
    results = json.loads((folder / "runs/fashion-2x5/2000-images/results.json").read_text())
    [kept] = row["runs"].values()
    assert kept["arms"] == results["arms"]  # whole, and nothing dropped
    assert {**kept["study"], "data": 0} == {**results["study"], "data": 0}
    assert kept["study"]["data"]["root"] == Path(results["study"]["data"]["root"]).name
    lines = benchmark("evidence_markdown").variant_markdown(
        benchmark("evidence_tables").TABLES["fashion-2x5"], "2,000 images", row
    )
    f1 = results["arms"]["skd"]["f1"]
    half = stats.t.ppf(0.975, 2) * np.std(f1["per_seed"], ddof=1) / 3**0.5
    assert f"| `skd` | {100 * np.mean(f1['per_seed']):.1f}±{100 * half:.1f} |" in lines
    assert "3 of 5 planned seeds" in lines
    assert "200 test images; 160 images to train, 40 to validate" in lines
    pairs = [(each["arm"], each["reference"]) for each in row["differences"]["f1"]]
    assert pairs == [
        ("skd", "scratch"), ("skd", "kd"), ("skd", "subclass-labels"), ("skd", "skd-shuffled"), ("kd", "scratch"),
        ("subclass-labels", "scratch"),
    ]  # fmt: skip
    for each in row["differences"]["f1"]:  # the same as the tool's own where it tests the pair, but for Holm's count
        own = [c for c in results["comparisons"] if (c["arm"], c["reference"]) == (each["arm"], each["reference"])]
        assert all(c["difference"] == each["difference"] and c["p_value"] == each["p_value"] for c in own)
    errors = {(each["arm"], each["reference"]): each["difference"] for each in row["differences"]["error"]}
    aurocs = {arm: network["auroc"]["mean"] for arm, network in results["arms"].items()}
    for each in row["differences"]["auroc"]:  # of scores that are kept with three digits
        assert each["difference"] == pytest.approx(aurocs[each["arm"]] - aurocs[each["reference"]], abs=2e-3)
    accuracy = {arm: network["accuracy"]["mean"] for arm, network in results["arms"].items()}
    assert errors["skd", "kd"] == pytest.approx(accuracy["kd"] - accuracy["skd"], abs=1e-12)


def test_more_seeds_leave_those_that_are_there(made, benchmark):
    folder, _ = made
    out = folder / "runs/fashion-2x5/2000-images"
    before = {path.name: path.stat().st_mtime_ns for path in (out / "students").iterdir()}
    runs = benchmark("evidence_runs")
    study = load_study(ROOT / "benchmarks/studies/fashion_2x5.yaml", [*TINY, "seeds=1", "workers=1"])
    stored = json.loads((out / "study.json").read_text())
    study = study.model_copy(update={"data": study.data.model_copy(update={"root": Path(stored["data"]["root"])})})
    again = runs.run(study, out)  # one seed is asked for, three are there
    assert again.study.seeds == [0, 1, 2]
    assert {path.name: path.stat().st_mtime_ns for path in (out / "students").iterdir()} == before


def leaves(content, path=""):
    """List (path, value) of all numbers and texts but those that clocks say."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else None
    if items is None:
        return [] if path.endswith("seconds") else [(path, content)]
    return [leaf for key, value in items for leaf in leaves(value, f"{path}/{key}")]


def test_seeds_of_two_folders_are_judged_as_those_of_one(made, tmp_path, small_idx_folder):
    _, whole = made
    evidence = importlib.import_module("benchmarks.evidence")
    given = {"variant": "2,000 images", "set": TINY, "workers": 1, "chest": Path("none"), "fashion": small_idx_folder}
    first = Namespace(**given, json=tmp_path / "json", runs=tmp_path / "first", seeds=2)
    evidence.make("fashion-2x5", first, float("inf"))
    second = Namespace(**given, json=tmp_path / "json", runs=tmp_path / "second", seeds=3)
    report = evidence.make("fashion-2x5", second, float("inf"))
    trained = tmp_path / "second/fashion-2x5/2000-images/students"
    assert {path.stem.rpartition("-")[2] for path in trained.iterdir()} == {"seed2"}
    row, expected = report["variants"]["2,000 images"], whole["variants"]["2,000 images"]
    found, known = dict(leaves(row["runs"])), dict(leaves(expected["runs"]))
    numbers = {path for path, value in known.items() if isinstance(value, float)}
    assert found == {path: pytest.approx(v, abs=1e-12) if path in numbers else v for path, v in known.items()}
    assert row["differences"] == expected["differences"]


def test_seeds_that_do_not_belong_together_are_refused(made, benchmark, tmp_path, small_idx_folder, write_idx_folder):
    folder, _ = made
    kept = folder / "json/seeds/fashion-2x5-2000-images.json"
    run, before = benchmark("evidence_runs").run, kept.read_text()
    labels = np.arange(400) % 10
    images = np.random.default_rng(0).integers(0, 256, (400, 28, 28), np.uint8)
    others = write_idx_folder(tmp_path / "others", images, labels, images[:200], labels[:200])

    def study(*settings, root=small_idx_folder):
        file = ROOT / "benchmarks/studies/fashion_2x5.yaml"
        return load_study(file, [f"data.root={root}", *VARIANT, "seeds=3", "workers=1", *settings])

    with pytest.raises(ValueError, match=r"seeds \[0, 1, 2\] were made with other settings of student"):
        run(study("student.learning_rate=0.02"), tmp_path / "first", kept=kept)
    with pytest.raises(ValueError, match=r"seeds \[\[0, 1, 2\]\] are of other images"):
        run(study(root=others), tmp_path / "second", kept=kept)
    assert kept.read_text() == before


def test_seeds_that_a_killed_run_only_planned_are_not_taken_for_made(made, benchmark, tmp_path, small_idx_folder):
    folder, _ = made
    kept = tmp_path / "kept.json"
    shutil.copy(folder / "json/seeds/fashion-2x5-2000-images.json", kept)
    settings = [f"data.root={small_idx_folder}", *VARIANT, "seeds=3", "workers=1"]
    study = load_study(ROOT / "benchmarks/studies/fashion_2x5.yaml", settings)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/study.json").write_text('{"seeds": [0, 1, 2, 3]}')
    done = benchmark("evidence_runs").run(study, tmp_path / "out", kept=kept)
    assert done.study.seeds == [0, 1, 2]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["study.json"]  # nothing was trained
    content = json.loads(kept.read_text())
    kept.write_text(json.dumps({"blocks": content["blocks"] * 2}))
    with pytest.raises(ValueError, match="are there twice"):
        benchmark("evidence_runs").run(study, tmp_path / "out", kept=kept)


def test_arms_with_recipes_of_their_own_get_the_same_seeds(benchmark, tmp_path, small_idx_folder):
    evidence, tables = benchmark("evidence"), benchmark("evidence_tables")
    arms = ("scratch", "subclass-labels")
    variants = {"some": (*VARIANT, "student.epochs=1", f"arms=[{', '.join(arms)}]")}
    table = tables.Table("", "fashion_2x5.yaml", 5, variants, root="fashion", tuned="recipe-search")
    best = {arm: {"settings": [f"student.learning_rate=0.0{1 + k}"]} for k, arm in enumerate(arms)}
    (tmp_path / "json").mkdir()
    (tmp_path / "json/recipe-search.json").write_text(json.dumps({"best": best}))
    options = Namespace(set=[], workers=1, json=tmp_path / "json", chest=Path("none"), fashion=small_idx_folder)
    evidence.measure(table, "some", tmp_path / "runs", 1, options)
    settings = [*variants["some"], *best["scratch"]["settings"], "arms=[scratch]", "seeds=2", "workers=1"]
    study = load_study(ROOT / "benchmarks/studies/fashion_2x5.yaml", [f"data.root={small_idx_folder}", *settings])
    benchmark("evidence_runs").run(study, tmp_path / "runs/some-scratch")  # one more, and then it was killed
    row = evidence.measure(table, "some", tmp_path / "runs", 1, options)
    assert [run["study"]["seeds"] for run in row["runs"].values()] == [[0, 1], [0, 1]]
    assert row["differences"]["f1"][0]["seeds"] == 2


def test_teachers_are_lent_and_not_trained_again(made, benchmark, tmp_path):
    folder, _ = made
    lender = folder / "runs/fashion-2x5/2000-images"
    stored = json.loads((lender / "study.json").read_text())
    settings = [*TINY, f"data.root={stored['data']['root']}", "seeds=1", "workers=1", "student.learning_rate=0.02"]
    study = load_study(ROOT / "benchmarks/studies/fashion_2x5.yaml", [*settings, "teacher.epochs=1", "arms=[skd]"])
    done = benchmark("evidence_runs").run(study, tmp_path / "other", [lender])
    name = "teachers/subclass-seed0.safetensors"
    assert (done.out / name).samefile(lender / name)
    student = "students/skd-seed0.safetensors"  # another rate: another recipe
    assert (done.out / student).read_bytes() != (lender / student).read_bytes()


def test_errors_are_compared_as_by_hand(benchmark):
    random = np.random.default_rng(0)
    wrong, units = random.random((3, 40)) < 0.3, np.repeat(np.arange(8), 5)
    found = benchmark("evidence_runs").errors_left_out(wrong, units)
    assert found.shape == (3, 9)
    assert found[:, 0] == pytest.approx(wrong.mean(1))
    assert found[:, 4] == pytest.approx(wrong[:, units != 3].mean(1))


def test_each_metric_has_a_variance_of_its_own(benchmark):
    """The seeds' part is the variance of differences over seeds by their number: of errors and of areas, not of F1."""
    runs, random = benchmark("evidence_runs"), np.random.default_rng(0)
    labels = np.arange(200) % 2
    scores = {arm: random.normal(size=(3, 200)) + 2 * labels - 0.5 for arm in ("skd", "kd")}
    decided = {arm: (each > 0).astype(np.int64) for arm, each in scores.items()}
    found = runs.compare_arms(decided, labels, 1, [("skd", "kd")], None)
    of = Namespace(positive=1, labels=labels, groups=None, folds=np.zeros(200, np.int64))
    found["auroc"] = runs.compare_auroc(scores, found["f1"], of)
    errors = [(each != labels).mean(1) for each in decided.values()]
    areas = [np.array([roc_auc_score(labels, row) for row in each]) for each in scores.values()]
    for metric, (first, other) in (("error", errors), ("auroc", areas)):
        [row] = found[metric]
        assert row["variance"]["seeds"] == pytest.approx((first - other).var(ddof=1) / 3)
        assert row["variance"] != found["f1"][0]["variance"]
        half = (row["ci95"][1] - row["ci95"][0]) / 2  # which the parts give
        t, z = stats.t.isf(0.025, 2), stats.norm.isf(0.025)
        assert half**2 == pytest.approx(t**2 * row["variance"]["seeds"] + z**2 * row["variance"]["images"])


def test_areas_without_a_patient_are_those_of_the_other_images(benchmark):
    random = np.random.default_rng(3)
    scores, positive = random.normal(size=(2, 60)).round(1), random.random(60) < 0.4  # with ties
    units, folds = random.integers(0, 12, 60), np.arange(60) % 2
    found = auroc_left_out(scores, positive, units, folds)
    assert found.shape == (2, 1 + len(np.unique(units)))
    for column, unit in enumerate([None, *np.unique(units)]):
        for row in range(2):
            kept = [(folds == fold) & (units != unit) for fold in (0, 1)]
            areas = [roc_auc_score(positive[each], scores[row, each]) for each in kept]
            assert found[row, column] == pytest.approx(np.mean(areas), abs=1e-12)


def test_rank_correlations_are_scipys(benchmark):
    dose = benchmark("dose_response")
    random = np.random.default_rng(1)
    first, other = random.integers(0, 6, (4, 14)).astype(float), random.random((4, 14))
    for row in range(4):
        assert dose.spearman(first, other)[row] == pytest.approx(stats.spearmanr(first[row], other[row]).statistic)
        assert dose.kendall(first, other)[row] == pytest.approx(stats.kendalltau(first[row], other[row]).statistic)


def test_doses_have_the_subclasses_that_they_say(benchmark):
    dose = benchmark("dose_response")
    for point in dose.points():
        by_class = [{dose.subclass_of(point, label, row) for label in labels for row in range(10)}
                    for labels in (range(5), range(5, 10))]  # fmt: skip
        assert not by_class[0] & by_class[1]
        assert {len(each) for each in by_class} == {int(point.name[0])}


@pytest.mark.parametrize("name", ["SPACE", "FASHION_SPACE"])
def test_a_search_gives_every_arm_as_many_trials(benchmark, name):
    search = benchmark("recipe_search")
    space = getattr(search, name)
    drawn = search.draw(24, space)
    for name, (_, levels) in space.items():
        for dozen in (drawn[:12], drawn[12:]):
            counts = np.bincount([each[name] for each in dozen], minlength=len(levels))
            assert counts.tolist() == [12 // len(levels)] * len(levels)
    for arm in search.ARMS:  # distinct ones, or an arm would have fewer than it seems
        assert len({tuple(search.settings(each, space, arm)) for each in drawn[:12]}) >= 8
    trials = [{"levels": drawn[k], "f1": {arm: [0.5 + 0.01 * k] for arm in search.ARMS}} for k in range(12)]
    trials[3]["f1"]["skd"] = [0.6, 0.58]  # more seeds count more than a lucky one
    best = search.best_of(trials, space)
    assert (best["kd"]["trial"], best["skd"]["trial"]) == (11, 3)
    assert best["scratch"]["settings"] == search.settings(drawn[11], space, "scratch")


def test_every_study_can_be_read(benchmark):
    tables = benchmark("evidence_tables")
    for table in tables.TABLES.values():
        for settings in table.variants.values():
            study = load_study(tables.STUDIES / table.study, [*settings, f"seeds={table.seeds}"])
            assert {"scratch", "subclass-labels", "kd", "skd"} <= set(study.arms)
        assert set(table.lenders) <= set(table.variants)
        assert all(variant in tables.TABLES[name].variants for name, variant in table.lenders.values())
    for name, variant, metric, *pair, _ in tables.CLAIMS:
        assert variant in tables.TABLES[name].variants
        assert tuple(pair) in tables.PAIRS
        assert metric in ("f1", "error")


def test_the_page_is_what_the_files_give(benchmark):
    assert (ROOT / "docs/evidence.md").read_text("utf-8") == benchmark("evidence_page").page(JSON)


def test_a_page_of_a_tiny_table_says_that_it_is_an_interim_one(made, benchmark, tmp_path):
    folder, _ = made
    page = benchmark("evidence_page")
    text = page.page(folder / "json")
    assert "### Fashion-MNIST as 2x5" in text
    assert "- `chest-xray`: 2,000 images\n" in text.partition("Planned and not yet run:")[2]
    assert "- `fashion-2x5`: 60,000 images; 10,000 images\n" in text
    [names] = [
        line for line in text.partition("## When it does not help")[2].splitlines() if "fashion-2x5: 2,000" in line
    ]
    [run] = json.loads((folder / "json/fashion-2x5.json").read_text())["variants"]["2,000 images"]["runs"].values()
    kinds = [finding["kind"] for finding in run["diagnosis"]["findings"]]
    assert names.endswith(f"| {', '.join(kinds)} |")
    page.main(["--json", str(folder / "json"), "--page", str(tmp_path / "evidence.md")])
    assert (tmp_path / "evidence.md").read_text() == text
    assert (folder / "json/differences.svg").read_text().startswith("<?xml")


def test_a_claim_that_its_interval_excludes_is_told_apart(benchmark):
    status = benchmark("evidence_claims").status
    row = {"difference": 0.001, "ci95": [-0.002, 0.004], "verdict": "inconclusive"}
    assert status(row, "f1", 0.004) == "not shown"
    assert status(row, "f1", 0.005) == "not shown; the interval excludes it"
    assert status(row, "error", 0.0) == "not shown"  # a gain of 0.2 points is in it
    assert status({**row, "ci95": [0.0005, 0.0015]}, "error", 0.0) == "not shown; the interval excludes it"
    assert status({**row, "verdict": "better"}, "f1", 0.0) == "shown"
    worse = {"difference": 0.01, "ci95": [0.005, 0.015], "verdict": "worse"}
    assert status(worse, "error", 0.0) == "the opposite; the interval excludes it"


def test_what_a_claim_would_take_is_told(benchmark):
    arms = {"scratch": {"f1": {"mean": 0.9, "per_seed": [0.89, 0.91]}}, "kd": {"f1": {"mean": 0.92}}}
    teachers = {"subclass": {"f1": {"mean": 0.925, "per_seed": [0.91, 0.94]}}}  # leads by 2 and 3 points
    tables = {"chest-xray": {"variants": {"2,000 images": {"runs": {"all": {"arms": arms, "teachers": teachers}}}}}}
    [said] = benchmark("evidence_claims").ceilings(tables)
    half = stats.t.ppf(0.975, 1) * 0.5
    assert "teacher is 92.5 %" in said
    assert f"+2.50 points (95 % interval over 2 seeds {2.5 - half:+.2f} to {2.5 + half:+.2f})" in said
    assert "+2.14 over `scratch` takes 92.1 %; +1.49 over `kd` takes 93.5 %" in said


def test_differences_on_some_images_are_those_of_these_images(benchmark):
    random = np.random.default_rng(7)
    labels, folds, mask = random.integers(0, 2, 80), np.repeat([0, 1], 40), random.random(80) < 0.6
    scores = {arm: random.normal(size=(3, 80)) + shift * labels for arm, shift in (("skd", 2), ("kd", 1))}

    def finished(arm):
        answers = {"decided": lambda _: (scores[arm] > 0.5).astype(int), "log_odds": lambda _: scores[arm]}
        return Namespace(labels=labels, folds=folds, positive=1, groups=None, **answers)

    arms = {arm: finished(arm) for arm in scores}
    found = benchmark("evidence").compare_unseen(mask, arms, [("skd", "kd")])
    parts = [mask & (folds == fold) for fold in (0, 1)]
    area = {
        arm: np.mean([roc_auc_score(labels[part], row[part]) for row in each for part in parts])
        for arm, each in scores.items()
    }
    assert found["auroc"][0]["difference"] == pytest.approx(area["skd"] - area["kd"], abs=1e-12)
    wrong = {arm: ((each > 0.5) != labels)[:, mask].mean() for arm, each in scores.items()}
    assert found["error"][0]["difference"] == pytest.approx(wrong["skd"] - wrong["kd"], abs=1e-12)
    assert {row["test_images"] for rows in found.values() for row in rows} == {mask.sum()}


def test_images_that_the_search_saw_are_counted(benchmark):
    row = json.loads((JSON / "chest-xray-official.json").read_text())["variants"]["official split"]
    table = benchmark("evidence_tables").TABLES["chest-xray-official"]
    intro, lines = benchmark("evidence_page").unseen(table, row)
    assert "383 of these 624 test images" in intro  # in folds 2 to 4, counted by names outside this code
    assert "AUROC (exploratory): `skd` - `scratch` +1.36 (" in lines
    assert "`skd` - `kd` +1.05 (" in lines
    [told] = benchmark("evidence_page").other_images(row)
    skd = next(iter(row["runs"].values()))["arms"]["skd"]
    assert f"`skd` {100 * (np.mean(skd['validation_f1']) - skd['f1']['mean']):.1f}" in told


def test_a_table_in_which_nothing_was_found_is_kept(benchmark):
    gain = {"arm": "skd", "reference": "kd", "difference": 0.0, "ci95": None, "verdict": "inconclusive"}
    row = {"differences": {"f1": [gain]}, "runs": {"all": {"diagnosis": {"findings": []}}}}
    *_, lines = benchmark("evidence_page").when_not({"chest-xray": {"variants": {"2,000 images": row}}})
    assert lines.splitlines()[2:] == ["| chest-xray: 2,000 images | +0.00 (none), inconclusive | nothing found |"]


def test_tables_whose_recipe_was_not_searched_for_say_so(benchmark):
    tables = benchmark("evidence_tables")
    for table in tables.TABLES.values():
        unsearched = table.study != "chest_xray.yaml" and not table.tuned
        assert (tables.NOT_SEARCHED in table.note) == unsearched
        temperature = load_study(tables.STUDIES / table.study, ["seeds=1"]).distillation.temperature
        assert table.tuned or unsearched == (temperature == 1)
    measured = json.loads((ROOT / "docs/demo-recipe.json").read_text())["candidates"]
    kd = {name: measured[name]["f1"]["kd"]["mean"] for name in ("lower", "lower temperature 2", "lower temperature 4")}
    assert max(kd, key=kd.get) != "lower"  # which is temperature 1
    assert min(kd, key=kd.get) == "lower"


def test_a_student_that_points_share_counts_once(benchmark):
    dose = benchmark("dose_response")
    report = json.loads((JSON / "dose-response.json").read_text())
    for gain in dose.GAINS:
        own = dose.counted(report["points"], gain)
        arm = gain.split(" - ")[0]
        students = {(row["images"], tuple(row["f1"][arm]["per_seed"])) for row in report["points"].values()}
        assert len(own) == len(students)
    for key, early in (("correlations", 17), ("correlations_without_early_stopped", 15)):
        rows = [report["points"][name] for name in dose.counted(report["points"], "skd - kd", early == 17)]
        assert len(rows) == early
        for name in dose.PREDICTORS:
            pairs = [(row["predictors"][name], row["gains"]["skd - kd"]["difference"]) for row in rows]
            rho = stats.spearmanr(*zip(*pairs, strict=True)).statistic
            assert report[key]["skd - kd"][name]["spearman"]["value"] == pytest.approx(rho, abs=1e-6)


def test_a_search_counts_settings_once_and_says_what_is_planned(benchmark):
    search, page = benchmark("recipe_search"), benchmark("evidence_page")
    report = json.loads((JSON / "recipe-search.json").read_text())
    assert len(report["trials"]) == 12
    for arm in ("scratch", "subclass-labels"):  # the same settings gave the same student, bit by bit
        assert (
            search.distinct(report["trials"], search.SPACE, arm)
            == len({trial["f1"][arm][0] for trial in report["trials"]})
            == 9
        )
    text = page.page(JSON)
    assert "| `scratch` | 12 | 9 |" in text
    for name, module in (("recipe-search", search), ("patience", benchmark("patience"))):
        report = json.loads((JSON / f"{name}.json").read_text())
        rows = report.get("best") or report["rows"]
        seeds = min(row.get("seeds") or len(row["f1"]) for row in rows.values())
        assert page.seeds_of(seeds, module.SEEDS) in text


def test_what_a_whole_table_could_have_seen_is_told(benchmark):
    page, tables = benchmark("evidence_page"), benchmark("evidence_tables").TABLES
    row = json.loads((JSON / "fashion-2x5.json").read_text())["variants"]["60,000 images"]
    [result] = row["runs"].values()
    [said] = page.power(tables["fashion-2x5"], row)
    [kd] = [each for each in result["power"] if each["reference"] == "kd"]
    assert f"to find skd better than kd, if it truly is by {100 * kd['detectable']:.1f} points or more" in said
    interim = {**row, "runs": {"all": {"power": [{**each, "seeds": 4} for each in result["power"]]}}}
    assert page.power(tables["fashion-2x5"], interim) == []
