"""Progress bars: on a terminal only, to standard error, and silent when TFDS's are switched off."""

from __future__ import annotations

import sys

from tqdm.auto import tqdm


def bytes_bar(
    description: str, total: int | None, *, initial: int = 0, enabled: bool = True
) -> tqdm:
    """Makes a bar that counts bytes; its postfix may count members or examples beside them.

    Args:
        description: What is being done.
        total: Bytes in all, if known.
        initial: Bytes that are done before.
        enabled: False for no bar at all.
    """
    return tqdm(
        desc=description,
        total=total,
        initial=initial,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        mininterval=0.2,
        disable=None if enabled and tfds_bars_enabled() else True,
    )


def tfds_bars_enabled() -> bool:
    """Tells whether `tfds.disable_progress_bar()` has not been called."""
    module = sys.modules.get("tensorflow_datasets.core.utils.tqdm_utils")
    return module is None or bool(getattr(module, "_active", True))
