import re
import socket

import pytest

from tests.serving.conftest import wait_for

RECORD = {"files": 700, "stage": "prod"}
KEYS = [
    "prediction",
    "confidence",
    "probabilities",
    "interval",
    "action",
    "message",
    "model_version",
    "prediction_id",
    "fallback",
    "unseen",
    "flags",
    "control",
    "logged",
    "timestamp",
]


def test_a_record_is_answered_with_everything_that_the_design_names(served):
    answer = served.predict({**RECORD, "id": 17}).json
    assert list(answer) == KEYS
    assert answer["prediction"] == "High"
    assert answer["confidence"] == max(answer["probabilities"].values())
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert (answer["model_version"], answer["fallback"], answer["interval"]) == (1, None, None)
    assert re.fullmatch("[0-9a-f]{12}7[0-9a-f]{19}", answer["prediction_id"])
    assert answer["logged"] is True


def test_an_answered_prediction_is_on_record(served):
    answer = served.predict({**RECORD, "id": 18}).json
    logged = served.installation.workspace.predictions.get(answer["prediction_id"])
    assert (logged.key, logged.version, logged.prediction) == ("18", 1, "High")
    assert logged.record == '{"files":700.0,"stage":"prod"}'


def test_a_batch_is_answered_by_one_version_in_order(served):
    records = [{"files": number % 2 * 600 + number % 400, "stage": "dev"} for number in range(1_500)]
    answers = served.ask("POST", "/v1/models/risk/predict/batch", records).json["predictions"]
    assert [each["prediction"] for each in answers] == ["High" if r["files"] > 500 else "Low" for r in records]
    assert len({each["prediction_id"] for each in answers}) == 1_500
    one = served.predict(records[700]).json
    told = ("prediction", "confidence", "probabilities", "action", "model_version")
    assert [one[name] for name in told] == [answers[700][name] for name in told]


def test_outcomes_find_their_prediction_and_are_counted(served):
    prediction = served.predict({**RECORD, "id": "with outcome"}).json["prediction_id"]
    items = [{"prediction_id": prediction, "label": "Low"}, {"key": "nobody", "label": "High"}]
    first = served.ask("POST", "/v1/models/risk/outcomes", items)
    assert first.json == {"accepted": 2, "repeated": 0, "corrected": 0, "unknown": ["nobody"]}
    again = served.ask("POST", "/v1/models/risk/outcomes", items)
    assert again.json == {"accepted": 0, "repeated": 2, "corrected": 0, "unknown": ["nobody"]}


@pytest.mark.parametrize(
    ("record", "field", "got", "allowed"),
    [
        ({"files": 7000, "stage": "prod"}, "files", "7000", "0 to 1000"),
        ({"files": "many", "stage": "prod"}, "files", "many", "0 to 1000"),
        ({"files": 1, "stage": "moon"}, "stage", "moon", "dev, prod"),
        ({"files": 1}, "stage", None, "dev, prod"),
        ({**RECORD, "extra": 1}, "extra", "extra", "files, stage"),
        ({**RECORD, "files": [1]}, "files", "[1]", "0 to 1000"),
    ],
)
def test_what_breaks_the_contract_is_named_with_what_is_allowed(served, record, field, got, allowed):
    answer = served.predict(record)
    (problem,) = answer.json["problems"]
    assert answer.status == 422
    assert (problem["field"], problem["got"], problem["allowed"]) == (field, got, allowed)


def test_a_batch_names_the_record_that_is_wrong(served):
    answer = served.ask("POST", "/v1/models/risk/predict/batch", [RECORD, {**RECORD, "files": -1}])
    assert answer.status == 422
    assert answer.json["problems"][0]["record"] == 1


def test_what_the_model_file_flags_is_accepted_and_said(served):
    answer = served.predict({"area": 11, "colour": "red", "nested": {"a": [1]}}, "price").json
    assert sorted(answer["flags"]) == ["out_of_range:area", "unknown_field:colour", "unknown_field:nested"]
    assert (answer["prediction"], answer["confidence"], answer["probabilities"]) == (50, None, None)


def test_without_a_version_the_declared_constant_answers(served):
    answer = served.predict({"count": 600, "level": 1, "stage": "5", "team": " x ", "urgent": 0}, "wide").json
    assert (answer["prediction"], answer["fallback"], answer["model_version"]) == ("Low", "constant", None)


