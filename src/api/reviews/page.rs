//! Pages as text. Whatever a run, a document or a client wrote is escaped here, and characters that change the direction of
//! what stands around them, or cannot be seen, are shown by their number.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::form::{Field, Kind, fields};
use crate::engine::command::TicketView;
use crate::limits;
use crate::model::event::Decision;
use crate::model::workspace::shown;
use crate::model::{Ticket, Value};
use crate::time::Timestamp;
use crate::wire::problem::Problem;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}\
h1{font-size:1.4rem}dt{font-weight:600}dd{margin:0 0 .5rem}pre{background:#f4f4f4;padding:1rem;overflow:auto;max-height:30rem;\
white-space:pre-wrap;overflow-wrap:anywhere}label{display:block;margin-top:1rem;font-weight:600}small{display:block;color:#555;font-weight:400}\
input,select,textarea{font:inherit;width:100%;box-sizing:border-box;padding:.4rem}textarea{min-height:5rem}\
button{font:inherit;padding:.5rem 1.5rem;margin:1.5rem 1rem 0 0}";

/// What a page may load: nothing but its own style, and where its form may go.
pub(super) fn policy() -> String {
    let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
}

/// Text that stands for itself, wherever it stands.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            _ if is_hidden(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Control characters, marks of direction, and what has no width.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A page that is being written.
pub(super) struct Page {
    text: String,
}

/// A review that waits, and how it is answered.
pub(super) struct Waiting<'a> {
    pub(super) view: &'a TicketView,
    pub(super) ticket: Ticket,
    /// Where the form goes.
    pub(super) action: String,
    /// Of what is shown.
    pub(super) digest: String,
    /// Who decides, when that is known.
    pub(super) reviewer: Option<&'a str>,
}

impl Page {
    fn new(title: &str) -> Self {
        let title = escaped(title);
        Self {
            text: format!(
                "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
                 content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body><main>\
                 <h1>{title}</h1>\n"
            ),
        }
    }

    /// The whole page.
    pub(super) fn finish(mut self) -> String {
        self.text.push_str("</main></body></html>\n");
        self.text
    }

    fn entry(&mut self, name: &str, value: &str) {
        let value = escaped(value);
        let _ = writeln!(self.text, "<dt>{name}</dt><dd><bdi>{value}</bdi></dd>");
    }

    /// One sentence.
    pub(super) fn message(title: &str, text: &str) -> Self {
        let mut page = Self::new(title);
        let _ = writeln!(page.text, "<p><bdi>{}</bdi></p>", escaped(text));
        page
    }

    /// Why something was not done, and what to do.
    pub(super) fn problem(problem: &Problem, again: &str) -> Self {
        let title = match &*problem.code {
            "stale_digest" => "This review has changed since you looked",
            "already_decided" => "This review was decided already",
            "approval_expired" => "Nobody decided in time",
            "approval_cancelled" => "No decision is needed any more",
            "approval_not_found" => "There is no such review",
            "not_a_reviewer" => "You were not asked",
            "invalid_form" | "reason_required" => "Something is missing",
            _ => "This cannot be done",
        };
        let mut page = Self::message(title, &problem.detail);
        if !problem.errors.is_empty() {
            page.text.push_str("<ul>\n");
            for error in problem.errors.iter().take(limits::DIAGNOSTICS_MAX) {
                let text = |key: &str| error.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
                let line = escaped(&format!("{}: {}", text("pointer"), text("detail")));
                let _ = writeln!(page.text, "<li><bdi>{line}</bdi></li>");
            }
            page.text.push_str("</ul>\n");
        }
        if matches!(&*problem.code, "stale_digest" | "invalid_form" | "reason_required" | "already_decided") {
            let _ =
                writeln!(page.text, "<p><a href=\"{}\">Show the review as it is now</a></p>", escaped(again));
        }
        page
    }

    /// How a review ended.
    pub(super) fn decided(ticket: Ticket, node: &str, decision: &Decision, at: Timestamp) -> Self {
        let how = if decision.approved { "Approved" } else { "Rejected" };
        let mut page = Self::new(&format!("{how} by {}", decision.reviewer));
        page.text.push_str("<p>This review was decided already.</p>\n<dl>\n");
        page.entry("Ticket", &ticket.to_string());
        page.entry("Node", node);
        page.entry("When", &at.to_string());
        if let Some(reason) = &decision.reason {
            page.entry("Reason", reason);
        }
        page.text.push_str("</dl>\n");
        page
    }

    /// What is to be decided, and the form to do it.
    pub(super) fn waiting(of: &Waiting<'_>) -> Self {
        let (view, open) = (of.view, &of.view.open);
        let mut page = Self::new(&format!("A decision is needed: {}", open.node));
        page.text.push_str("<dl>\n");
        page.entry("Workflow", shown(&view.run.workflow));
        page.entry("Run", &view.run.run_id.to_string());
        page.entry("Ticket", &of.ticket.to_string());
        page.entry("Asked at", &open.since.to_string());
        if let Some(until) = open.until {
            page.entry("Needed by", &until.to_string());
        }
        if !open.reviewers.is_empty() {
            page.entry("Asked", &open.reviewers.join(", "));
        }
        page.text.push_str("</dl>\n<h2>What is to be decided</h2>\n");
        page.data(&view.review.data);
        page.form(of);
        page
    }

