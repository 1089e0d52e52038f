"""What all tests share."""

import re


def pytest_make_parametrize_id(val):
    """Names cases without the addresses of objects: several processes must agree on the names."""
    text = repr(val)
    return re.sub(r" object at 0x[0-9a-f]+", "", text) if " object at 0x" in text else None
