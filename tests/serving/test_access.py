import stat
from datetime import UTC, datetime

import pytest

from steward.errors import RequestRefused, SettingsError
from steward.serving.access import Access, Bucket, KeyFile
from tests.serving.conftest import wait_for

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECORD = {"files": 700, "stage": "prod"}


@pytest.fixture
def file(tmp_path):
    return KeyFile(tmp_path)


def bearer(secret):
    return {b"authorization": f"Bearer {secret}".encode(), b"host": b"example.org"}


def test_a_key_is_kept_as_a_digest_that_only_its_owner_reads(file):
    key, secret = file.add("bot", ["risk"], ["predict"], at=NOW)
    assert secret not in file.path.read_text()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert file.read() == (key,)


def test_a_name_is_given_once_and_rights_are_known(file):
    file.add("bot", ["risk"], ["predict"], at=NOW)
    with pytest.raises(SettingsError, match="there is a key of this name"):
        file.add("bot", ["risk"], ["predict"], at=NOW)
    with pytest.raises(SettingsError, match="there is no such right: got 'all'"):
        file.add("other", ["risk"], ["all"], at=NOW)
    with pytest.raises(SettingsError, match="there is no key of this name: got 'x'; allowed: bot"):
        file.revoke("x")


@pytest.mark.parametrize(
    ("right", "model", "status"),
    [("predict", "risk", None), ("outcomes", "risk", 403), ("predict", "other", 403), (None, "", None)],
)
def test_a_key_opens_what_it_is_for(file, right, model, status):
    _, secret = file.add("bot", ["risk"], ["predict"], at=NOW)
    access = Access(file)
    if status is None:
        assert access.admit(bearer(secret), right, model).name == "bot"
    else:
        with pytest.raises(RequestRefused, match="may not") as refused:
            access.admit(bearer(secret), right, model)
        assert refused.value.facts["status"] == status


@pytest.mark.parametrize(
    "headers", [{}, bearer("stw_wrong"), {b"authorization": b"Basic eDp5"}, {b"authorization": b"\xff"}]
)
def test_without_a_valid_key_nothing_opens(file, headers):
    file.add("bot", ["*"], ["predict"], at=NOW)
    with pytest.raises(RequestRefused, match="needs a valid API key"):
        Access(file).admit(headers, "predict", "risk")


def test_the_last_revoked_key_does_not_open_the_door(file):
    _, secret = file.add("bot", ["*"], ["predict"], at=NOW)
    access = Access(file)
    file.revoke("bot")
    access.refresh()
    with pytest.raises(RequestRefused, match="needs a valid API key"):
        access.admit(bearer(secret), "predict", "risk")


def test_a_damaged_key_file_closes_the_door_and_keeps_known_keys(file):
    _, secret = file.add("bot", ["*"], ["predict"], at=NOW)
    access = Access(file)
    file.path.write_text("{")
    access.refresh()
    assert access.problem
    assert access.admit(bearer(secret), "predict", "risk").name == "bot"
    assert Access(file).required


def test_a_bucket_lets_through_its_rate():
    bucket = Bucket(10.0)
    now = bucket.at
    assert [bucket.wait(now) for _ in range(21)] == [0.0] * 20 + [pytest.approx(0.1)]
    assert bucket.wait(now + 0.1001) == 0.0
    assert bucket.wait(now + 0.15) == pytest.approx(0.05)


def test_another_interface_needs_keys(trained):
    refused = trained.run("serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.exit_code == 1
    assert "without API keys the service answers this machine only" in refused.stderr


def test_keys_on_a_running_service(trained, start):
    made = trained.ask("keys", "add", "bot", "--model", "risk", "--rights", "predict", "--rate", "5")
    running = start(trained, "--host", "0.0.0.0")
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert running.predict(RECORD).status == 401
    assert running.predict(RECORD, **headers).status == 200
    assert running.ask("POST", "/v1/models/risk/outcomes", [], **headers).status == 403
    assert running.ask("GET", "/metrics").status == 401
    assert running.ask("GET", "/healthz").status == 200
    answers = [running.predict(RECORD, **headers) for _ in range(12)]
    assert answers[-1].status == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert [key["name"] for key in trained.ask("keys", "list")["keys"]] == ["bot"]
    trained.ask("keys", "revoke", "bot")
    wait_for(lambda: running.predict(RECORD, **headers).status == 401)
    assert made["key"] not in running.errors.read_text()
