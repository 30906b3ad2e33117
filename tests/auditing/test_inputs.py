"""What an audit has seen of the pictures."""

import numpy as np


def test_some_of_the_pictures_keep_their_places(make_pictures):
    pictures = make_pictures(12)
    some = pictures.where(np.arange(12) % 3 == 0)
    assert len(some) == 4
    assert some.index.tolist() == [0, 3, 6, 9]
    assert [row["image_id"] for row in some.rows] == ["im000", "im003", "im006", "im009"]
    assert (some.thumbs == pictures.thumbs[::3]).all()
    assert some.lungs is not None
    assert some.at([9, 1, 0]).tolist() == [3, 0]


def test_images_of_a_patient_share_a_number(make_pictures):
    pictures = make_pictures(8, per_patient=2)
    assert pictures.patients.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert pictures.numbers(["normal"]).tolist() == [-1, -1, 0, 0, -1, -1, 0, 0]
