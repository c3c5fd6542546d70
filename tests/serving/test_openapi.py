"""The OpenAPI document is true: what it allows is accepted, what it forbids is refused, what is answered is described."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

CALM = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
MODELS = ("risk", "wide", "price")
READ = ["/healthz", "/readyz", "/v1/models", *(f"/v1/models/{name}" for name in MODELS)]
SENT = [f"/v1/models/{name}/{rest}" for name in MODELS for rest in ("predict", "predict/batch", "outcomes")]


@pytest.fixture(scope="session")
def described(served):
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{served.port}/openapi.json")


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", SENT)
def test_what_it_allows_is_accepted_and_what_it_forbids_refused(described, path, mode):
    @CALM
    @given(described[path]["POST"].as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate()

    check()


@pytest.mark.parametrize("path", READ)
def test_what_is_answered_is_described(described, path):
    described[path]["GET"].Case().call_and_validate()


def test_the_document_names_every_field(served):
    document = served.ask("GET", "/openapi.json").json
    columns = ["count", "size", "ratio", "level", "stage", "kind", "team", "note", "urgent", "weekend"]
    assert set(document["components"]["schemas"]["wide_record"]["properties"]) == {
        *columns,
        "org",
        "id",
        "at",
        "outcome",
    }
    assert document["components"]["schemas"]["risk_record"]["examples"]


def test_the_document_knows_exactly_what_is_served(described):
    assert {found.ok().path for found in described.get_all_operations()} == {*READ, *SENT}
