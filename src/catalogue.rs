//! What every stable code means: the pages of `docs/errors`, compiled in, and what the seeds' names for errors became.
//!
//! A page is Markdown of one form: a title that is the code, a table of facts, what it means, why, what to do, an
//! example. `tests/tidy` keeps the folder, the table in `pages.rs` and the codes of the source equal, and every page in
//! its form, so that nothing here can fail.

mod pages;

/// One page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The code it is about.
    pub code: &'static str,
    /// The page, as Markdown.
    pub text: &'static str,
}

/// An error as the seeds call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Its name there.
    pub name: &'static str,
    /// Ours.
    pub code: &'static str,
    /// `transient`, `recoverable` or `fatal`.
    pub class: &'static str,
    /// The member of `details` that says more.
    pub member: Option<&'static str>,
}

impl Seed {
    /// May the same call be made again?
    pub fn retryable(&self) -> bool {
        self.class != "fatal"
    }
}

const fn seed(
    name: &'static str,
    code: &'static str,
    class: &'static str,
    member: Option<&'static str>,
) -> Seed {
    Seed { name, code, class, member }
}

/// The seeds' names (FEATURES F375 to F378), and what they are here.
pub const SEEDS: [Seed; 8] = [
    seed("DB_ERROR", "db_error", "recoverable", None),
    seed("VALIDATION_ERROR", "validation_error", "fatal", Some("field")),
    seed("EXTERNAL_SERVICE_ERROR", "external_service_error", "recoverable", Some("service")),
    seed("CIRCUIT_BREAKER_OPEN", "circuit_breaker_open", "recoverable", None),
    seed("TIMEOUT", "timeout", "transient", None),
    seed("RECOVERABLE", "recoverable", "recoverable", None),
    seed("CONTEXT_OVERFLOW", "context_overflow", "recoverable", None),
    seed("API_ERROR", "api_error", "recoverable", Some("status")),
];

/// All pages, in the order of their codes.
pub fn pages() -> &'static [Page] {
    pages::PAGES
}

/// The page about a code, written in any case, with dashes too, or as a seed or a problem's `type` writes it.
pub fn find(written: &str) -> Option<&'static Page> {
    let plain = normal(written);
    let at = pages::PAGES.binary_search_by(|page| page.code.cmp(&plain)).ok()?;
    pages::PAGES.get(at)
}

/// The code that comes nearest to what was written, when one does.
pub fn nearest(written: &str) -> Option<&'static str> {
    const NEAR: f64 = 0.8;
    let plain = normal(written);
    let scored = pages::PAGES.iter().map(|page| (strsim::jaro_winkler(page.code, &plain), page.code));
    let best = scored.filter(|(score, _)| *score >= NEAR).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, code)| code)
}

fn normal(written: &str) -> String {
    written.trim().trim_start_matches("/problems/").to_ascii_lowercase().replace('-', "_")
}

impl Page {
    /// A row of the table of facts.
    pub fn fact(&self, name: &str) -> Option<&'static str> {
        self.facts().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The table of facts.
    pub fn facts(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let rows = self.text.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")?;
            Some((name, value))
        });
        rows.filter(|(name, _)| !matches!(*name, "fact" | "---"))
    }

    /// What it means, in a sentence or two.
    pub fn meaning(&self) -> &'static str {
        self.body().lines().find(|line| !line.is_empty()).unwrap_or_default()
    }

    /// What stands below the facts.
    pub fn body(&self) -> &'static str {
        self.text.rsplit_once(" |\n\n").map_or(self.text, |(_, body)| body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::failure::Class;

    #[test]
    fn the_seeds_names_are_mapped() {
        // F352, F353, F374..F378
        for (name, code, class, retryable, member) in [
            ("DB_ERROR", "db_error", Class::Recoverable, true, None),
            ("VALIDATION_ERROR", "validation_error", Class::Fatal, false, Some("field")),
            ("EXTERNAL_SERVICE_ERROR", "external_service_error", Class::Recoverable, true, Some("service")),
            ("CIRCUIT_BREAKER_OPEN", "circuit_breaker_open", Class::Recoverable, true, None),
            ("TIMEOUT", "timeout", Class::Transient, true, None),
            ("RECOVERABLE", "recoverable", Class::Recoverable, true, None),
            ("CONTEXT_OVERFLOW", "context_overflow", Class::Recoverable, true, None),
            ("API_ERROR", "api_error", Class::Recoverable, true, Some("status")),
        ] {
            let seed = SEEDS.iter().find(|seed| seed.name == name).unwrap();
            assert_eq!((seed.code, seed.retryable(), seed.member), (code, retryable, member), "{name}");
            let page = find(name).unwrap();
            assert_eq!(page.code, code);
            assert_eq!(page.fact("also written"), Some(name));
            assert_eq!(page.fact("class"), Some(seed.class), "{name}");
            assert_eq!(page.fact("retryable"), Some(if retryable { "yes" } else { "no" }), "{name}");
            assert_eq!(serde_json::to_value(class).unwrap(), seed.class, "{name}");
            // A failure that says only this code is classed alike.
            assert_eq!((Class::of(name), Class::of(code)), (class, class), "{name}");
            assert!(member.is_none_or(|member| page.text.contains(&format!("`details.{member}`"))), "{name}");
        }
    }

    #[test]
    fn a_code_is_found_however_it_is_written() {
        for written in ["unknown_key", "UNKNOWN_KEY", "unknown-key", "/problems/unknown-key", " unknown_key "]
        {
            assert_eq!(find(written).map(|page| page.code), Some("unknown_key"), "{written}");
        }
        assert_eq!(find("no_such_code"), None);
        assert_eq!(nearest("unknwon_key"), Some("unknown_key"));
        assert_eq!(nearest("zzz"), None);
    }

    #[test]
    fn a_page_is_taken_apart() {
        let page = find("document_bytes_max").unwrap();
        assert_eq!((page.fact("area"), page.fact("class")), (Some("document"), Some("fatal")));
        assert_eq!(page.fact("limit"), Some("`document_bytes_max`"));
        assert!(page.meaning().starts_with("The document, as written"), "{}", page.meaning());
        assert!(
            pages().iter().all(|page| page.body().starts_with(page.meaning()) && !page.meaning().is_empty())
        );
    }
}
