"""The limits of a study that follow from how it was made: what its figures do not say."""

from __future__ import annotations

from cxrtool.reporting.methods import Facts

FEW_IMAGES = 100
"""Fewer test images of a class than this make its figures uncertain enough to say so."""

SMALL_SIDE = 224
"""Pixels of a side under which small findings are lost: what most networks for photographs were made for."""


def limits(facts: Facts) -> list[str]:
    """What a reader must keep in mind, one sentence or two a line."""
    summary, found = facts.summary, []
    if not facts.external:
        found.append(
            "All figures are of images from the same sources as those that the model was trained on. How it does at "
            "another hospital, on another device or in another year, nothing here tells."
        )
    if len(facts.sources) == 1:
        found.append("All images come from one source.")
    elif len(facts.sources) > 1:
        found.append(
            f"The images come from {len(facts.sources)} sources; where a class comes from some of them only, a model "
            "can tell the source instead of the disease."
        )
    if not facts.audited:
        found.append("No audit was made of these images: whether something beside the disease tells the classes apart "
                     "is not known. `cxrtool audit` looks for it.")  # fmt: skip
    if not summary["patients_known"]:
        found.append("Patients are not known, so images of one patient may count as independent, and intervals may be "
                     "too narrow.")  # fmt: skip
    few = [name for name, entry in summary["per_class"].items() if entry["support"] < FEW_IMAGES]
    if few:
        found.append(
            f"There are fewer than {FEW_IMAGES} test images of {', '.join(few)}: "
            "intervals are wide, and wider still in subgroups."
        )
    found.append(
        "Intervals tell how much the figures depend on which patients were tested; that another training gives another "
        "model, they do not contain" + (", which the spread over folds shows in part." if facts.folds > 1 else ".")
    )
    found.append(
        "The share of each class among the test images is not that of a clinic: predictive values and accuracy hold "
        "for these shares only."
    )
    if facts.run and facts.option("size") and int(facts.option("size")) < SMALL_SIDE:
        size = facts.option("size")
        found.append(f"The network saw images of {size} x {size} pixels, in which small findings are lost.")
    return found
