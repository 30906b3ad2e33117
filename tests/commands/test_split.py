import csv
import io
import os
from collections import Counter
from dataclasses import replace

import pytest

from cxrtool.commands.split import SplitOptions, split
from cxrtool.data.splitting.made_by import parse
from cxrtool.data.splitting.splits import COLUMNS, read_splits
from cxrtool.data.tables.manifest import write_manifest, write_table
from cxrtool.errors import InputError, LeakageError, UsageError
from cxrtool.options import declared


@pytest.fixture
def options(tiny):
    return SplitOptions(tiny.origin)


@pytest.fixture
def rewrite(tiny):
    """Change the manifest's rows."""

    def change(edit):
        for index, row in enumerate(tiny.rows):
            edit(index, row)
        columns = list(dict.fromkeys(name for row in tiny.rows for name in row))
        write_manifest(tiny.origin, columns, tiny.rows)

    return change


def shares(result, run=("0", "0")):
    return Counter(row["subset"] for row in result.rows if (row["repeat"], row["fold"]) == run)


def test_one_division(options, settings):
    result = split(replace(options, holdout="50/25/25"), settings)
    assert shares(result) == {"train": 12, "validation": 6, "test": 6}
    assert result.columns == ["fold", "subset", "images", "patients", "covid", "normal"]
    assert result.table[0] == ["r0f0", "train", "12", "6", "6", "6"]
    assert result.warnings == []


def test_folds_keep_a_tenth_for_validation_unless_told(options, settings):
    result = split(replace(options, folds=3), settings)
    # A tenth of sixteen is less than one patient of each class, and one of each is the least.
    assert shares(result) == {"train": 12, "validation": 4, "test": 8}
    assert sum(row["subset"] == "test" for row in result.rows) == 24
    assert shares(split(replace(options, folds=3, validation=0), settings)) == {"train": 16, "test": 8}
    assert shares(split(replace(options, folds=3, validation=0.5), settings))["validation"] == 8


def test_validation_can_be_cut_from_a_two_part_division(options, settings):
    result = split(replace(options, holdout="75/25", validation=1 / 3), settings)
    assert shares(result) == {"train": 12, "validation": 6, "test": 6}
    with pytest.raises(UsageError, match="has a validation share already"):
        split(replace(options, holdout="60/20/20", validation=0.1), settings)


def test_repeats_draw_again(options, settings):
    for way in ({"folds": 3}, {"holdout": "75/25"}):
        result = split(replace(options, repeats=4, **way), settings)
        drawn = {}
        for row in result.rows:
            drawn.setdefault(row["repeat"], set()).add((row["image_id"], row["fold"], row["subset"]))
        assert sorted(drawn) == ["0", "1", "2", "3"]
        assert len({frozenset(part) for part in drawn.values()}) == 4


def test_the_file_is_what_is_printed_and_the_same_bytes_for_the_same_seed(options, settings, tmp_path):
    out = tmp_path / "deep" / "splits.csv"
    wish = replace(options, folds=3, repeats=2)
    result = split(wish, replace(settings, out=out))
    assert out.read_text() == result.text()
    assert len(read_splits(out).runs) == 6
    assert split(wish, settings).text() == result.text()
    assert split(wish, replace(settings, seed=1)).text() != result.text()


def test_a_file_that_says_the_same_is_left_alone_and_make_converges(options, settings, tiny, tmp_path):
    out = tmp_path / "splits.csv"
    there = replace(settings, out=out)
    split(replace(options, folds=3), there)
    os.utime(out, ns=(out.stat().st_atime_ns, out.stat().st_mtime_ns + 10**9))
    before = out.stat().st_mtime_ns
    split(replace(options, folds=3), there)
    assert out.stat().st_mtime_ns == before
    later = before / 1e9 + 100
    os.utime(tiny.origin, (later, later))
    os.utime(out, (1, 1))
    split(replace(options, folds=3), there)
    assert out.stat().st_mtime > 1
    text = out.read_text()
    split(replace(options, folds=2), there)
    assert out.read_text() != text


DRAWN = "--group patient_id --stratify label,severity --seed 0"


@pytest.mark.parametrize(
    ("wish", "line"),
    [
        ({"holdout": "75/25"}, f"--holdout 75/25 --repeats 1 {DRAWN}"),
        ({"holdout": "75/25", "validation": 0.2}, f"--holdout 75/25 --repeats 1 --validation 0.2 {DRAWN}"),
        ({"folds": 3, "repeats": 2}, f"--folds 3 --repeats 2 --validation 0.1 {DRAWN}"),
        (
            {"folds": 2, "validation": 0, "stratify": " label ", "group": "source"},
            "--folds 2 --repeats 1 --validation 0 --group source --stratify label --seed 0",
        ),
        ({"leave_out": "source"}, f"--leave-out source --validation 0.1 {DRAWN}"),
        ({"from_column": "part"}, "--from-column part"),
    ],
)
def test_the_first_row_has_the_command_line_with_its_defaults(options, settings, rewrite, wish, line):
    rewrite(lambda index, row: row.update(part="train" if index < 12 else "test"))
    result = split(replace(options, **wish), settings)
    assert result.made_by == [f"split {line}"]
    (first, *rest) = csv.DictReader(io.StringIO(result.text()))
    assert first["made_by"] == f"split {line}"
    assert not any(row["made_by"] for row in rest)


