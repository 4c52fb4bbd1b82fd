"""Pictures for the page."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from fairway.web.pictures import png_data_url


def test_data_url_holds_the_very_pixels() -> None:
    image = np.arange(784, dtype=np.uint8).reshape(28, 28)
    head, _, data = png_data_url(image).partition(",")
    assert head == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), image)
