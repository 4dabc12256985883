"""The description of the server, and the server held to it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from support import place

from cqrs_lab import open_shop
from cqrs_lab.http import Client
from cqrs_lab.shop import order_summary
from cqrs_lab.workbench.course import ServedShop, served_shop

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis import GenerationMode, checks

CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
TRIED = settings(
    max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedShop]:
    """A shop with a few orders, behind a socket."""
    path: Path = tmp_path_factory.mktemp("described") / "shop.duckdb"
    with open_shop(path) as lab:
        lab.serve(order_summary, mode="background")
    with served_shop(path) as served, Client(served.address, served.token) as client:
        for n in range(3):
            client.send(place(f"o-{n}"))
        yield served


@pytest.fixture(scope="module")
def description(shop: ServedShop) -> Any:
    """The description as schemathesis has it."""
    return schemathesis.openapi.from_dict(httpx.get(f"{shop.address}/openapi.json", trust_env=False).json())


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name)
def test_every_answer_is_as_declared(mode: GenerationMode, description: Any, shop: ServedShop) -> None:
    """Whatever is sent, well formed or not, there is no 500, and status, headers and body are as declared."""
    headers = {"Authorization": f"Bearer {shop.token}"}

    def hold(case: Any) -> None:
        if (case.method, case.path) == ("GET", "/events"):
            case.query = {**(case.query or {}), "timeout": 0.01}  # a stream ends otherwise with the server alone
        answer = case.call(base_url=shop.address, headers=headers)
        statuses[answer.status_code] += 1
        assert answer.status_code != 500
        case.validate_response(answer, checks=CHECKS)

    statuses: Counter[int] = Counter()
    for found in description.get_all_operations():
        operation = found.ok()
        with suppress(Unsatisfiable):  # nothing that it takes can be wrong
            TRIED(given(case=operation.as_strategy(generation_mode=mode))(hold))()
    assert statuses[202 if mode is GenerationMode.POSITIVE else 422]


def test_the_description_is_of_openapi_3_1(description: Any) -> None:
    """It validates as such, and names every command and query of the shop."""
    description.validate()
    raw = description.raw_schema
    assert raw["openapi"].startswith("3.1.")
    assert {"/commands/PlaceOrder", "/queries/OrderDetails", "/events", "/lag", "/health"} <= raw["paths"].keys()
