"""The limits of a study that follow from how it was made: what its results do not show."""

from __future__ import annotations

from cxrtool.reporting.methods import Facts

FEW_IMAGES = 100
"""Test images of a class below which its wide intervals are reported."""

SMALL_SIDE = 224
"""Side in pixels, that of most networks for photographs, below which small findings are lost."""


def limits(facts: Facts) -> list[str]:
    """The limits, one or two sentences per line."""
    summary, found = facts.summary, []
    if not facts.external and not facts.run:
        found.append(
            "Whether the test images come from the sources of the training images is not known. If they do, the "
            "results do not show how the model performs at another hospital."
        )
    elif not facts.external and facts.sources_apart:
        found.append(
            "Each source was tested by models that were trained on the other sources. All were collected for one "
            "study, so that this is no test at an independent hospital."
        )
    elif not facts.external:
        found.append(
            "All results are on images from the same sources as the training images. They do not show how the model "
            "performs at another hospital, on another device or in another year."
        )
    if len(facts.sources) == 1:
        found.append("All images come from one source.")
    elif len(facts.sources) > 1:
        found.append(
            f"The images come from {len(facts.sources)} sources. Where a class comes from some of them only, a model "
            "can recognise the source instead of the disease."
        )
    if not facts.audited:
        found.append(
            "There is no audit of these images: whether something other than the disease separates the classes "
            "is not known. `cxrtool audit` tests it."
        )
    if not summary["patients_known"]:
        found.append(
            "Patients are not known. Images of one patient may count as independent, and intervals may be too narrow."
        )
    few = [name for name, entry in summary["per_class"].items() if entry["support"] < FEW_IMAGES]
    if few:
        found.append(
            f"There are fewer than {FEW_IMAGES} test images of {', '.join(few)}: "
            "intervals are wide, and wider still in subgroups."
        )
    found.append(
        "Intervals show how much the results depend on which patients were tested. They do not include the variation "
        "between trainings" + (", which the spread over folds shows in part." if facts.folds > 1 else ".")
    )
    found.append(
        "The prevalence of each class among the test images is not that of a clinic: predictive values and accuracy "
        "hold for this prevalence only."
    )
    if facts.run and facts.option("size") and int(facts.option("size")) < SMALL_SIDE:
        size = facts.option("size")
        found.append(f"The network saw images of {size} x {size} pixels, in which small findings are lost.")
    return found
