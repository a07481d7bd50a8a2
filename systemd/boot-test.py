"""What systemd/boot-test looks at, inside of the system that it boots. Every step says what it saw; the last line is `everything held`.

Runs as root beside the installed aobd.service and aobd.socket. Uses nothing but Python's own library: there is no network to fetch from.
"""

import ctypes
import http.client
import json
import os
import subprocess
import threading
import time

ADDRESS = ("127.0.0.1", 7400)
STOP_SECONDS_MAX = 80
PTRACE_SEIZE, PTRACE_INTERRUPT, WAIT_ALL = 0x4206, 0x4207, 0x40000000
FLOW = {
    "name": "chain",
    "nodes": {
        "first": {"type": "function", "with": {"expr": "inputs.n + 1"}},
        "later": {"type": "delay", "with": {"for": "2s"}},
        "last": {"type": "function", "with": {"expr": "nodes.first.output + 1"}},
    },
    "edges": [{"from": "first", "to": "later"}, {"from": "later", "to": "last"}],
    "outputs": {"n": "${ nodes.last.output }"},
}
LONG = {"name": "long", "nodes": {"stay": {"type": "delay", "with": {"for": "1h"}}}}


def say(text):
    print(f"{time.monotonic():8.2f}  {text}", flush=True)


def systemctl(*arguments):
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"systemctl {arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def show(name):
    return systemctl("show", "--value", "--property", name, "aobd.service").strip()


def ask(method, path, body=None, headers=None, connection=None):
    """The answer: its status and its JSON."""
    connection = connection or http.client.HTTPConnection(*ADDRESS, timeout=60)
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text, {"content-type": "application/json", **(headers or {})})
    answer = connection.getresponse()
    read = answer.read()
    return answer.status, json.loads(read) if read.startswith((b"{", b"[")) else None


