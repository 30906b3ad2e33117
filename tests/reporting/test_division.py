import pytest

from cxrtool.commands.split import SplitOptions
from cxrtool.data.splitting.splits import Splits
from cxrtool.options import declared
from cxrtool.reporting.division import NOT_RECORDED, SENTENCES, division_in_words

CHECKED = (
    "Before training it was checked that no patient and no image (by the digest of its pixels) is in two subsets of a "
    "division."
)


@pytest.fixture
def rows(make_rows):
    """Twenty images of ten patients, with digests of their pixels."""
    return [{**row, "sha256": f"{index:064}"} for index, row in enumerate(make_rows(20))]


def once(rows, train=16):
    return {row["image_id"]: "train" if index < train else "test" for index, row in enumerate(rows)}


def folds(rows, repeats=2, count=5):
    """Folds of whole patients."""
    return {
        (str(repeat), str(fold)): {
            row["image_id"]: "test" if (index // 2 + repeat) % count == fold else "train"
            for index, row in enumerate(rows)
        }
        for repeat in range(repeats)
        for fold in range(count)
    }


def test_every_option_of_split_has_its_sentence():
    names = [name for name, (_, known) in declared(SplitOptions).items() if not known.argument]
    assert sorted(SENTENCES) == sorted([*names, "seed"])


def test_a_holdout_is_told_in_whole(rows):
    line = "split --holdout 80/20 --repeats 1 --group patient_id --stratify label,severity --seed 3"
    assert division_in_words(Splits({("0", "0"): once(rows)}, made_by=[line]), rows, allowed=False) == (
        "Division. The images were divided once: 16 (80 %) for training, none for validation and 4 (20 %) for test. "
        "The division was drawn at random by `cxrtool split`, with shares of 80 % for training and 20 % for test. "
        "The subsets were stratified by label and, within it, by severity. "
        "Images of one patient (patient_id) and images with identical pixels were kept together in one subset. "
        f"The seed of the draw was 3. {CHECKED}"
    )


def test_repeated_folds_are_told(rows):
    line = "split --folds 5 --repeats 2 --validation 0 --group study --stratify label --seed 0"
    for row in rows:
        row["study"] = row["patient_id"]
    text = division_in_words(Splits(folds(rows), made_by=[line]), rows, allowed=None)
    for told in (
        "The images were divided 2 times into 5 folds, of which each was the test set once.",
        "In each division there were 16 (80 %) for training, none for validation and 4 (20 %) for test.",
        "The division into 5 folds was drawn at random 2 times by `cxrtool split`.",
        "No images were kept for validation.",
        "Images with the same study and images with identical pixels were kept together in one subset.",
        "No patient is in two subsets of a division.",
    ):
        assert told in text, told
    assert CHECKED not in text


def test_a_table_made_by_hand_shows_its_sizes_and_its_patients(rows):
    text = division_in_words(Splits({("0", "0"): once(rows, train=15)}), rows, allowed=False)
    assert text == (
        "Division. The images were divided once: 15 (75 %) for training, none for validation and 5 (25 %) for test. "
        f"{NOT_RECORDED} 1 patient is in more than one subset of a division. {CHECKED}"
    )
    text = division_in_words(Splits({("0", "0"): once(rows)}), rows, allowed=True)
    assert "No patient is in two subsets of a division." in text
    assert "explicitly allowed" in text


def test_divisions_that_are_no_cross_validation_are_not_called_folds(rows):
    runs = folds(rows, repeats=1, count=3)
    runs["0", "2"] = runs["0", "1"]
    assert "The images have 3 divisions in 1 repeat." in division_in_words(Splits(runs), rows, allowed=None)
    runs = {(str(repeat), "0"): once(rows) for repeat in range(3)}
    assert "The images were divided 3 times." in division_in_words(Splits(runs), rows, allowed=None)


def test_missing_patients_are_told(rows):
    line = "split --holdout 80/20 --group patient_id --seed 0"
    recorded, by_hand = (Splits({("0", "0"): once(rows)}, made_by=made) for made in ([line], []))
    for row in rows[:3]:
        row["patient_id"] = ""
    text = division_in_words(recorded, rows, allowed=None)
    assert "3 of 20 images have no patient_id; each of these counted as a separate patient." in text
    text = division_in_words(by_hand, rows, allowed=None)
    assert "in two subsets of a division, as far as the 17 images with a patient_id show." in text
    for row in rows:
        row["patient_id"] = ""
    text = division_in_words(recorded, rows, allowed=None)
    assert "Images with identical pixels were kept together in one subset. No image has a patient_id; each" in text
    text = division_in_words(by_hand, rows, allowed=None)
    assert "No image has a patient_id, so whether a patient is in two subsets is not known." in text


def test_images_that_were_left_out_are_told(rows):
    line = "split --holdout 80/20 --group patient_id --seed 0 | split --within - --exclude severity=mild --keep test"
    text = division_in_words(Splits({("0", "0"): once(rows)}, made_by=[line]), rows, allowed=None)
    assert (
        "This division was thinned out by `cxrtool split`: images with severity=mild were left out. Of the images for "
        "test, all were kept."
    ) in text
    text = division_in_words(
        Splits({("0", "0"): once(rows)}, made_by=[f"{line} --equal label --exclude view=AP"]), rows, allowed=None
    )
    assert "images with severity=mild and view=AP were left out, and in each division, a subset kept as many" in text


def test_a_division_inside_a_division_is_told(rows):
    own = "split --within - --equal finding --keep validation,test --seed 1"
    base = "split --holdout 80/20 --validation 0.25 --group patient_id --seed 0"
    told = (
        "This division was thinned out by `cxrtool split`: in each division, a subset kept as many images of each "
        "value of finding as it had of the rarest value. Of the images for validation and test, all were kept. The "
        "seed of the draw was 1."
    )
    text = division_in_words(Splits({("0", "0"): once(rows)}, made_by=[f"{base} | {own}"]), rows, allowed=None)
    assert "Of the images that were not for test, 25 % were kept for validation." in text
    assert text.endswith(f"The seed of the draw was 0. {told}")
    text = division_in_words(Splits({("0", "0"): once(rows)}, made_by=[own]), rows, allowed=None)
    assert "How the original division was made is not recorded. [Write how the images were divided" in text
    assert f"{told} No patient is in two subsets" in text


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("split --leave-out source --validation 0.1 --seed 0", "images of each value of source were the test set once"),
        ("split --from-column part", "from the column part of the table of images. [Write who divided the images"),
        ("split --folds 5 --blocks year --seed 0", "Further options were --blocks year."),
        ("split --holdout half", "It was made by the command `split --holdout half`."),
        ("drawn by Anna", "It was made by the command `drawn by Anna`."),
    ],
)
def test_other_ways_are_told(rows, line, told):
    text = division_in_words(Splits({("0", "0"): once(rows)}, made_by=[line]), rows, allowed=None)
    assert told in text
    assert NOT_RECORDED not in text


def test_joined_tables_are_all_named(rows):
    lines = [f"split --holdout 80/20 --group patient_id --seed {seed}" for seed in (4, 5)]
    text = division_in_words(Splits({("0", "0"): once(rows)}, made_by=lines), rows, allowed=None)
    assert "joined from divisions that were made in 2 ways. Way 1: The division was drawn" in text
    assert text.index("draw was 4") < text.index("Way 2:") < text.index("draw was 5")


def test_images_that_the_study_lacks_are_not_counted(rows):
    subsets = {**once(rows), "stranger": "test"}
    assert "4 (20 %) for test" in division_in_words(Splits({("0", "0"): subsets}), rows, allowed=None)
    assert "1 (5 %) for test" in division_in_words(
        Splits({("0", "0"): {f"x{name}": "test" if name == "im000" else "train" for name in once(rows)}}),
        rows,
        allowed=None,
    )
