//! Regular expressions: `matches`.
//!
//! Matching never backtracks, but takes time in proportion to text times states, and a counted repetition makes many
//! states of few bytes: `(a{99}){9}`. So a pattern has a price for each byte of text, and one that is much larger than
//! its source is not kept in the program, where a document full of them would fill the memory, but made when needed.

use regex_lite::{Regex, RegexBuilder};

use super::super::Budget;
use super::super::datum::{Datum, Shape};
use super::super::error::{self, Error, excerpt};
use super::{text_argument, unfit};
use crate::limits;

/// More states than any pattern within [`limits::EXPRESSION_PATTERN_PROGRAM_BYTES_MAX`] has.
const STATES_MAX: u64 = (limits::EXPRESSION_PATTERN_PROGRAM_BYTES_MAX / 16) as u64;

/// A compiled pattern.
#[derive(Debug)]
pub(in super::super) struct Pattern {
    regex: Regex,
    /// Steps for a byte of text.
    price: u64,
}

impl Pattern {
    /// Checks and compiles a pattern.
    pub(in super::super) fn new(source: &str) -> Result<Self, Error> {
        if source.len() > limits::EXPRESSION_PATTERN_BYTES_MAX {
            return Err(Error::new(
                error::PATTERN,
                format!(
                    "a regular expression of {} bytes; at most {} are allowed (limit \
                     expression_pattern_bytes_max)",
                    source.len(),
                    limits::EXPRESSION_PATTERN_BYTES_MAX
                ),
            ));
        }
        let regex = RegexBuilder::new(source)
            .size_limit(limits::EXPRESSION_PATTERN_PROGRAM_BYTES_MAX)
            .nest_limit(32)
            .build()
            .map_err(|error| {
                Error::new(error::PATTERN, format!("{:?} is no regular expression: {error}", excerpt(source)))
            })?;
        Ok(Self { regex, price: price(source) })
    }

    /// Is it so small that a program may keep it?
    pub(in super::super) fn is_small(source: &str) -> bool {
        states(source) <= 4 * source.len() as u64 + 64
    }

    /// Looks for the pattern anywhere in a text.
    pub(in super::super) fn is_match(&self, text: &Datum<'_>, budget: &mut Budget) -> Result<bool, Error> {
        match text.shape() {
            Shape::Text(text) => {
                budget.take((text.len() as u64).saturating_mul(self.price))?;
                Ok(self.regex.is_match(text))
            }
            other => Err(unfit("matches", "text", other)),
        }
    }
}

/// `matches` with a pattern that is computed, or too large to be kept.
pub(super) fn matches<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let source = text_argument("matches", arguments, 1)?;
    // Making a pattern takes some microseconds, and longer for what becomes larger.
    budget.take(500 + states(source).saturating_mul(8))?;
    let pattern = Pattern::new(source)?;
    match arguments.first() {
        Some(text) => pattern.is_match(text, budget).map(Datum::bool),
        None => Ok(Datum::bool(false)),
    }
}

fn price(source: &str) -> u64 {
    2 + states(source) / 6
}

/// States of the compiled form, at most and roughly. Where this reading of a pattern could be fooled, it gives the
/// most there can be.
fn states(source: &str) -> u64 {
    count(source).map_or(STATES_MAX, |states| states.min(STATES_MAX))
}

fn count(source: &str) -> Option<u64> {
    // States of the group so far, and of its last atom, which a repetition multiplies.
    let (mut sum, mut atom) = (0_u64, 0_u64);
    let mut groups: Vec<u64> = Vec::new();
    let mut chars = source.chars();
    while let Some(char) = chars.next() {
        let added = match char {
            '(' => {
                if is_verbose(chars.as_str()) {
                    return None;
                }
                groups.push(sum);
                (sum, atom) = (0, 0);
                continue;
            }
            ')' => {
                atom = sum + 2;
                sum = groups.pop()?;
                sum = sum.saturating_add(atom);
                continue;
            }
            // Repetitions belong to the atom, so that another one behind multiplies them too.
            '{' => {
                let counts: String = chars.by_ref().take_while(|char| *char != '}').collect();
                let most = counts.split(',').filter_map(|count| count.trim().parse::<u64>().ok()).max();
                let added = atom.saturating_mul(most.unwrap_or(1).saturating_mul(2));
                atom = atom.saturating_add(added);
                added
            }
            '?' | '*' | '+' => {
                atom = atom.saturating_add(2);
                2
            }
            '[' => {
                skip_class(&mut chars)?;
                atom = 2;
                2
            }
            '\\' => {
                chars.next();
                atom = 2;
                2
            }
            _ => {
                atom = 2;
                2
            }
        };
        sum = sum.saturating_add(added);
    }
    Some(sum)
}

/// `(?x)` lets spaces and comments stand anywhere, which [`count`] does not read.
fn is_verbose(group: &str) -> bool {
    let Some(flags) = group.strip_prefix('?') else { return false };
    let end = flags.find(|char: char| !char.is_ascii_alphabetic() && char != '-').unwrap_or(flags.len());
    let (flags, after) = flags.split_at(end);
    flags.contains('x') && after.starts_with([':', ')'])
}

/// Goes behind the `]` of a class; `None` when it holds what would count outside of one.
fn skip_class(chars: &mut std::str::Chars<'_>) -> Option<()> {
    if let Some(rest) = chars.as_str().strip_prefix('^') {
        *chars = rest.chars();
    }
    let mut first = true;
    while let Some(char) = chars.next() {
        match char {
            ']' if !first => return Some(()),
            '{' | '(' => return None,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
        first = false;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_multiply_what_they_repeat_and_nothing_else() {
        let uuid = "^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$";
        assert!(states(uuid) < 400 && Pattern::is_small("^[a-z]+-[0-9]{1,3}$"), "{}", states(uuid));
        for (pattern, least) in
            [("(a{99}){9}", 891), ("(a{50})+{50}", STATES_MAX), ("a{9}{9}{9}", 729), ("((ab){10}){10}", 200)]
        {
            assert!(
                states(pattern) >= least && !Pattern::is_small(pattern),
                "{pattern}: {}",
                states(pattern)
            );
        }
        for fooling in ["(?x)a {500}", "(?ix:a {500})", "[(]a{2}", "[a", "a)", "[]a{3}"] {
            assert_eq!(states(fooling), STATES_MAX, "{fooling}");
        }
        for plain in ["[]a]", "[^]a]", "[^^]", "[\\]a]", "[[:alpha:]]", "(?i:a)", "(?P<x>a)", "\\{9\\}"] {
            assert!(states(plain) < 40, "{plain}: {}", states(plain));
        }
    }
}
