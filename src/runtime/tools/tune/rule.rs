//! What a value of the kernel should be, and whether it is: text against text. Reads nothing, writes nothing.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::runtime::topology::parse_list;

/// The cores of the planes on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planes {
    /// Sockets.
    pub(super) control: Vec<usize>,
    /// Shards.
    pub(super) runner: Vec<usize>,
}

impl Planes {
    /// No core is both: otherwise there is nothing to keep off the runner.
    pub(super) fn are_apart(&self) -> bool {
        !self.control.iter().any(|core| self.runner.contains(core))
    }
}

/// What one word should be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    AtLeast(u64),
    AtMost(u64),
    Any,
    /// The first is written.
    OneOf(Vec<String>),
    /// Some of the control cores, as a mask in hexadecimal.
    Mask,
    /// Some of the control cores, as a list.
    List,
}

/// What a value should be: a word for each of its words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Want {
    text: String,
    words: Vec<Word>,
}

/// The text is no rule.
#[derive(Debug, thiserror::Error)]
#[error("want: `{0}` is not >=N, <=N, *, mask:control, list:control, or words with | in between")]
pub(super) struct WantError(String);

impl TryFrom<String> for Want {
    type Error = WantError;

    fn try_from(text: String) -> Result<Self, WantError> {
        text.parse()
    }
}

impl FromStr for Want {
    type Err = WantError;

    fn from_str(text: &str) -> Result<Self, WantError> {
        let word = |word: &str| {
            let number = |digits: &str| digits.parse().map_err(|_| WantError(word.to_owned()));
            Ok(match (word, word.get(..2)) {
                ("*", _) => Word::Any,
                ("mask:control", _) => Word::Mask,
                ("list:control", _) => Word::List,
                (_, Some(">=")) => Word::AtLeast(number(&word[2..])?),
                (_, Some("<=")) => Word::AtMost(number(&word[2..])?),
                _ if word.contains(':') || word.split('|').any(str::is_empty) => {
                    return Err(WantError(word.to_owned()));
                }
                _ => Word::OneOf(word.split('|').map(str::to_owned).collect()),
            })
        };
        let words: Vec<Word> = text.split_whitespace().map(word).collect::<Result<_, _>>()?;
        if words.is_empty() {
            Err(WantError(text.to_owned()))
        } else {
            Ok(Self { text: text.to_owned(), words })
        }
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What came of comparing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As wanted, or better.
    Fits,
    /// Not; this is to be written.
    Differs(String),
    /// It cannot be compared here, for this reason.
    NotHere(String),
}

impl Want {
    /// What the rule names for cores, as it would be written.
    pub(super) fn on(&self, planes: &Planes) -> String {
        match self.words.as_slice() {
            [Word::Mask] => format!("{} (control)", mask(&planes.control)),
            [Word::List] => format!("{} (control)", list(&planes.control)),
            _ => self.text.clone(),
        }
    }

