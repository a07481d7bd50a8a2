//! The only source of variety: what an answer says follows from a hash of what was asked, so the same request has the same answer
//! on every machine. FNV-1a, then one round of splitmix; it is no defence against anybody.

use std::fmt::Write as _;

/// Words of answers that nobody scripted.
const WORDS: [&str; 32] = [
    "amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "harbour", "inlet", "juniper", "kelp",
    "lagoon", "meadow", "north", "orchard", "pine", "quarry", "river", "shore", "tundra", "upland", "valley",
    "willow", "yarrow", "zenith", "birch", "canyon", "dune", "estuary", "field", "glacier", "heath",
];

/// A hash that is being made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash(u64);

impl Hash {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Takes in a part; where parts end counts.
    pub(crate) fn with(self, part: &[u8]) -> Self {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(mix(part.iter().fold(self.0, |hash, byte| mix(hash, *byte)), 0xff))
    }

    pub(crate) fn value(self) -> u64 {
        Dice(self.0).roll()
    }
}

/// Numbers that follow from a seed (splitmix64).
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn word(&mut self) -> &'static str {
        let at = usize::try_from(self.roll() % WORDS.len() as u64).unwrap_or(0);
        WORDS.get(at).copied().unwrap_or("amber")
    }
}

/// What is answered when nobody says what: the hash, and eight words drawn from it. Nothing of the question is repeated.
pub(crate) fn answer(model: &str, user_text: &str) -> String {
    let hash = Hash::new().with(model.as_bytes()).with(user_text.as_bytes()).value();
    let mut dice = Dice(hash);
    let mut text = format!("Answer {hash:016x}:");
    for _ in 0..8 {
        let _ = write!(text, " {}", dice.word());
    }
    text.push('.');
    text
}

/// Numbers of length 1 all together. Each word points in directions of its own, so texts with the same words are near each other.
pub(crate) fn embedding(model: &str, text: &str, dimensions: usize) -> Vec<f32> {
    const DIRECTIONS: usize = 16;
    let mut numbers = vec![0_f32; dimensions];
    let lower = text.to_lowercase();
    let words = lower.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty());
    // The empty word stands for a text without any, which must have a length too.
    for word in words.chain(std::iter::once("")) {
        let mut dice = Dice(Hash::new().with(model.as_bytes()).with(word.as_bytes()).value());
        let weight = if word.is_empty() { 0.01 } else { 1.0 };
        for _ in 0..DIRECTIONS {
            let roll = dice.roll();
            let at = usize::try_from((roll >> 1) % dimensions.max(1) as u64).unwrap_or(0);
            if let Some(number) = numbers.get_mut(at) {
                *number += if roll & 1 == 0 { weight } else { -weight };
            }
        }
    }
    let length = numbers.iter().map(|number| number * number).sum::<f32>().sqrt();
    // Directions may cancel each other out.
    match numbers.first_mut() {
        Some(first) if length == 0.0 => *first = 1.0,
        _ => numbers.iter_mut().for_each(|number| *number /= length),
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_follows_from_model_and_text_alone() {
        assert_eq!(answer("m", "a"), answer("m", "a"));
        assert_ne!(answer("m", "a"), answer("m", "b"));
        assert_ne!(answer("ma", "b"), answer("m", "ab"), "where parts end counts");
    }

    #[test]
    fn embeddings_have_length_one_and_texts_with_the_same_words_are_near() {
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let of = |text: &str| embedding("m", text, 1_536);
        let (a, b, c) = (of("Cancel my order, please"), of("please cancel my order"), of("weather in Oslo"));
        for numbers in [&a, &b, &c, &of("")] {
            assert!((near(numbers, numbers) - 1.0).abs() < 1e-4);
        }
        assert!(near(&a, &b) > 0.99 && near(&a, &c) < 0.3, "{} {}", near(&a, &b), near(&a, &c));
        for dimensions in 1..8 {
            let numbers = embedding("m", "a b c", dimensions);
            assert!((near(&numbers, &numbers) - 1.0).abs() < 1e-4, "{dimensions}");
        }
    }
}
