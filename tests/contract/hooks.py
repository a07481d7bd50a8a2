"""What is changed of the requests that schemathesis makes."""

import schemathesis

POLL_WAIT_MILLIS = 20


@schemathesis.hook
def map_body(context, body):
    """A poll that may wait a minute for a job does, and is no better a test for it."""
    if isinstance(body, dict):
        wait = body.get("wait_ms")
        if isinstance(wait, (int, float)) and not isinstance(wait, bool) and wait > POLL_WAIT_MILLIS:
            body = {**body, "wait_ms": POLL_WAIT_MILLIS}
    return body
