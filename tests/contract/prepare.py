"""Puts workflows, tags and runs into a node, and prints a configuration that lets requests hit them."""

import json
import sys
import urllib.request

BASE = sys.argv[1]


def ask(method, path, body=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    kind = {"Content-Type": "application/json"} if data else {}
    request = urllib.request.Request(BASE + path, data, {**kind, **(headers or {})}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


GREET = {
    "name": "greet",
    "version": "1",
    "nodes": {"a": {"type": "function", "with": {"expr": "1"}}},
}
HOLD = {"name": "hold", "version": "1", "nodes": {"w": {"type": "wait", "with": {"signal": "go"}}}}
WORK = {"name": "work", "version": "1", "nodes": {"t": {"type": "task", "with": {"queue": "mail", "payload": {}}}}}

for document in (GREET, HOLD, WORK):
    ask("POST", "/v1/workflows", document)
ask("PUT", "/v1/workflows/greet/tags/live", {"version": "1"})
ask("POST", "/v1/schedules", {"name": "nightly", "workflow": "greet@1", "cron": "30 2 * * *"})
hook = ask("POST", "/v1/hooks", {"name": "payments", "workflow": "greet@1"})["id"]
ended = ask("POST", "/v1/runs", {"workflow": "greet"}, {"Prefer": "wait=10"})["run_id"]
waiting = [ask("POST", "/v1/runs", {"workflow": "hold", "run_key": f"order-{n}"})["run_id"] for n in range(12)]
executed = ask("POST", "/workflows/execute", {"workflow_name": "hold"})["execution_id"]
for _ in range(4):
    ask("POST", "/v1/runs", {"workflow": "work"})
jobs = ask("POST", "/v1/workers/poll", {"queues": ["mail"], "max": 2, "wait_ms": 5000})["jobs"]
leases = [job["lease"] for job in jobs]


def listed(values):
    return "[" + ", ".join(json.dumps(value) for value in values) + "]"


print(f"""
[dictionaries.runs]
values = {listed([ended, *waiting])}
[dictionaries.executions]
values = {listed([executed, ended, *waiting[:2]])}
[dictionaries.names]
values = ["greet", "hold", "work"]
[dictionaries.versions]
values = ["1", "live"]
[dictionaries.tags]
values = ["live", "canary"]
[dictionaries.signals]
values = ["go", "other"]
[dictionaries.schedules]
values = ["nightly", "other"]
[dictionaries.hooks]
values = {listed([hook])}
[dictionaries.leases]
values = {listed(leases)}

[parameters]
"path.run_id" = {{ dictionary = "runs", probability = 0.8 }}
"path.execution_id" = {{ dictionary = "executions", probability = 0.8 }}
"path.name" = {{ dictionary = "names", probability = 0.7 }}
"path.version" = {{ dictionary = "versions", probability = 0.7 }}
"path.tag" = {{ dictionary = "tags", probability = 0.7 }}
"path.signal" = {{ dictionary = "signals", probability = 0.7 }}
"path.schedule" = {{ dictionary = "schedules", probability = 0.7 }}
"path.hook" = {{ dictionary = "hooks", probability = 0.7 }}
"path.lease" = {{ dictionary = "leases", probability = 0.5 }}
# Nobody waits here for runs that nobody ends.
"header.Prefer" = "wait=0"

[checks]
# What is well formed may still be about something that is not there, not in that state, or no workflow: the description
# cannot say what the compiler knows.
positive_data_acceptance.expected-statuses = ["2xx", "304", "401", "403", "404", "409", "412", "422"]

# A stream of a run that goes on does not end, and one is not gone on with at an event of another run.
[[operations]]
include-operation-id = "streamEvents"
parameters = {{ "path.run_id" = "{ended}", "header.Last-Event-ID" = "{ended}:1" }}

# A feed does not end; tests/node/streams.rs reads it.
[[operations]]
include-operation-id = "streamManyEvents"
enabled = false
""")
