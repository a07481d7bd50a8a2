//! What keys of well-known services look like, so that one that somebody wrote down is noticed: in a document it is refused,
//! in what is shown of a conversation it is left out.

/// How they begin, and the fewest letters that follow.
const KEYS: [(&str, usize); 14] = [
    ("sk-", 20),
    ("sk_live_", 16),
    ("rk_live_", 16),
    ("ghp_", 30),
    ("gho_", 30),
    ("ghs_", 30),
    ("github_pat_", 30),
    ("glpat-", 18),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("AKIA", 16),
    ("AIza", 30),
    ("whsec_", 20),
    ("-----BEGIN ", 10),
];

/// Where a key stands in a text: from, to. The first by its kind, not by its place.
pub fn find(text: &str) -> Option<(usize, usize)> {
    KEYS.iter().find_map(|(begin, least)| {
        text.match_indices(begin).find_map(|(at, _)| {
            // In the middle of a word it is a part of something else.
            let before = text.get(..at).and_then(|before| before.chars().next_back());
            let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            let block = begin.ends_with(' ');
            let rest = text.get(at + begin.len()..).unwrap_or_default();
            let key = before.is_none_or(|c| !c.is_ascii_alphanumeric())
                && rest.chars().take_while(|c| fits(c) || (block && *c == ' ')).count() >= *least;
            let end = match block {
                // The block is the key, whatever follows its end.
                true => rest.rfind("-----").map_or(rest.len(), |end| end + 5),
                false => rest.find(|c| !fits(&c)).unwrap_or(rest.len()),
            };
            key.then(|| (at, at + begin.len() + end))
        })
    })
}

/// The text with keys left out. Each pass takes one out, and puts nothing in that looks like one.
pub fn masked(text: &str) -> String {
    let mut masked = text.to_owned();
    while let Some((from, to)) = find(&masked) {
        masked.replace_range(from..to, "[redacted]");
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_how_they_begin() {
        for key in [
            "sk-proj-abcdefghijklmnopqrstuvwx",
            "Bearer ghp_0123456789abcdefghijklmnopqrstuvwxyz",
            "AKIAIOSFODNN7EXAMPLE",
            "-----BEGIN RSA PRIVATE KEY-----",
        ] {
            assert!(find(key).is_some(), "{key}");
        }
        for plain in
            ["sk-short", "task-0123456789abcdefghijklmnop", "a risk-free-and-longer-than-twenty", "AKIA"]
        {
            assert_eq!(find(plain), None, "{plain}");
        }
    }

    // F412
    #[test]
    fn keys_are_left_out_and_the_rest_stands() {
        let text = "use sk-proj-abcdefghijklmnopqrstuvwx, then AKIAIOSFODNN7EXAMPLE.";
        assert_eq!(masked(text), "use [redacted], then [redacted].");
        let block = "a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b";
        assert_eq!(masked(block), "a [redacted] b");
        assert_eq!(masked("nothing here"), "nothing here");
    }
}
