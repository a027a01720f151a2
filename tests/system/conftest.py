"""One small Internet for each module of system tests."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.system.site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """DNS, and whatever the module's tests start in it."""
    site = Site(tmp_path_factory.mktemp("site"))
    try:
        yield site
    finally:
        site.dispose()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Have a failed test's report tell what the daemons said last."""
    report = yield
    site = getattr(item, "funcargs", {}).get("site")
    if report.failed and isinstance(site, Site):
        report.sections += site.said()
    return report
