"""Follows runs with examples/quic_client.py, cut off again and again, and compares what it prints with what the node says over HTTP.

    check.py URL SEQUENCES SEED

Several runs go on at a time, each with a reader that breaks its connection after a number of events drawn anew for each.
"""

import concurrent.futures
import json
import pathlib
import random
import subprocess
import sys
import urllib.request

CLIENT = pathlib.Path(__file__).parents[2] / "examples" / "quic_client.py"
AT_ONCE = 4
NODES = 40


def call(url, path, body=None):
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url + path, data=data, headers={"content-type": "application/json"})
    return urllib.request.urlopen(request, timeout=60)


def rows(url, run):
    """The data of every event, over server-sent events in one piece."""
    with call(url, f"/v1/runs/{run}/events") as stream:
        return [line[6:].rstrip(b"\n") for line in stream if line.startswith(b"data: ")]


def sequence(url, cut):
    with call(url, "/v1/runs", {"workflow": "streamed"}) as answer:
        run = json.load(answer)["run_id"]
    command = [sys.executable, CLIENT, "--url", url, "--cut-every", str(cut), run]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    said, wanted = done.stdout.splitlines(), rows(url, run)
    numbers = [json.loads(row)["seq"] for row in said]
    if done.returncode == 0 and said == wanted and numbers == list(range(1, len(wanted) + 1)) and len(wanted) > NODES:
        return None
    why = done.stderr.decode(errors="replace")[-400:]
    return f"{run}, cut every {cut}: {len(said)} of {len(wanted)} events, exit code {done.returncode}; {why}"


def main(url, sequences, seed):
    delay = {"type": "delay", "with": {"for": "20ms"}}
    nodes = {f"d{at}": delay for at in range(NODES)}
    edges = [{"from": f"d{at - 1}", "to": f"d{at}"} for at in range(1, NODES)]
    call(url, "/v1/workflows", {"aob": "1", "name": "streamed", "nodes": nodes, "edges": edges}).close()
    draw = random.Random(seed)
    cuts = [draw.randint(1, 60) for _ in range(sequences)]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [why for why in pool.map(lambda cut: sequence(url, cut), cuts) if why]
    for why in wrong:
        print(why)
    print(f"test result: {'FAILED' if wrong else 'ok'}. {sequences - len(wrong)} passed; {len(wrong)} failed; seed {seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
