"""Role speed_score takes over what a cloud_benchmarker measured, and measures by itself where that cannot be (D-7)."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

ROWS = [
    {"hostname": "other", "overall_score": 99.0},
    {"hostname": "css", "overall_score": 87.5, "cpu_score": 90, "memory_score": 80, "disk_io_score": 70},
    {"hostname": "203.0.113.30", "overall_score": 69},
    {"hostname": "fmd.example", "overall_score": 65.25},
    {"hostname": "text", "overall_score": "72"},
    {"hostname": "far", "overall_score": 172.0},
    {"hostname": "none"},
    "no row",
]

PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: speed_score, tasks_from: configure.yml}
      vars: {speed_score_source_url: "http://127.0.0.1:PORT/"}
    - ansible.builtin.debug: {msg: "{{ inventory_hostname }} has {{ __speed_score_given | default('nothing', true) }}"}
- hosts: css
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: speed_score, tasks_from: configure.yml}
      vars: {speed_score_source_url: "{{ item }}"}
      loop: ["http://127.0.0.1:PORT/odd", "http://127.0.0.1:PORT/broken", "http://127.0.0.1:PORT/none", "http://127.0.0.1:1"]
"""

HOSTS = """\
[all]
css
yto ansible_host=203.0.113.30
fmd rch_worker_facts='{"hostname": "fmd.example"}'
text
far
none
new

[all:vars]
ansible_connection=local
"""


@pytest.fixture
def benchmarker():
    """Its port, and the paths that it was asked for."""
    asked = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            bodies = {
                "/data/overall/": json.dumps(ROWS),
                "/odd/data/overall/": json.dumps({"css": 87}),
                "/broken/data/overall/": "<html>",
            }
            body = bodies.get(self.path)
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write((body or "{}").encode())

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def test_a_score_is_taken_by_any_name_of_the_worker_and_all_else_is_a_warning(run, tmp_path, benchmarker):
    port, asked = benchmarker
    (tmp_path / "play.yml").write_text(PLAYBOOK.replace("PORT", str(port)))
    (tmp_path / "hosts").write_text(HOSTS)
    done = run(tmp_path / "play.yml", "--inventory", str(tmp_path / "hosts"))
    assert done.returncode == 0, done.stdout
    given = dict(re.findall(r"msg: (\w+) has (\S+)", done.stdout))
    assert given == {
        "css": "87.5", "yto": "69", "fmd": "65.25", "text": "nothing", "far": "nothing", "none": "nothing", "new": "nothing",
    }  # fmt: skip
    assert asked[0] == "/data/overall/", "once for all workers, without a double slash"
    assert asked.count("/data/overall/") == 1
    warnings = [text for text in done.messages if text.startswith("WARNING ")]
    unknown = f"http://127.0.0.1:{port}/ has no score from 0 to 100 of it (status 200); it is measured instead"
    assert {text for text in warnings if unknown in text} == {
        f"WARNING {name}: {unknown}" for name in ("text", "far", "none", "new")
    }
    for place, why in (("odd", "status 200"), ("broken", "status 200"), ("none", "status 404")):
        assert [text for text in warnings if f"/{place} has no score from 0 to 100 of it ({why}" in text], place
    assert [text for text in warnings if "127.0.0.1:1 has no score" in text and "refused" in text]