def test_every_option_and_no_path_is_in_a_command_line(options, settings, rewrite, whole):
    rewrite(lambda index, row: row.update(part="train" if index < 12 else "test"))
    wishes = [{"holdout": "75/25"}, {"folds": 2}, {"leave_out": "source"}, {"from_column": "part"}]
    wishes.append({"within": whole, "equal": "label", "exclude": ("severity=mild",), "keep": "test"})
    lines = [line for wish in wishes for line in split(replace(options, **wish), settings).made_by]
    named = {name for line in lines for made in parse(line) for name in made}
    assert named == {name for name, (_, told) in declared(SplitOptions).items() if not told.argument} | {"seed"}
    assert not any(str(path.parent) in line for line in lines for path in (options.manifest, whole))


def test_a_division_inside_a_division_has_both_command_lines(options, settings, whole, tmp_path):
    wish = replace(options, within=whole, equal="label", keep="validation, testing")
    base = f"split --folds 2 --repeats 2 --validation 0.1 {DRAWN}"
    own = "split --within - --equal label --keep validation,test --seed 0"
    assert split(wish, settings).made_by == [f"{base} | {own}"]
    rows = split_of(whole)
    write_table(tmp_path / "hand.csv", COLUMNS, rows)
    assert split(replace(wish, within=tmp_path / "hand.csv"), settings).made_by == [own]


def test_a_file_of_an_earlier_version_is_replaced_and_its_run_stays(study, settings, tmp_path, listener, no_pictures):
    from cxrtool.commands.train import train
    from cxrtool.commands.train.options import TrainOptions

    out = replace(settings, out=tmp_path / "s.csv")
    wish = SplitOptions(study.folder, holdout="50/25/25")
    write_table(tmp_path / "s.csv", COLUMNS, split(wish, settings).rows)
    training = TrainOptions(study.folder, out.out, model="thumbnail", size=16, epochs=1, augment="none")
    there = replace(settings, out=tmp_path / "run", cache=tmp_path / "cache")
    train(training, there)
    before = out.out.read_bytes()
    split(wish, out)
    assert out.out.read_bytes() != before
    assert read_splits(out.out).made_by
    train(training, there)
    assert "up to date, nothing to do" in listener.said[-1]


def test_leaving_out_names_the_value_of_each_fold(options, settings):
    result = split(replace(options, leave_out="source"), settings)
    assert {row[0] for row in result.table} == {"r0f0 a", "r0f1 b"}


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({}, "expected exactly one of --holdout, --folds, --leave-out, --from-column and --within, found none"),
        ({"folds": 3, "holdout": "80/20"}, "found --holdout and --folds"),
        ({"leave_out": "source", "repeats": 2}, "found --leave-out, which does not draw"),
        ({"folds": 3, "validation": 1.0}, "--validation: expected a share from 0 to below 1, found 1"),
        ({"from_column": "view", "validation": 0.1}, "the subsets are given by the column"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, settings, wish, told):
    with pytest.raises(UsageError, match=told):
        split(replace(options, **wish), settings)


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"folds": 3, "stratify": "label,grade"}, "expected a column 'grade'"),
        ({"folds": 3, "group": "study"}, "expected a column 'study'"),
        ({"leave_out": "hospital"}, "expected a column 'hospital'"),
        ({"from_column": "part"}, "expected a column 'part'"),
        ({"from_column": "view"}, "line 2: expected a subset in 'view', found 'PA'"),
        ({"folds": 7}, "expected a patient of the class 'covid' for each of 7 folds, found 6"),
    ],
)
def test_what_the_manifest_cannot_give_is_said(options, settings, wish, told):
    with pytest.raises(InputError, match=told):
        split(replace(options, **wish), settings)


def test_an_empty_manifest_is_said(options, settings, tiny):
    tiny.origin.write_text("image_id,path,label\n")
    with pytest.raises(InputError, match="expected images to divide, found none"):
        split(replace(options, folds=3), settings)


def test_missing_patients_are_warned_of(options, settings, rewrite):
    rewrite(lambda index, row: row.update(patient_id="" if index < 3 else row["patient_id"]))
    warnings = split(replace(options, folds=3), settings).warnings
    assert warnings == ["3 of 24 images have no patient_id; each counts as a separate patient"]
    rewrite(lambda index, row: row.pop("patient_id"))
    (warning,) = split(replace(options, folds=3), settings).warnings
    assert warning.startswith("no patient_id in ")
    assert warning.endswith("every image counts as a separate patient")