def until(what, happens, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if happens():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


class Load(threading.Thread):
    """Starts runs one after the other, each under its key until it is acknowledged, and counts who is refused."""

    def __init__(self):
        super().__init__(daemon=True)
        self.acknowledged, self.refused, self.broken, self.number, self.goes_on = {}, 0, 0, 0, True

    def run(self):
        connection = None
        while self.goes_on:
            try:
                connection = connection or http.client.HTTPConnection(*ADDRESS, timeout=60)
                body = {"workflow": "chain", "inputs": {"n": self.number}}
                status, run = ask("POST", "/v1/runs", body, {"idempotency-key": f"k{self.number}"}, connection)
                if status in (200, 202):
                    self.acknowledged[run["run_id"]] = self.number
                    self.number += 1
                else:
                    assert status in (429, 503, 504), f"{status} {run}"
            except ConnectionRefusedError:
                self.refused += 1
                connection = None
            except (OSError, http.client.HTTPException):
                self.broken += 1
                connection = None
            time.sleep(0.01)

    def wait_for(self, more):
        number = self.number + more
        until(f"{more} runs more", lambda: self.number >= number, 60)


def gets_ready():
    systemctl("start", "aobd.service")
    status = show("StatusText")
    assert show("ActiveState") == "active" and status.startswith("serves at "), status
    assert ask("GET", "/readyz")[0] == 200
    assert ask("POST", "/v1/workflows", FLOW)[0] == 201
    assert ask("POST", "/v1/workflows", LONG)[0] == 201
    memory = open(f"/proc/{show('MainPID')}/status", encoding="ascii").read()
    facts = dict(line.split(":\t", 1) for line in memory.splitlines() if ":\t" in line)
    assert facts["Seccomp"] == "2" and int(facts["CapEff"], 16) == 0 and facts["NoNewPrivs"] == "1", facts
    node = ask("GET", "/v1/node")[1]
    drivers = {key: node[key] for key in node if key in ("driver", "phase", "durability")}
    say(f"ready: {status}; {drivers}; no capabilities, seccomp, uid {facts['Uid'].split()[0]}")


def reloads():
    pid = show("MainPID")
    kept = http.client.HTTPConnection(*ADDRESS, timeout=60)
    assert ask("GET", "/readyz", connection=kept)[0] == 200
    port = kept.sock.getsockname()[1]
    run = ask("POST", "/v1/runs", {"workflow": "long", "inputs": {}})[1]["run_id"]
    stream = http.client.HTTPConnection(*ADDRESS, timeout=60)
    stream.request("GET", f"/v1/runs/{run}/events", headers={"accept": "text/event-stream"})
    events = stream.getresponse()
    assert events.status == 200 and events.readline()
    systemctl("reload", "aobd.service")
    until("the reload is told", lambda: "reloaded" in show("StatusText"), 10)
    assert ask("GET", "/readyz", connection=kept)[0] == 200 and kept.sock.getsockname()[1] == port
    # The stream is the same one, too: what happens to the run after the reload comes by it.
    assert ask("POST", f"/v1/runs/{run}/cancel", {"reason": "enough"})[0] in (200, 202)
    text = events.read().decode()
    assert "cancel" in text, text
    assert show("MainPID") == pid and show("NRestarts") == "0"
    say(f"reload: the same process, connection and stream; {show('StatusText')}")


def is_started_again(load):
    pid, refused = show("MainPID"), load.refused
    for _ in range(3):
        load.wait_for(20)
        begun = time.monotonic()
        systemctl("restart", "aobd.service")
        say(f"restart: {time.monotonic() - begun:.2f} s")
    load.wait_for(20)
    assert show("MainPID") != pid and load.refused == refused, f"{load.refused} refused"
    say(f"restart: none of {load.number} refused, {load.broken} connections ended with their node")


def stop_thread(pid, name):
    """Has one thread of the process stand still until that ends; done by a thread, which has to stay for it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    tasks = os.listdir(f"/proc/{pid}/task")
    names = {task: open(f"/proc/{pid}/task/{task}/comm", encoding="ascii").read().strip() for task in tasks}
    found = [task for task in tasks if names[task].startswith(name)]
    assert found, sorted(names.values())
    thread = int(found[0])
    stopped = threading.Event()

    def hold():
        for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
            assert libc.ptrace(request, thread, None, None) == 0, os.strerror(ctypes.get_errno())
        os.waitpid(thread, WAIT_ALL)
        stopped.set()
        # Until it is gone: the process is not, before that is known.
        os.waitpid(thread, WAIT_ALL)

    threading.Thread(target=hold, daemon=True).start()
    assert stopped.wait(10), "the thread goes on"


def is_watched(load, name):
    pid, restarts = show("MainPID"), int(show("NRestarts"))
    load.wait_for(20)
    stop_thread(pid, name)
    begun = time.monotonic()
    until("the watchdog ends it", lambda: show("MainPID") not in (pid, "0"), 90)
    until("it serves again", lambda: show("ActiveState") == "active", 60)
    took = time.monotonic() - begun
    assert int(show("NRestarts")) == restarts + 1
    journal = subprocess.run(["journalctl", "-u", "aobd", "--no-pager"], capture_output=True, text=True, check=True)
    assert "Watchdog timeout" in journal.stdout, journal.stdout[-3000:]
    load.wait_for(20)
    say(f"watchdog: {name} stood still, a new process serves after {took:.1f} s")


def stops(load):
    load.wait_for(20)
    load.goes_on = False
    load.join()
    begun = time.monotonic()
    # With the socket, or the next connection would start it again.
    systemctl("stop", "aobd.socket", "aobd.service")
    took = time.monotonic() - begun
    assert took < STOP_SECONDS_MAX and show("Result") == "success", f"{took} {show('Result')}"
    assert show("ActiveState") == "inactive"
    say(f"stop: {took:.2f} s, result {show('Result')}")


def has_lost_nothing(load):
    systemctl("start", "aobd.socket", "aobd.service")

    def outcome(run):
        status, row = ask("GET", f"/v1/runs/{run}")
        assert status == 200, f"{run}: {status}"
        return row["status"], row.get("outputs")

    for run, number in load.acknowledged.items():
        until(f"{run} ends", lambda run=run: outcome(run)[0] not in ("running", "pending"), 60)
        ended = outcome(run)
        assert ended == ("completed", {"n": number + 2}), f"{run}: {ended}"
    assert len(set(load.acknowledged.values())) == len(load.acknowledged), "two runs for one key"
    say(f"all of {len(load.acknowledged)} acknowledged runs are there, once, with the right outputs")


def main():
    say(open("/proc/1/comm", encoding="ascii").read().strip() + ": " + systemctl("--version").splitlines()[0])
    gets_ready()
    reloads()
    load = Load()
    load.start()
    is_started_again(load)
    is_watched(load, "aob-runner-0")
    is_watched(load, "aob-control-0")
    stops(load)
    has_lost_nothing(load)
    print("everything held")


main()
