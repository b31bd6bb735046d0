"""The domains of a host."""

from __future__ import annotations

import pytest
from hosts import Host

from cvm_qmail.cvmctl.listing.places import of_domain, places
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

pytestmark = pytest.mark.root


def test_the_place_of_a_domain(host: Host) -> None:
    host.control("virtualdomains", "v.example:joe\n.example:ann\n:alias\nexample.org:joe\nnot.example:\n")
    settings = Settings.from_environment(host.environment)
    tables = Tables(settings)
    found, _ = places(tables, settings)
    prepends = {name: of_domain(found, name) for name in (b"example.org", b"v.example", b"x.y.example", b"other")}
    assert [place.prepend for name in prepends for place in prepends[name]] == [None, b"joe", b"ann", b"alias"]
    assert of_domain(found[:1], b"other") == []
