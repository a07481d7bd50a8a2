//! The price table that is compiled in: rows with a date, which a configuration may name (F397).
//!
//! What must hold: a row that is not there is no price, never a price of nothing.

use serde::Deserialize;
use std::collections::BTreeMap;

use crate::model::money::{MoneyError, PerToken, Price};

const TABLE: &str = include_str!("prices.toml");

/// The table.
#[derive(Clone, Debug, PartialEq)]
pub struct PriceTable {
    /// Goes up with every change of the rows.
    pub version: u32,
    /// When they were last looked at: `2024-12-31`.
    pub dated: String,
    /// By what providers call the model.
    pub rows: BTreeMap<String, Price>,
}

/// Dollars as they are written, of one model.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dollars {
    /// Of what is read.
    pub input: String,
    /// Of what is written.
    pub output: String,
    /// Of what is read from the provider's cache.
    pub cache_read: Option<String>,
    /// Of what is put into it.
    pub cache_write: Option<String>,
}

impl Dollars {
    /// The price, with these dollars being those of so many tokens.
    ///
    /// # Errors
    /// One of them is no amount.
    pub fn price(&self, per: fn(&str) -> Result<PerToken, MoneyError>) -> Result<Price, MoneyError> {
        let maybe = |dollars: &Option<String>| dollars.as_deref().map(per).transpose();
        Ok(Price {
            input: per(&self.input)?,
            output: per(&self.output)?,
            cache_read: maybe(&self.cache_read)?,
            cache_write: maybe(&self.cache_write)?,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    dated: String,
    #[serde(default)]
    per_thousand: BTreeMap<String, Dollars>,
    #[serde(default)]
    per_million: BTreeMap<String, Dollars>,
}

impl PriceTable {
    /// The one that is compiled in.
    ///
    /// # Errors
    /// It is not as it should be, which a test rules out.
    pub fn built_in() -> Result<Self, String> {
        Self::read(TABLE)
    }

    fn read(text: &str) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|error| error.to_string())?;
        let Written { version, dated, per_thousand, per_million } = written;
        let mut rows = BTreeMap::new();
        let thousand = per_thousand.into_iter().map(|row| (row, PerToken::per_thousand as fn(&str) -> _));
        let million = per_million.into_iter().map(|row| (row, PerToken::per_million as fn(&str) -> _));
        for ((name, dollars), per) in thousand.chain(million) {
            let price = dollars.price(per).map_err(|error| format!("{name}: {error}"))?;
            rows.insert(name, price);
        }
        Ok(Self { version, dated, rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::money::Tokens;

    // F397, F398, D15
    #[test]
    fn the_table_has_the_seeds_rows_and_no_others() {
        let table = PriceTable::built_in().unwrap();
        assert_eq!((table.version, table.dated.as_str(), table.rows.len()), (1, "2024-12-31", 6));
        let tokens = Tokens { input: 1_500, output: 500, ..Tokens::default() };
        for (model, cost) in [
            ("gemini-2.0-flash-exp", "0.00"),
            ("gemini-1.5-pro", "0.004375"),
            ("gpt-4", "0.075"),
            ("gpt-3.5-turbo", "0.00325"),
            ("claude-3-opus", "0.06"),
            ("claude-3-sonnet", "0.012"),
        ] {
            assert_eq!(table.rows[model].of(&tokens).to_string(), cost, "{model}");
        }
        assert!(!table.rows.contains_key("no-such-model"));
    }

    // F397
    #[test]
    fn dollars_a_million_and_dollars_a_thousand_are_the_same_price() {
        let head = "version = 2\ndated = \"2026-01-01\"\n";
        let text = format!(
            "{head}[per_million]\na = {{input = \"1.25\", output = \"5\", cache_read = \"0.1\"}}\n\
             [per_thousand]\nb = {{input = \"0.00125\", output = \"0.005\", cache_read = \"0.0001\"}}\n"
        );
        let table = PriceTable::read(&text).unwrap();
        assert_eq!(table.rows["a"], table.rows["b"]);
        for wrong in [
            "a = {input = \"1\"}",
            "a = {input = \"1\", output = \"x\"}",
            "a = {input = \"1\", output = \"1\", x = \"1\"}",
        ] {
            assert!(PriceTable::read(&format!("{head}[per_million]\n{wrong}\n")).is_err(), "{wrong}");
        }
    }
}
