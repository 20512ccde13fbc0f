import numpy as np
import pytest

from cfg_jax import images
from cfg_jax.errors import InputError


def test_an_image_that_is_not_finite_is_an_error():

    with pytest.raises(InputError, match="NaN or infinity: the weights diverged"):
        images.to_uint8(np.array([0.0, np.nan]))
