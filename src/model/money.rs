//! Money: dollars in whole billionths, prices by the token, and what tokens cost.
//!
//! Integers throughout, so sums are exact in whatever order they are made (F396). What must hold: a cost is rounded up, never
//! down, so what was reserved for a call covers it; what is too much for the type is the most there is, so a budget trips.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount of US dollars in billionths (F408). In JSON a decimal string: `"0.075"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(u64);

/// The text is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Digits, a point, digits.
    #[error("{0:?} is no amount: digits such as \"5.00\" are expected, without sign or exponent")]
    Malformed(String),
    /// More places than are kept.
    #[error("{amount} has more than {places_max} decimal places")]
    TooFine {
        /// What was written.
        amount: String,
        /// How many are kept.
        places_max: u32,
    },
    /// Beyond what can be counted.
    #[error("{0} is too much")]
    TooMuch(String),
}

/// A decimal number as a whole number of its last place.
fn parse(text: &str, places_max: u32) -> Result<u64, MoneyError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let plain = plain && text.matches('.').count() <= 1;
    let whole = text.starts_with(|first: char| first.is_ascii_digit()) && !text.ends_with('.');
    if !plain || !whole || text.len() > 40 {
        return Err(MoneyError::Malformed(text.chars().take(40).collect()));
    }
    let too_much = || MoneyError::TooMuch(text.to_owned());
    // It is a number, so it has too many digits on one side of the point.
    let refused = |error| match error {
        rust_decimal::Error::Underflow => MoneyError::TooFine { amount: text.to_owned(), places_max },
        _ => too_much(),
    };
    let amount = Decimal::from_str_exact(text).map_err(refused)?.normalize();
    if amount.scale() > places_max {
        return Err(MoneyError::TooFine { amount: text.to_owned(), places_max });
    }
    let last = Decimal::from(10_u64.pow(places_max));
    amount.checked_mul(last).and_then(|amount| amount.to_u64()).ok_or_else(too_much)
}

impl Usd {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The most that can be counted: eighteen thousand million.
    pub const MAX: Self = Self(u64::MAX);
    const PLACES: u32 = 9;

    /// From billionths.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Billionths.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Both, [`MAX`](Self::MAX) at most.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left of it; nothing when `other` is more.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::iter::Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Self::plus)
    }
}

/// With two decimal places at least, and none that say nothing.
impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = Decimal::from_i128_with_scale(i128::from(self.0), Self::PLACES).normalize();
        let places = usize::try_from(amount.scale()).unwrap_or_default().max(2);
        write!(f, "{amount:.places$}")
    }
}

impl FromStr for Usd {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        parse(text, Self::PLACES).map(Self)
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The price of a token, in millionths of a millionth of a dollar: what a million tokens cost, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerToken(u64);

impl PerToken {
    const PLACES: u32 = 6;

    /// From dollars a million tokens, as providers write it now: `"1.25"`.
    ///
    /// # Errors
    /// It is no amount, or one with more than six decimal places.
    pub fn per_million(dollars: &str) -> Result<Self, MoneyError> {
        parse(dollars, Self::PLACES).map(Self)
    }

    /// From dollars a thousand tokens, as the seeds write it (F397): `"0.00125"`.
    ///
    /// # Errors
    /// It is no amount, or one with more than nine decimal places.
    pub fn per_thousand(dollars: &str) -> Result<Self, MoneyError> {
        parse(dollars, Self::PLACES + 3).map(Self)
    }

    fn of(self, tokens: u64) -> u128 {
        u128::from(self.0) * u128::from(tokens)
    }
}

/// Tokens of one call, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Read, but for those that the provider had cached.
    pub input: u64,
    /// Written.
    pub output: u64,
    /// Read from the provider's cache.
    pub cache_read: u64,
    /// Put into it.
    pub cache_write: u64,
}

impl Tokens {
    /// All of them.
    pub fn total(&self) -> u64 {
        [self.input, self.output, self.cache_read, self.cache_write].into_iter().fold(0, u64::saturating_add)
    }
}

/// What a model costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Of a token that is read.
    pub input: PerToken,
    /// Of one that is written.
    pub output: PerToken,
    /// Of one that is read from the cache; as any other when it has none of its own.
    pub cache_read: Option<PerToken>,
    /// Of one that is put into the cache.
    pub cache_write: Option<PerToken>,
}

