"""A service that is killed at any moment has on record what it answered."""

import http.client
import random
import threading
import time

import pytest

from tests.serving.conftest import exchange

CONNECTIONS = 8
KILLS = 4
PATH = "/v1/models/risk/predict"


class Client(threading.Thread):
    """Asks on and on, and remembers what was answered; a service that is gone is asked again when it is back."""

    def __init__(self, running, number):
        super().__init__()
        self.running, self.number = running, number
        self.stop = threading.Event()
        self.answered: dict[str, str] = {}

    def run(self):
        drawn = random.Random(self.number)
        connection = self.running.connection()
        asked = 0
        while not self.stop.is_set():
            asked += 1
            key = f"{self.number}-{asked}"
            try:
                answer = exchange(
                    connection, "POST", PATH, {"files": drawn.randint(0, 1000), "stage": "dev", "id": key}
                )
            except (OSError, http.client.HTTPException):
                connection.close()
                time.sleep(0.05)
                continue
            assert answer.status == 200, answer.body
            self.answered[answer.json["prediction_id"]] = key


@pytest.mark.parametrize("level", ["crash_safe", "durable"])
def test_every_answered_prediction_is_on_record_once(trained, start, level):
    path = trained.models / "risk.yaml"
    path.write_text(path.read_text() + f"serve: {{log: {level}}}\n")
    running = start(trained, "--no-access-log")
    clients = [Client(running, number) for number in range(CONNECTIONS)]
    for client in clients:
        client.start()
    drawn = random.Random(level)
    for _ in range(KILLS):
        time.sleep(drawn.uniform(0.2, 0.8))
        running.kill()
        running.start()
    for client in clients:
        client.stop.set()
        client.join()
    answered = {name: key for client in clients for name, key in client.answered.items()}
    assert len(answered) > KILLS
    assert running.stop() == 0
    kept = {row.prediction_id: row.key for block in trained.workspace.predictions.blocks("risk") for row in block}
    assert {name: kept.get(name) for name in answered} == answered
    keys = list(kept.values())
    assert len(keys) == len(set(keys)), "one request, two rows"
