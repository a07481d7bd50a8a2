// Follows a run of an aob node in a browser (docs/formats/stream.md): over WebTransport, or WebSocket, or server-sent events,
// whatever works first; taken up again from where it was when a connection breaks.
//
// /v1 is asked at the page's own address, and so are server-sent events. `?node=http://HOST:PORT` says where the node itself is, which
// WebTransport and WebSocket go to; that page's origin must be among the node's `http.origins` then.

const LAST = ["run.completed", "run.failed", "run.cancelled"];
const [EVENT, CLOSING, REFUSED, SUBSCRIBE] = [0x01, 0x03, 0x07, 0x10];
const query = new URLSearchParams(location.search);
const node = new URL(query.get("node") ?? location.origin);
const element = (id) => document.getElementById(id);
/** There is no stream, and asking again does not help. */
class Refused extends Error {}

/** A number of RFC 9000, 16, and where the next byte is; undefined when it is not whole. Lengths and `seq` fit a double. */
function varint(bytes, at = 0) {
  const length = 1 << (bytes[at] >> 6);
  if (at >= bytes.length || at + length > bytes.length) return undefined;
  let number = bytes[at] & 0x3f;
  for (let next = at + 1; next < at + length; next += 1) number = number * 256 + bytes[next];
  return [number, at + length];
}

/** Frames of a stream of bytes: type and body. */
async function* frames(readable) {
  const reader = readable.getReader();
  let held = new Uint8Array(0);
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const joined = new Uint8Array(held.length + value.length);
      joined.set(held);
      joined.set(value, held.length);
      held = joined;
      for (let head = varint(held); head && held.length >= head[0] + head[1]; head = varint(held)) {
        const [length, start] = head;
        if (length < 1) throw new Error("a frame of no byte");
        yield [held[start], held.subarray(start + 1, start + length)];
        held = held.slice(start + length);
      }
      if (held.length > (16 << 20) + 80) throw new Error("a frame that is too long");
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function* webTransport(run, after, token) {
  if (!("WebTransport" in window)) throw new Error("the browser has no WebTransport");
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const about = await (await fetch("/v1/node", { headers })).json();
  const hash = about.quic?.certificate_sha256;
  const port = about.quic?.address?.split(":").at(-1) ?? node.port;
  // A node without a certificate of its own shows one that it made; the browser takes it by its hash.
  const known = hash && [{ algorithm: "sha-256", value: Uint8Array.from(hash.match(/../g), (pair) => parseInt(pair, 16)) }];
  const path = token ? `/v1/stream?access_token=${encodeURIComponent(token)}` : "/v1/stream";
  const session = new WebTransport(`https://${node.hostname}:${port}${path}`, known ? { serverCertificateHashes: known } : {});
  session.closed.catch(() => {});
  try {
    await session.ready;
    const stream = await session.createBidirectionalStream();
    const body = new TextEncoder().encode(JSON.stringify({ version: 1, path: `/v1/runs/${run}/events?after=${after}`, headers }));
    const wish = new Uint8Array(body.length + 5);
    new DataView(wish.buffer).setUint32(0, (body.length + 1) | 0x80000000);
    wish[4] = SUBSCRIBE;
    wish.set(body, 5);
    await stream.writable.getWriter().write(wish);
    for await (const [kind, bytes] of frames(stream.readable)) {
      if (kind === EVENT) {
        const [seq, start] = varint(bytes, 16);
        yield [seq, new TextDecoder().decode(bytes.subarray(start))];
      } else if (kind === REFUSED) {
        const problem = JSON.parse(new TextDecoder().decode(bytes));
        throw problem.retryable ? new Error(problem.detail) : new Refused(problem.detail);
      } else if (kind === CLOSING) {
        return;
      }
    }
  } finally {
    session.close();
  }
}

/** Makes a generator of what `begin` pushes; `begin` gives what ends it. */
async function* pushed(begin) {
  const waiting = [];
  let wake = () => {};
  const push = (item) => (waiting.push(item), wake());
  const end = begin(push);
  try {
    for (;;) {
      while (waiting.length) {
        const item = waiting.shift();
        if (item === null) return;
        if (item instanceof Error) throw item;
        yield item;
      }
      await new Promise((resolve) => (wake = resolve));
    }
  } finally {
    end();
  }
}

const numbered = (id, data) => [Number(id.split(":").at(-1)), data];

function webSocket(run, after, token) {
  return pushed((push) => {
    const url = `${node.protocol === "https:" ? "wss" : "ws"}://${node.host}/v1/runs/${run}/events?after=${after}`;
    const socket = new WebSocket(url, token ? ["aob.v1", `bearer.${token}`] : ["aob.v1"]);
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      // The text of `data` as it came is what is between its name and the last brace.
      if (message.id) push(numbered(message.id, data.slice(data.indexOf('"data":') + 7, -1)));
    };
    socket.onerror = () => push(new Error("the WebSocket failed"));
    socket.onclose = () => push(null);
    return () => socket.close();
  });
}

function serverSentEvents(run, after, token) {
  // EventSource sends no header, so a token goes with fetch, which reads the same bytes.
  return pushed((push) => {
    const abort = new AbortController();
    const headers = { accept: "text/event-stream", ...(token && { authorization: `Bearer ${token}` }) };
    (async () => {
      const answer = await fetch(`/v1/runs/${run}/events?after=${after}`, { headers, signal: abort.signal });
      if (!answer.ok) throw new (answer.status < 429 ? Refused : Error)(await answer.text());
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let held = "", piece = await reader.read(); !piece.done; piece = await reader.read()) {
        const parts = (held + piece.value).split("\n\n");
        held = parts.pop();
        for (const part of parts) {
          const field = (name) => part.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
          if (field("id")) push(numbered(field("id"), field("data")));
        }
      }
      push(null);
    })().catch(push);
    return () => abort.abort();
  });
}

const TRANSPORTS = { webtransport: webTransport, websocket: webSocket, sse: serverSentEvents };

async function follow(run, token, only) {
  let open = only ? [only] : Object.keys(TRANSPORTS);
  let cursor = 0;
  for (let failures = 0; failures < 10; ) {
    const name = open[0];
    try {
      for await (const [seq, data] of TRANSPORTS[name](encodeURIComponent(run), cursor, token)) {
        if (seq !== cursor + 1) throw new Error(`event ${seq} came after ${cursor}`);
        cursor = seq;
        failures = 0;
        // This one works: it is the one that is come back to.
        open = [name];
        element("over").textContent = name;
        element("state").textContent = "following";
        const line = document.createElement("li");
        line.textContent = data;
        element("events").append(line);
        if (LAST.includes(JSON.parse(data).type)) {
          element("state").textContent = "ended";
          return;
        }
      }
      failures += 1;
    } catch (error) {
      element("state").textContent = `${name}: ${error.message}`;
      if (error instanceof Refused) return;
      if (open.length > 1) {
        open = open.slice(1);
        continue;
      }
      failures += 1;
    }
    await new Promise((resolve) => setTimeout(resolve, Math.min(250 * 2 ** failures, 8000)));
  }
}

element("run").value = query.get("run") ?? "";
element("transport").value = query.get("transport") ?? "";
element("form").onsubmit = (submit) => {
  submit.preventDefault();
  element("events").replaceChildren();
  follow(element("run").value, element("token").value, element("transport").value);
};
if (query.has("run")) element("form").requestSubmit();