impl Price {
    /// What these tokens cost, rounded up to a billionth (F394, F398).
    pub fn of(&self, tokens: &Tokens) -> Usd {
        const PICOS_A_NANO: u128 = 1_000;
        let Tokens { input, output, cache_read, cache_write } = *tokens;
        let parts = [
            self.input.of(input),
            self.output.of(output),
            self.cache_read.unwrap_or(self.input).of(cache_read),
            self.cache_write.unwrap_or(self.input).of(cache_write),
        ];
        let picos = parts.into_iter().fold(0, u128::saturating_add);
        Usd(u64::try_from(picos.div_ceil(PICOS_A_NANO)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    #[test]
    fn amounts_are_read_and_written_exactly() {
        // F408
        for (text, nanos, shown) in [
            ("5.00", 5_000_000_000, "5.00"),
            ("0", 0, "0.00"),
            ("0.000001", 1_000, "0.000001"),
            ("0.1230000000", 123_000_000, "0.123"),
            ("18446744073.709551615", u64::MAX, "18446744073.709551615"),
        ] {
            assert_eq!((usd(text).as_nanos(), usd(text).to_string().as_str()), (nanos, shown));
        }
        for text in ["", ".5", "5.", "-1", "+1", "1e3", "1_000", "1,5", "1.2.3", "$1", "NaN", " 1", "٣"] {
            assert_eq!(text.parse::<Usd>(), Err(MoneyError::Malformed(text.into())), "{text}");
        }
        assert!(matches!("0.0000000001".parse::<Usd>(), Err(MoneyError::TooFine { places_max: 9, .. })));
        assert!(matches!(
            "0.00000000000000000000000000000000001".parse::<Usd>(),
            Err(MoneyError::TooFine { .. })
        ));
        for text in ["18446744073.709551616", "99999999999999999999999999999999999999"] {
            assert_eq!(text.parse::<Usd>(), Err(MoneyError::TooMuch(text.into())));
        }
        let json = serde_json::to_string(&usd("0.075")).unwrap();
        assert_eq!((json.as_str(), serde_json::from_str::<Usd>(&json).unwrap()), ("\"0.075\"", usd("0.075")));
        assert!(serde_json::from_str::<Usd>("5").is_err(), "a number has been through a float");
        let bytes = postcard::to_stdvec(&usd("1.5")).unwrap();
        assert_eq!(postcard::from_bytes::<Usd>(&bytes).unwrap(), usd("1.5"));
    }

    #[test]
    fn the_seeds_prices_give_the_seeds_costs() {
        // F397, F398: dollars a thousand tokens; what 1,500 read and 500 written cost.
        for (model, input, output, cost) in [
            ("gemini-2.0-flash-exp", "0.0", "0.0", "0.00"),
            ("gemini-1.5-pro", "0.00125", "0.005", "0.004375"),
            ("gpt-4", "0.03", "0.06", "0.075"),
            ("gpt-3.5-turbo", "0.0015", "0.002", "0.00325"),
            ("claude-3-opus", "0.015", "0.075", "0.06"),
            ("claude-3-sonnet", "0.003", "0.015", "0.012"),
        ] {
            let [input, output] = [input, output].map(|price| PerToken::per_thousand(price).unwrap());
            let price = Price { input, output, ..Price::default() };
            let tokens = Tokens { input: 1_500, output: 500, ..Tokens::default() };
            assert_eq!(price.of(&tokens), usd(cost), "{model}");
        }
        assert_eq!(PerToken::per_thousand("0.00125"), PerToken::per_million("1.25"));
    }

    #[test]
    fn tokens_of_the_cache_have_prices_of_their_own() {
        // F394
        let per = |dollars| PerToken::per_million(dollars).unwrap();
        let plain = Price { input: per("3"), output: per("15"), ..Price::default() };
        let cached = Price { cache_read: Some(per("0.3")), cache_write: Some(per("3.75")), ..plain };
        let tokens = Tokens { input: 1_000, output: 10, cache_read: 100_000, cache_write: 2_000 };
        assert_eq!(plain.of(&tokens), usd("0.30915"));
        assert_eq!(cached.of(&tokens), usd("0.04065"));
        assert_eq!(tokens.total(), 103_010);
    }

    proptest! {
        #[test]
        fn costs_are_rounded_up_once_and_never_overflow(
            price in any::<u64>(),
            (one, other) in (any::<u64>(), any::<u64>()),
        ) {
            let price = Price { input: PerToken(price), output: PerToken(price), ..Price::default() };
            let cost = |input, output| price.of(&Tokens { input, output, ..Tokens::default() });
            let together = cost(one, other);
            let apart = cost(one, 0).plus(cost(0, other));
            prop_assert!(together <= apart && apart.less(together).as_nanos() <= 1);
            let exact = u128::from(price.input.0).checked_mul(u128::from(one) + u128::from(other));
            let covered = u128::from(together.as_nanos()) * 1_000;
            prop_assert!(together == Usd::MAX || exact.is_some_and(|exact| covered >= exact));
        }

        #[test]
        fn what_is_written_is_read_again(nanos in any::<u64>()) {
            prop_assert_eq!(Usd(nanos).to_string().parse(), Ok(Usd(nanos)));
        }
    }
}
