"""One daemon with its receiver for each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clients.site import ClientSite


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientSite]:
    """A daemon, and all there is around it."""
    site = ClientSite(tmp_path_factory.mktemp("clients"))
    try:
        site.start()
        yield site
    finally:
        site.dispose()