def test_the_control_share_proceeds_whatever_the_prediction(served):
    records = [{"count": 900, "level": 1, "stage": "dev", "team": "x", "urgent": 0}] * 400
    answers = served.ask("POST", "/v1/models/wide/predict/batch", records).json["predictions"]
    control = [each["action"] for each in answers if each["control"]]
    assert 150 < len(control) < 250
    assert set(control) == {"proceed"}
    assert {each["action"] for each in answers if not each["control"]} == {"ask"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/models/nobody", 404),
        ("POST", "/v1/models/nobody/predict", 404),
        ("POST", "/v1/models/risk/predict/more", 404),
        ("GET", "/v1/models/risk/predict", 405),
        ("DELETE", "/v1/models/risk", 405),
        ("POST", "/metrics", 405),
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404),
    ],
)
def test_what_is_not_there_is_refused_in_the_same_form(served, method, path, status):
    answer = served.ask(method, path)
    assert answer.status == status
    assert set(answer.json) >= {"error", "what", "request_id"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "identity"}, 200),
        ({"Content-Type": "Application/JSON; charset=utf-8"}, 200),
    ],
)
def test_only_plain_json_is_taken(served, headers, status):
    assert served.predict(RECORD, **headers).status == status


def test_what_is_too_large_is_refused_before_it_is_read(served):
    assert served.predict(b" " * 300_000).status == 413
    declared = served.ask("POST", "/v1/models/risk/predict/batch", b"[]", Content_Length=str(10**10))
    assert declared.status == 413
    many = served.ask("POST", "/v1/models/risk/predict/batch", b"[" + b"{}," * 50_000 + b"{}]")
    assert many.status == 422


def test_a_request_keeps_its_id_unless_it_is_strange(served):
    assert served.predict(RECORD, X_Request_ID="abc-1").headers["x-request-id"] == "abc-1"
    assert served.predict(RECORD, X_Request_ID="a b").headers["x-request-id"] != "a b"


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/healthz", "/v1/models", "/nowhere"])
def test_every_answer_carries_security_headers(served, path):
    headers = served.ask("GET", path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


def test_a_page_of_another_name_gets_no_answer(served):
    assert served.predict(RECORD, Host="evil.example").status == 421
    assert served.predict(RECORD, Host="localhost:1").status == 200


def test_the_documentation_page_loads_nothing_from_elsewhere(served):
    page = served.ask("GET", "/docs").body.decode()
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sources
    for source in sources:
        assert source.startswith(("/docs/", "/openapi.json"))
        assert served.ask("GET", source).status == 200


def test_metrics_count_what_happened(served):
    served.predict(RECORD)
    served.predict({}, "risk")
    text = served.ask("GET", "/metrics").body.decode()
    for line in (
        r'steward_requests_total\{endpoint="predict",model="risk",status="200"\} [1-9]',
        r'steward_requests_total\{endpoint="predict",model="risk",status="422"\} [1-9]',
        r'steward_request_seconds_count\{endpoint="predict",model="risk"\} [1-9]',
        r'steward_predictions_total\{model="risk",version="1"\} [1-9]',
        r'steward_version\{alias="champion",model="risk"\} 1\.0',
        r"steward_log_queue_rows 0\.0",
        r"steward_log_spool_rows 0\.0",
        r"process_resident_memory_bytes [1-9]",
        r"process_cpu_seconds_total [0-9]",
    ):
        assert re.search(line, text), line


def test_readiness_says_what_is_missing(served):
    answer = served.ask("GET", "/readyz")
    assert answer.status == 200
    assert answer.json["missing"] == {"wide": ["no champion yet"], "price": ["no champion yet"]}


def test_a_model_tells_its_contract(served):
    listed = served.ask("GET", "/v1/models").json["models"]
    assert [each["name"] for each in listed] == ["price", "risk", "wide"]
    model = served.ask("GET", "/v1/models/risk").json
    assert model["columns"]["files"]["max"] == 1000
    assert served.predict(model["example"]).status == 200


def test_the_access_log_has_a_line_per_request_and_nothing_of_the_record(served):
    served.predict({**RECORD, "stage": "secret-value"}, X_Request_ID="looked-for")
    served.predict(RECORD, X_Request_ID="later")
    wait_for(lambda: "later" in served.errors.read_text())
    lines = [line for line in served.errors.read_text().splitlines() if "looked-for" in line]
    assert len(lines) == 1
    assert '"status":422' in lines[0]
    assert "secret-value" not in served.errors.read_text()


def test_a_slow_head_and_a_silent_client_do_not_stop_others(served):
    with socket.create_connection(("127.0.0.1", served.port)) as slow:
        slow.sendall(b"POST /v1/models/risk/predict HTTP/1.1\r\nHost: local")
        assert served.predict(RECORD).status == 200


def test_an_endless_head_is_cut_off(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as endless:
        endless.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000)
        assert endless.recv(100).startswith(b"HTTP/1.1 431")
