//! HTTP/1.1 by hand, as little as load needs: requests from a template, replies by their head.
//!
//! A reply's head must fit [`HEAD_BYTES_MAX`], a body [`BODY_BYTES_MAX`]; over that, or malformed, it is an [`Error`]
//! and the connection is given up.

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::options::Mode;

/// Bytes of a reply's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes of a reply's body.
const BODY_BYTES_MAX: usize = 16 << 20;

/// A request that is sent again and again with another number in its body.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Where the number's digits stand.
    digits: usize,
}

/// Digits of the number: it never begins with a zero, so the length never changes.
const DIGITS: usize = 7;
const NUMBER_MIN: u64 = 1_000_000;
const NUMBERS: u64 = 9_000_000;

impl Template {
    /// `POST /v1/runs` for a workflow, in a mode when not the document's; `prefer` is the value of that header.
    pub(crate) fn start(host: &str, (workflow, mode): (&str, Option<Mode>), prefer: Option<&str>) -> Self {
        let mode = mode.map(|mode| format!(r#""mode":"{}","#, mode.as_str())).unwrap_or_default();
        let body = format!(r#"{{{mode}"workflow":"{workflow}","inputs":{{"n":{NUMBER_MIN}}}}}"#);
        let prefer = prefer.map(|value| format!("prefer: {value}\r\n")).unwrap_or_default();
        let bytes = request("POST", "/v1/runs", host, &prefer, body.as_bytes());
        let digits = bytes.len() - DIGITS - 2;
        Self { bytes, digits }
    }

    /// The bytes with the `index`-th number.
    pub(crate) fn with(&mut self, index: u64) -> &[u8] {
        let mut number = NUMBER_MIN + index % NUMBERS;
        if let Some(digits) = self.bytes.get_mut(self.digits..self.digits + DIGITS) {
            for digit in digits.iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        &self.bytes
    }
}

/// A whole request with a JSON body (or none).
pub(crate) fn request(method: &str, path: &str, host: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{headers}").into_bytes();
    if !body.is_empty() {
        bytes.extend(format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()).bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

/// Why a reply could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the connection was closed in a reply")]
    Closed,
    #[error("not an HTTP/1.1 reply: {0}")]
    Malformed(&'static str),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// What the head of a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) body: Framing,
    /// The server closes after this reply.
    pub(crate) close: bool,
    /// Bytes of the head.
    pub(crate) len: usize,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// Reads a head from the beginning of `bytes`; `None`: not all of it is there.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Error> {
    let Some(len) = find(bytes, b"\r\n\r\n").map(|at| at + 4) else {
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(Error::Malformed("the head is too long"));
        }
        return Ok(None);
    };
    let mut lines = bytes.get(..len - 4).unwrap_or_default().split(|byte| *byte == b'\n');
    let status = lines.next().and_then(status).ok_or(Error::Malformed("no status line"))?;
    let mut head = Head { status, body: Framing::UntilClose, close: false, len };
    for line in lines {
        let colon =
            line.iter().position(|byte| *byte == b':').ok_or(Error::Malformed("a header without colon"))?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|text| text.parse::<usize>().ok());
            head.body = match length {
                Some(length) if length <= BODY_BYTES_MAX => Framing::Length(length),
                _ => return Err(Error::Malformed("content-length")),
            };
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") && value.eq_ignore_ascii_case(b"chunked") {
            head.body = Framing::Chunked;
        } else if name.eq_ignore_ascii_case(b"connection") && value.eq_ignore_ascii_case(b"close") {
            head.close = true;
        }
    }
    if matches!(status, 204 | 304) {
        head.body = Framing::Length(0);
    }
    Ok(Some(head))
}

fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.1 ")?;
    let digits = rest.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Reads one reply; its body is left in `buffer` from `head.len` on, with nothing after it.
pub(crate) async fn read_reply(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Result<Head, Error> {
    buffer.clear();
    let head = loop {
        if let Some(head) = parse_head(buffer)? {
            break head;
        }
        more(stream, buffer).await?;
    };
    match head.body {
        Framing::Length(length) => {
            while buffer.len() < head.len + length {
                more(stream, buffer).await?;
            }
            if buffer.len() > head.len + length {
                return Err(Error::Malformed("bytes after the body"));
            }
        }
        Framing::Chunked => {
            let body = loop {
                if let Some(body) = dechunk(buffer.get(head.len..).unwrap_or_default())? {
                    break body;
                }
                more(stream, buffer).await?;
            };
            buffer.truncate(head.len);
            buffer.extend(body);
        }
        Framing::UntilClose => loop {
            match more(stream, buffer).await {
                Ok(()) => {}
                Err(Error::Closed) => break,
                Err(error) => return Err(error),
            }
        },
    }
    Ok(head)
}

async fn more(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Result<(), Error> {
    if buffer.len() > HEAD_BYTES_MAX + BODY_BYTES_MAX {
        return Err(Error::Malformed("the body is too long"));
    }
    match stream.read_buf(buffer).await? {
        0 => Err(Error::Closed),
        _ => Ok(()),
    }
}

/// The body behind the chunks; `None`: not all of it is there.
fn dechunk(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let mut body = Vec::new();
    loop {
        let Some(line) = find(bytes, b"\r\n") else { return Ok(None) };
        let (size, rest) = bytes.split_at(line);
        let size = size.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let size = std::str::from_utf8(size).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.filter(|size| *size <= BODY_BYTES_MAX).ok_or(Error::Malformed("a chunk's size"))?;
        let rest = rest.get(2..).unwrap_or_default();
        if size == 0 {
            return Ok(find(rest, b"\r\n").map(|_| body));
        }
        let (Some(chunk), Some(next)) = (rest.get(..size), rest.get(size + 2..)) else { return Ok(None) };
        body.extend(chunk);
        bytes = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_changes_its_number_and_nothing_else() {
        let mut template = Template::start("127.0.0.1:1", ("w", None), Some("wait=30"));
        let first = String::from_utf8(template.with(0).to_vec()).unwrap();
        let other = String::from_utf8(template.with(9_000_041).to_vec()).unwrap();
        assert!(first.ends_with("\r\n\r\n{\"workflow\":\"w\",\"inputs\":{\"n\":1000000}}"), "{first}");
        assert!(first.contains("content-length: 39\r\n") && first.contains("prefer: wait=30\r\n"), "{first}");
        assert_eq!(other, first.replace("1000000", "1000041"));
    }

    #[test]
    fn heads_are_parsed_whole_or_not_at_all() {
        let bytes = b"HTTP/1.1 202 Accepted\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{";
        let head = parse_head(bytes).unwrap().unwrap();
        assert_eq!(
            (head.status, head.body, head.close, head.len),
            (202, Framing::Length(12), true, bytes.len() - 1)
        );
        for end in 0..head.len {
            assert!(parse_head(&bytes[..end]).unwrap().is_none(), "{end}");
        }
    }

    #[test]
    fn malformed_heads_are_refused() {
        for text in [
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 20x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nnocolon\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
        ] {
            assert!(parse_head(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse_head(&vec![b'x'; HEAD_BYTES_MAX + 1]).is_err());
    }

    async fn reply(text: &str) -> Result<(u16, String), Error> {
        let mut buffer = Vec::new();
        let head = read_reply(&mut text.as_bytes(), &mut buffer).await?;
        Ok((head.status, String::from_utf8(buffer.split_off(head.len)).unwrap()))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn bodies_are_read_by_length_by_chunks_and_until_the_end() {
        let ok = |body: &str| Ok::<_, ()>((200, body.to_owned()));
        let length = reply("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
        assert_eq!(length.map_err(drop), ok("hello"));
        let chunks = reply(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
        )
        .await;
        assert_eq!(chunks.map_err(drop), ok("hello"));
        assert_eq!(reply("HTTP/1.1 200 OK\r\n\r\nhello").await.map_err(drop), ok("hello"));
        let cut = reply("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello").await;
        assert!(matches!(cut, Err(Error::Closed)), "{cut:?}");
        assert!(reply("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nhello").await.is_err());
    }
}
