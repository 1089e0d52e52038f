"""Hooks of pytest that let a skip fail, but for the reasons that are named.

Without `IMAGENET_FAMILY_TESTS_MAY_SKIP` every skip is as ever. With it, a test or module that is
skipped for a reason in which that regular expression is not found is a failure: a test that never
runs anywhere looks just like one that passes.
"""

import os
import re

import pytest

VARIABLE = "IMAGENET_FAMILY_TESTS_MAY_SKIP"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    """Judges what comes of a test."""
    return _judged((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector):
    """Judges what comes of looking for a module's tests."""
    return _judged((yield))


def _judged(report):
    allowed = os.environ.get(VARIABLE)
    if allowed is None or not report.skipped or hasattr(report, "wasxfail"):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not re.search(allowed, reason):
        report.outcome = "failed"
        report.longrepr = f"skipped, which {VARIABLE} does not allow: {reason}"
    return report