    fn data(&mut self, data: &Value) {
        let text = serde_json::from_str::<serde_json::Value>(&data.to_json())
            .and_then(|value| serde_json::to_string_pretty(&value))
            .unwrap_or_else(|_| data.to_json());
        let most = text.floor_char_boundary(limits::REVIEW_PAGE_DATA_BYTES_MAX.min(text.len()));
        let (shown, rest) = text.split_at(most);
        let _ = writeln!(self.text, "<pre dir=\"ltr\"><bdi>{}</bdi></pre>", escaped(shown));
        if !rest.is_empty() {
            let _ = writeln!(
                self.text,
                "<p><strong>{} more bytes are not shown here</strong>: read them with <code>aob approvals show</code> before you \
                 decide.</p>",
                rest.len()
            );
        }
    }

    fn form(&mut self, of: &Waiting<'_>) {
        let (action, digest) = (escaped(&of.action), escaped(&of.digest));
        let _ = writeln!(
            self.text,
            "<form method=\"post\" action=\"{action}\" autocomplete=\"off\">\n<input type=\"hidden\" name=\"digest\" value=\"{digest}\">"
        );
        match of.reviewer {
            Some(reviewer) => {
                let _ = writeln!(
                    self.text,
                    "<p>You decide as <strong><bdi>{}</bdi></strong>.</p>",
                    escaped(reviewer)
                );
            }
            None => self
                .text
                .push_str("<label>Your name<input name=\"reviewer\" required maxlength=\"128\"></label>\n"),
        }
        if let Some(form) = &of.view.form {
            for field in fields(&form.written) {
                self.field(&field);
            }
        }
        let needed = if of.view.reason_required { " required" } else { "" };
        let _ = writeln!(
            self.text,
            "<label>Reason<textarea name=\"reason\" maxlength=\"{}\"{needed}></textarea></label>\n\
             <button name=\"decision\" value=\"approve\">Approve</button>\n\
             <button name=\"decision\" value=\"reject\" formnovalidate>Reject</button>\n</form>",
            limits::REASON_BYTES_MAX
        );
    }

    fn field(&mut self, field: &Field<'_>) {
        let (name, label) = (
            escaped(&field.name),
            escaped(if field.label.is_empty() { "Answer (JSON)" } else { field.label }),
        );
        let needed = if field.required { " required" } else { "" };
        let _ = write!(self.text, "<label><bdi>{label}</bdi>");
        if let Some(help) = field.help {
            let _ = write!(self.text, "<small><bdi>{}</bdi></small>", escaped(help));
        }
        let given = field.default.map_or_else(String::new, |value| match value {
            Value::String(text) if field.kind == Kind::Text => escaped(text),
            other => escaped(&other.to_json()),
        });
        let input = |kind: &str| format!("<input name=\"{name}\" {kind} value=\"{given}\"{needed}>");
        let text = match field.kind {
            Kind::Text => input("type=\"text\""),
            Kind::Whole => input("type=\"number\" step=\"1\""),
            Kind::Number => input("type=\"number\" step=\"any\""),
            Kind::Json => {
                format!("<textarea name=\"{name}\"{needed} spellcheck=\"false\">\n{given}</textarea>")
            }
            Kind::Truth => {
                let choices = [("true", "yes"), ("false", "no")].map(|(value, text)| {
                    let chosen = if given == value { " selected" } else { "" };
                    format!("<option value=\"{value}\"{chosen}>{text}</option>")
                });
                format!(
                    "<select name=\"{name}\"{needed}><option value=\"\"></option>{}</select>",
                    choices.concat()
                )
            }
            Kind::Choice(choices) => {
                let options = choices.iter().enumerate().map(|(number, choice)| {
                    let chosen = if field.default == Some(choice) { " selected" } else { "" };
                    let text = choice.as_str().map_or_else(|| choice.to_json(), str::to_owned);
                    format!("<option value=\"{number}\"{chosen}>{}</option>", escaped(&text))
                });
                let options: String = options.collect();
                format!("<select name=\"{name}\"{needed}><option value=\"\"></option>{options}</select>")
            }
        };
        let _ = writeln!(self.text, "{text}</label>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // F320, F426
    #[test]
    fn nothing_of_others_is_markup_or_turns_the_line() {
        let text = escaped("<script>\"'&\u{202e}\u{0}\u{200b}\u{2066}é\n");
        assert_eq!(text, "&lt;script&gt;&quot;&#39;&amp;\\u{202e}\\u{0}\\u{200b}\\u{2066}é\n");
        let page = Page::message("</title><script>", "<img src=x onerror=alert(1)>").finish();
        assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
        assert!(policy().starts_with("default-src 'none'; style-src 'sha256-"));
    }
}
