"""The service changes its classifier under load, and ends, without a request that was taken and not answered."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

from helpers.asgi import multipart, served
from knownot.service import Settings, create_app


def test_a_changed_folder_takes_over_under_load_and_no_request_is_mixed(to_serve, tmp_path):
    folder = tmp_path / "osc"
    shutil.copytree(to_serve.folder, folder)
    other = to_serve.osc.with_alpha(0.2)
    app = create_app([folder], Settings(reload=0, threads=2))
    form = multipart([(str(i), x) for i, x in enumerate(to_serve.images)])

    async def story(client):
        answers, going = [], True

        async def ask():
            while going:
                answers.append(await client("POST", "/v1/predict", *form))

        askers = [asyncio.create_task(ask()) for _ in range(4)]
        before = (await client("GET", "/v1/models/osc")).json
        await asyncio.to_thread(other.save, folder)
        await app.state.registry.look()
        after = (await client("GET", "/v1/models/osc")).json
        have = len(answers)
        while len(answers) < have + 12:
            await asyncio.sleep(0.01)
        going = False
        await asyncio.gather(*askers)
        return before, after, answers, (await client("GET", "/metrics")).body.decode()

    before, after, answers, metrics = served(app, story)
    assert (before["alpha"], after["alpha"]) == (0.05, 0.2)
    assert before["digest"] != after["digest"]
    assert {a.status for a in answers} == {200}
    expected = {
        before["digest"]: [v.status for v in to_serve.osc.predict(to_serve.images)],
        after["digest"]: [v.status for v in other.predict(to_serve.images)],
    }
    assert {a.json["digest"] for a in answers} == set(expected)
    for a in answers:
        assert [row["status"] for row in a.json["verdicts"]] == expected[a.json["digest"]]
    assert 'knownot_reloads_total{model="osc",outcome="taken"} 1.0' in metrics
    assert f'knownot_model_info{{alpha="0.2",digest="{after["digest"][:16]}",model="osc"}} 1.0' in metrics
    assert before["digest"][:16] not in metrics


def test_a_broken_or_equal_folder_changes_nothing(to_serve, tmp_path):
    folder = tmp_path / "osc"
    shutil.copytree(to_serve.folder, folder)
    app = create_app([folder], Settings(reload=0))
    manifest = (folder / "manifest.json").read_text()

    async def story(client):
        engine, said = app.state.registry.get(None), []
        for text in (manifest + " ", manifest[:-300], None, manifest):
            if text is None:
                (folder / "manifest.json").unlink()
            else:
                (folder / "manifest.json").write_text(text)
                os.utime(folder / "manifest.json", ns=(len(said), len(said)))  # whatever the clock's grain
            await app.state.registry.look()
            assert app.state.registry.get(None) is engine
            said.append((await client("GET", "/v1/models/osc")).json["refused"])
        answer = await client("POST", "/v1/predict", to_serve.images[0], {"content-type": "image/png"})
        return said, answer, (await client("GET", "/metrics")).body.decode()

    (equal, broken, gone, mended), answer, metrics = served(app, story)
    assert equal is None
    assert "manifest.json" in broken
    assert gone == broken
    assert mended is None
    assert answer.status == 200
    assert 'knownot_reloads_total{model="osc",outcome="refused"} 1.0' in metrics
    assert 'outcome="taken"' not in metrics


class Client(threading.Thread):
    """Asks on one connection until an answer says that it ends."""

    def __init__(self, port, body):
        super().__init__(daemon=True)
        self.port, self.body, self.statuses, self.error = port, body, [], None

    def run(self):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            while True:
                connection.request("POST", "/v1/predict", self.body, {"Content-Type": "image/png"})
                answer = connection.getresponse()
                answer.read()
                self.statuses.append(answer.status)
                if answer.getheader("Connection") == "close":
                    return
        except Exception as error:
            self.error = error


def test_sigterm_answers_what_was_taken_and_leaves(to_serve, tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as errors:
        command = [sys.executable, "-m", "knownot", "serve", to_serve.folder, "--port", "0", "--drain", "0.5"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        said = process.stdout.readline()
        port = int(said.rsplit(":", 1)[1])
        half = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        half.putrequest("POST", "/v1/predict")
        half.putheader("Content-Type", "image/png")
        half.putheader("Content-Length", str(len(to_serve.images[0])))
        half.endheaders(to_serve.images[0][:50])  # its rest comes after SIGTERM
        clients = [Client(port, to_serve.images[i]) for i in range(4)]
        for client in clients:
            client.start()
        while min(len(client.statuses) for client in clients) < 3 and all(c.is_alive() for c in clients):
            clients[0].join(0.01)
        process.send_signal(signal.SIGTERM)
        for client in clients:
            client.join(30)
        half.send(to_serve.images[0][50:])
        answer = half.getresponse()
        assert (answer.status, answer.getheader("Connection")) == (200, "close")
        assert json.loads(answer.read())["verdicts"][0]["error"] is None
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert [client.error for client in clients] == [None] * 4
    assert {status for client in clients for status in client.statuses} == {200}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    answered = [line for line in lines if line["message"] == "request"]
    assert len(answered) == 1 + sum(len(client.statuses) for client in clients)
    assert [line["message"] for line in lines if line["message"] != "request"] == ["listening", "leaving", "left"]