    /// Whether `now` is as wanted. `offered`: the words the kernel takes, where it says so somewhere else.
    pub(super) fn judge(&self, now: &str, offered: Option<&str>, planes: &Planes) -> Verdict {
        let of_cores = self.words.iter().any(|word| matches!(word, Word::Mask | Word::List));
        if of_cores && !planes.are_apart() {
            return Verdict::NotHere(String::from("control and runner share cores"));
        }
        let has = chosen(now);
        let has: Vec<&str> = has.split_whitespace().collect();
        if has.len() != self.words.len() {
            return Verdict::NotHere(format!("{} words are expected", self.words.len()));
        }
        let offered = offered.or_else(|| now.contains('[').then_some(now));
        let mut write = Vec::new();
        for (word, has) in self.words.iter().zip(&has) {
            match word.wants(has, offered, planes) {
                Ok(wants) => write.push(wants),
                Err(why) => return Verdict::NotHere(why),
            }
        }
        if write.iter().zip(&has).all(|(write, has)| write == has) {
            Verdict::Fits
        } else {
            Verdict::Differs(write.join(" "))
        }
    }
}

impl Word {
    /// What is to stand there: what stands there when that is good.
    fn wants(&self, has: &str, offered: Option<&str>, planes: &Planes) -> Result<String, String> {
        let number = || has.parse::<u64>().map_err(|_| format!("`{has}` is not a number"));
        let within =
            |cores: &[usize]| !cores.is_empty() && cores.iter().all(|core| planes.control.contains(core));
        Ok(match self {
            Self::Any => has.to_owned(),
            Self::AtLeast(least) if number()? < *least => least.to_string(),
            Self::AtMost(most) if number()? > *most => most.to_string(),
            Self::AtLeast(_) | Self::AtMost(_) => has.to_owned(),
            Self::OneOf(words) if words.iter().any(|word| word == has) => has.to_owned(),
            Self::OneOf(words) => {
                let takes = |word: &&String| {
                    offered
                        .is_none_or(|offered| offered.split(['[', ']', ' ', '\n']).any(|one| one == **word))
                };
                words
                    .iter()
                    .find(takes)
                    .cloned()
                    .ok_or_else(|| format!("`{}` is not offered", words.join("|")))?
            }
            Self::Mask if within(&cores_of(has)?) => has.to_owned(),
            Self::Mask => mask(&planes.control),
            Self::List if within(&parse_list(has)) => has.to_owned(),
            Self::List => list(&planes.control),
        })
    }
}

/// What a file of the kernel says: of a choice, what stands in brackets; otherwise everything, with one space in between.
pub(super) fn chosen(now: &str) -> String {
    let bracketed = now.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    match bracketed {
        Some((word, _)) => word.to_owned(),
        None => now.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

/// Cores as people write them: `0-3,8`.
pub(super) fn list(cores: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    let mut cores = cores.to_vec();
    cores.sort_unstable();
    cores.dedup();
    for core in cores {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => ranges.push((core, core)),
        }
    }
    let text = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

/// Cores as the kernel writes masks: hexadecimal, 32 to a group, the highest first.
fn mask(cores: &[usize]) -> String {
    let highest = cores.iter().max().map_or(0, |core| core / 32);
    let bits = |group| {
        cores.iter().filter(|core| *core / 32 == group).fold(0_u32, |bits, core| bits | 1 << (core % 32))
    };
    let rest = (0..highest).rev().map(|group| format!(",{:08x}", bits(group)));
    format!("{:x}{}", bits(highest), rest.collect::<String>())
}

fn cores_of(mask: &str) -> Result<Vec<usize>, String> {
    let mut cores = Vec::new();
    for (at, group) in mask.split(',').rev().enumerate() {
        let bits = u32::from_str_radix(group, 16).map_err(|_| format!("`{mask}` is not a mask"))?;
        cores.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| at * 32 + bit));
    }
    Ok(cores)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn planes() -> Planes {
        Planes { control: vec![0, 1, 2, 3, 40], runner: vec![4, 5] }
    }

    fn judge(want: &str, now: &str) -> Verdict {
        want.parse::<Want>().unwrap().judge(now, None, &planes())
    }

    fn differs(write: &str) -> Verdict {
        Verdict::Differs(write.to_owned())
    }

    #[test]
    fn what_is_better_stays() {
        assert_eq!(judge(">=4096", "65536\n"), Verdict::Fits);
        assert_eq!(judge(">=4096", "128\n"), differs("4096"));
        assert_eq!(judge("<=10", "60\n"), differs("10"));
        assert_eq!(judge("<=16384 >=60999", "32768\t60999\n"), differs("16384 60999"));
        assert_eq!(judge("<=16384 >=60999", "1024\t65535\n"), Verdict::Fits);
        assert_eq!(judge("* >=5 *", "4096 4 7"), differs("4096 5 7"));
    }

    #[test]
    fn of_a_choice_what_is_chosen_counts_and_only_what_is_offered_is_wanted() {
        assert_eq!(judge("madvise|never", "[always] madvise never\n"), differs("madvise"));
        assert_eq!(judge("madvise|never", "always madvise [never]\n"), Verdict::Fits);
        assert_eq!(judge("madvise|never", "[always] never\n"), differs("never"));
        assert!(
            matches!(judge("none", "[mq-deadline] kyber\n"), Verdict::NotHere(why) if why.contains("none"))
        );
        let want: Want = "performance".parse().unwrap();
        let offered = |offered| want.judge("powersave\n", Some(offered), &planes());
        assert_eq!(offered("performance powersave\n"), differs("performance"));
        assert!(matches!(offered("schedutil powersave\n"), Verdict::NotHere(_)));
    }

    #[test]
    fn cores_fit_when_they_are_some_of_the_planes() {
        assert_eq!(judge("list:control", "2\n"), Verdict::Fits);
        assert_eq!(judge("list:control", "0-5\n"), differs("0-3,40"));
        assert_eq!(judge("list:control", "\n"), Verdict::NotHere(String::from("1 words are expected")));
        assert_eq!(judge("mask:control", "00000000,00000003\n"), Verdict::Fits);
        assert_eq!(judge("mask:control", "ff\n"), differs("100,0000000f"));
        // A mask of nobody is off.
        assert_eq!(judge("mask:control", "0\n"), differs("100,0000000f"));
        let shared = Planes { control: vec![0], runner: vec![0] };
        let want: Want = "mask:control".parse().unwrap();
        assert!(matches!(want.judge("0", None, &shared), Verdict::NotHere(_)));
    }

    #[test]
    fn what_is_no_rule_is_refused_by_name() {
        for wrong in ["", ">=many", "list:runners", "a||b"] {
            assert!(wrong.parse::<Want>().is_err(), "{wrong}");
        }
    }

    proptest! {
        /// Whatever is to be written is as wanted once it is there; and nothing that the kernel may say breaks it.
        #[test]
        fn what_is_written_fits(now in "[0-9a-f,\\[\\] \n-]{0,40}", which in 0..6_usize) {
            let want = [">=4096", "<=10 *", "a|b", "mask:control", "list:control", "3"][which];
            if let Verdict::Differs(write) = judge(want, &now) {
                prop_assert_eq!(judge(want, &write), Verdict::Fits);
            }
        }

        #[test]
        fn masks_and_lists_say_the_same_cores(cores in proptest::collection::btree_set(0..200_usize, 1..20)) {
            let cores: Vec<usize> = cores.into_iter().collect();
            prop_assert_eq!(cores_of(&mask(&cores)).unwrap(), cores.clone());
            prop_assert_eq!(parse_list(&list(&cores)), cores);
        }
    }
}