def test_images_without_a_label_are_left_out_unless_none_has_one(options, settings, rewrite):
    rewrite(lambda index, row: row.update(label="" if index < 4 else row["label"]))
    result = split(replace(options, folds=2), settings)
    assert len({row["image_id"] for row in result.rows}) == 20
    assert "4 images without a label are excluded" in result.warnings
    rewrite(lambda index, row: row.update(label=""))
    result = split(replace(options, folds=2), settings)
    assert len({row["image_id"] for row in result.rows}) == 24
    assert any("no image has a label" in warning for warning in result.warnings)


def test_a_class_that_a_subset_lacks_is_warned_of(options, settings, rewrite):
    rewrite(lambda index, row: row.update(source="a" if row["label"] == "covid" else "b"))
    warnings = split(replace(options, leave_out="source", validation=0), settings).warnings
    assert warnings == [
        "train of r0f0 has no image of covid",
        "test of r0f0 has no image of normal",
        "train of r0f1 has no image of normal",
        "test of r0f1 has no image of covid",
    ]


def test_a_column_of_subsets_is_taken_over(options, settings, rewrite):
    rewrite(lambda index, row: row.update(part=("Training", "test", "")[min(index // 10, 2)]))
    result = split(replace(options, from_column="part"), settings)
    assert shares(result) == {"train": 10, "test": 10}
    assert "4 images with an empty part: in no subset" in result.warnings


def test_a_column_that_leaks_is_refused(options, settings, rewrite):
    rewrite(lambda index, row: row.update(part="train" if index < 11 else "test"))
    with pytest.raises(LeakageError, match="part: 1 patient is in more than one subset, such as 'p:005'"):
        split(replace(options, from_column="part"), settings)
    result = split(replace(options, from_column="part"), replace(settings, allow_leakage=True))
    assert "1 patient is in more than one subset" in result.warnings[0]


def test_dry_run_writes_nothing(options, settings, tmp_path, listener):
    split(replace(options, folds=3), replace(settings, out=tmp_path / "s.csv", dry_run=True))
    assert not (tmp_path / "s.csv").exists()
    assert "would write" in listener.said[-1]


def test_real_radiographs_are_divided_evenly_and_without_overlap(real_data, settings, tmp_path):
    from cxrtool.data.splitting.splits import overlaps
    from cxrtool.data.tables.manifest import read_table

    table = read_table(real_data / "covid-cxr-336" / "metadata.csv")
    rows = [{**row, "image_id": row["file"], "path": str(tmp_path / row["file"])} for row in table.rows]
    write_manifest(tmp_path / "m.csv", ["image_id", "path", *table.columns], rows)
    result = split(SplitOptions(tmp_path / "m.csv", folds=5, repeats=5), replace(settings, out=tmp_path / "s.csv"))
    total = Counter((row["label"], row["severity"]) for row in rows)
    of = {row["image_id"]: (row["label"], row["severity"]) for row in rows}
    splits = read_splits(tmp_path / "s.csv")
    assert len(splits.runs) == 25
    for subsets in splits.runs.values():
        assert overlaps(rows, subsets) == []
        held = Counter(of[identity] for identity, subset in subsets.items() if subset == "test")
        assert all(abs(held[key] - total[key] / 5) < 1 for key in total)
    assert len(result.table) == 3


@pytest.fixture
def whole(options, settings, tmp_path):
    """A division into two repeats of two folds, written."""
    split(replace(options, folds=2, repeats=2), replace(settings, out=tmp_path / "whole.csv"))
    return tmp_path / "whole.csv"


@pytest.fixture
def uneven(rewrite):
    """A finding that is rarer than the others."""

    def edit(index, row):
        row["finding"] = "rare" if index in (0, 4, 9, 12, 17, 21) else "usual"

    rewrite(edit)


def test_a_division_is_thinned_out_within(options, settings, uneven, whole):
    wish = replace(options, within=whole, equal="finding")
    thinned, kept = split(wish, settings), split(replace(wish, keep="test"), settings)
    before = {(r["image_id"], r["repeat"], r["fold"]): r["subset"] for r in split_of(whole)}
    for result in (thinned, kept):
        assert result.rows
        assert all(before[r["image_id"], r["repeat"], r["fold"]] == r["subset"] for r in result.rows)
    assert sum(r["subset"] == "test" for r in kept.rows) == 48 > sum(r["subset"] == "test" for r in thinned.rows)
    assert [r for r in kept.rows if r["subset"] != "test"] == [r for r in thinned.rows if r["subset"] != "test"]
    findings = {f"im{k:03}": k in (0, 4, 9, 12, 17, 21) for k in range(24)}
    for run in {(r["repeat"], r["fold"]) for r in thinned.rows}:
        for subset in ("train", "test"):
            own = [
                findings[r["image_id"]] for r in thinned.rows if (r["repeat"], r["fold"], r["subset"]) == (*run, subset)
            ]
            assert len(own) in (sum(own), 2 * sum(own))


def test_images_are_left_out_of_training_and_still_tested(options, settings, whole, tiny):
    severe = {row["image_id"] for row in tiny.rows if row["severity"] == "severe"}
    before = {(r["image_id"], r["repeat"], r["fold"]): r["subset"] for r in split_of(whole)}
    wish = replace(options, within=whole, exclude=("severity=SEVERE",), keep="test")
    after = {(r["image_id"], r["repeat"], r["fold"]): r["subset"] for r in split(wish, settings).rows}
    assert after == {key: subset for key, subset in before.items() if subset == "test" or key[0] not in severe}
    assert {key for key, subset in after.items() if subset == "test" and key[0] in severe}
    assert len(after) < len(before)
    # As many negative as positive images are left for training.
    labels = {row["image_id"]: row["label"] for row in tiny.rows}
    equal = split(replace(wish, equal="label"), settings).rows
    assert [r for r in equal if r["subset"] == "test"] == [
        {"image_id": n, "repeat": r, "fold": f, "subset": s} for (n, r, f), s in after.items() if s == "test"
    ]
    drawn = Counter((r["repeat"], r["fold"], labels[r["image_id"]]) for r in equal if r["subset"] == "train")
    assert drawn
    assert all(drawn[run, fold, "covid"] == drawn[run, fold, "normal"] for run, fold, _ in drawn)


def split_of(path):
    return [
        {"image_id": name, "repeat": run[0], "fold": run[1], "subset": subset}
        for run, subsets in read_splits(path).runs.items()
        for name, subset in subsets.items()
    ]


def test_what_is_thinned_out_may_lack_images_and_values(options, settings, rewrite, whole, tmp_path):
    rewrite(lambda index, row: row.update(finding=("rare", "usual", "")[index % 3]))
    rows = split_of(whole)
    write_manifest(tmp_path / "more.csv", list(rows[0]), [*rows, {**rows[0], "image_id": "stranger"}])
    result = split(replace(options, within=tmp_path / "more.csv", equal="finding"), settings)
    told = "\n".join(result.warnings)
    assert "1 image of " in told
    assert "8 images with an empty finding: in no subset that is thinned out" in told
    write_manifest(tmp_path / "other.csv", list(rows[0]), [{**rows[0], "image_id": "stranger"}])
    with pytest.raises(InputError, match=r"other.csv: expected images of .*, found none of its 1"):
        split(replace(options, within=tmp_path / "other.csv", equal="finding"), settings)


def test_a_value_that_a_subset_lacks_is_told(options, settings, rewrite, whole):
    rewrite(lambda index, row: row.update(finding="rare" if index == 0 else "usual"))
    result = split(replace(options, within=whole, equal="finding"), settings)
    assert any("has no image of rare" in text for text in result.warnings)


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"folds": 2, "equal": "label"}, "--equal: expected --within SPLITS too"),
        ({"folds": 2, "keep": "test"}, "--keep: expected --within SPLITS too"),
        ({"folds": 2, "exclude": ("severity=mild",)}, "--exclude: expected --within SPLITS too"),
        ({"within": "whole.csv"}, "--within: expected --equal COLUMN or --exclude too"),
        ({"within": "whole.csv", "exclude": ("severity=mid",)}, "--exclude severity: .*did you mean 'mild'"),
        ({"within": "whole.csv", "exclude": ("mild",)}, "--exclude: expected COLUMN=VALUE"),
        ({"within": "whole.csv", "folds": 2}, "found --folds and --within"),
        ({"within": "whole.csv", "equal": "label", "validation": 0.1}, "--validation: with --within"),
        ({"within": "whole.csv", "equal": "label", "keep": "tests"}, "--keep: expected one of train, validation, test"),
    ],
)
def test_thinning_out_has_options_of_its_own(options, settings, whole, wish, told):
    if "within" in wish:
        wish = {**wish, "within": whole}
    with pytest.raises(UsageError, match=told):
        split(replace(options, **wish), settings)


def test_thinning_out_converges_for_make(options, settings, whole, tmp_path):
    out = replace(settings, out=tmp_path / "thin.csv")
    wish = replace(options, within=whole, equal="severity")
    split(wish, out)
    before = out.out.stat().st_mtime_ns
    split(wish, out)
    assert out.out.stat().st_mtime_ns == before
    os.utime(whole, ns=(before + 10**9, before + 10**9))
    split(wish, out)
    assert out.out.stat().st_mtime_ns != before
