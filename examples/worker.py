#!/usr/bin/env python3
"""A worker: takes jobs of `task` nodes from a node, works on them, and says how each ended (docs/workers.md).

`examples/worker.py --queue thumbnails` beside `aobd dev` works for examples/kinds/task.yaml. Standard library only.
SIGTERM or Ctrl-C: the job at hand is finished and told, then it ends.
"""
import argparse
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request

TROUBLE = (OSError, http.client.HTTPException)  # Nobody is there, the connection broke, or the node says no.
POLL_SECONDS = 2  # It is also the longest that an idle worker takes to stop: a poll that is cut off may lose a job.


class Refused(Exception):  # What a handler raises when a job cannot be done; `retryable` asks for another attempt.
    def __init__(self, code, message, retryable=False):
        super().__init__(message)
        self.error = {"code": code, "message": message, "retryable": retryable}


def thumbnails(job, lost):
    if job["input"].get("width", 0) <= 0:
        raise Refused("bad_input", "a thumbnail has a width above 0")
    # What this would write is named by the job's key: a second attempt writes the same file again, not another one.
    return {"path": f"thumbnails/{job['idempotency_key']}-{job['input']['width']}.png"}


def naps(job, lost):
    # Work that takes longer than a lease: `lost` is set when the run was cancelled or another worker has the job.
    if lost.wait(job["input"]["ms"] / 1000):
        raise Refused("given_up", "the job is no longer wanted")
    return {"slept_ms": job["input"]["ms"]}


HANDLERS = {"thumbnails": thumbnails, "naps": naps}


class Worker:
    def __init__(self, url, token, queues):
        self.url, self.queues = url.rstrip("/"), queues
        self.headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self.stopping = threading.Event()

    def post(self, verb, body, timeout=10):
        request = urllib.request.Request(f"{self.url}/v1/workers/{verb}", json.dumps(body).encode(), self.headers)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)

    def run(self):
        while not self.stopping.is_set():
            poll = {"queues": self.queues, "max": 1, "wait_ms": POLL_SECONDS * 1000, "worker": self.name}
            try:
                jobs = self.post("poll", poll, POLL_SECONDS + 10)["jobs"]
            except TROUBLE as error:
                if isinstance(error, urllib.error.HTTPError) and error.code not in (429, 503):
                    sys.exit(f"worker: {error}: {error.read().decode(errors='replace')}")
                self.stopping.wait(1)
                continue
            for job in jobs:
                self.work(job)

    def work(self, job):
        lost, done = threading.Event(), threading.Event()
        beats = threading.Thread(target=self.beat, args=(job, lost, done))
        beats.start()
        try:
            self.tell("complete", {"lease": job["lease"], "output": HANDLERS[job["queue"]](job, lost)})
        except Refused as refused:
            self.tell("fail", {"lease": job["lease"], "error": refused.error})
        except Exception as error:  # A fault of a handler is told; it does not end the worker.
            told = {"code": "worker_fault", "message": repr(error), "retryable": False}
            self.tell("fail", {"lease": job["lease"], "error": told})
        done.set()
        beats.join()

    def tell(self, verb, body):
        # A node that is just restarting still wants to know; telling it twice does nothing twice.
        for pause in (0.2, 1, 3, 9, None):
            try:
                said = self.post(verb, body)["results"][0]
                if not said.get("retryable"):
                    return print(f"worker: {verb}: {said['status']}", flush=True)
            except TROUBLE as error:
                said = error
            if pause is None:  # The lease runs out, and the job goes to another worker.
                return print(f"worker: {verb} was not heard: {said}", flush=True)
            time.sleep(pause)

    def beat(self, job, lost, done):
        while not done.wait(job["lease_seconds"] / 3):
            try:
                if self.post("heartbeat", {"leases": [job["lease"]]})["leases"][0]["state"] != "held":
                    lost.set()
            except TROUBLE:
                continue  # The next one may arrive.


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--url", default="http://127.0.0.1:7400")
    options.add_argument("--token", default=os.environ.get("AOB_TOKEN"))
    options.add_argument("--queue", action="append", required=True, choices=sorted(HANDLERS))
    given = options.parse_args()
    worker = Worker(given.url, given.token, given.queue)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stopping.set())
    print(f"worker: {worker.name} asks {worker.url} for {', '.join(worker.queues)}", flush=True)
    worker.run()

main()
