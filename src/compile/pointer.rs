//! JSON Pointers (RFC 6901): made while reading, resolved to a line and a column for findings.

/// `parent` and one more step, escaped.
pub(super) fn join(parent: &str, step: &str) -> String {
    let mut pointer = String::with_capacity(parent.len() + step.len() + 1);
    pointer.push_str(parent);
    push(&mut pointer, step);
    pointer
}

/// Appends one step, escaped.
pub(super) fn push(pointer: &mut String, step: &str) {
    pointer.push('/');
    for letter in step.chars() {
        match letter {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

/// `parent` and an index.
pub(super) fn index(parent: &str, index: usize) -> String {
    format!("{parent}/{index}")
}

/// The pointer to what holds this; `None` for the whole document.
pub(super) fn parent(pointer: &str) -> Option<&str> {
    pointer.rfind('/').and_then(|slash| pointer.get(..slash))
}

/// A step of a pointer as it was before it was escaped (RFC 6901).
pub(super) fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}
