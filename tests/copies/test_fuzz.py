"""A bounded run of the fuzzer; `tests/support/fuzz_archives.py` runs as many cases as wanted."""

import fuzz_archives


def test_damaged_archives_and_saved_indexes():
    results = fuzz_archives.run(seed=1_000_000, count=1000)
    assert results["members"] > 100
    assert results["refused"] > 100
