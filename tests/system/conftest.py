"""One small Internet for each module of system tests."""

from __future__ import annotations

from collections.abc import Iterator

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
