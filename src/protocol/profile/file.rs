//! Reading a profile's TOML text strictly: every key known, every value in its unit and range.
//!
//! serde refuses unknown keys and names those it knows; the small types here ([`Time`],
//! [`Percent`], [`Rate`], [`NodesText`]) refuse values that are not of their form, with an example
//! of one that is, so that the TOML reader adds the line and a picture of it. What only shows when
//! keys are seen together (jitter above latency, a partition without an end) is refused afterwards
//! with the key's name.
//!
//! Every number has an upper bound, so that no sum of delays can overflow and a typing error
//! (`latency = "20min"`) is told rather than waited for.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::{
    Between, Cut, Ends, Groups, Link, LinkChange, NodeRange, Nodes, Override, Partition, Profile,
    ProfileError,
};

/// No link on or off this planet that QUIC's default timers survive is slower than this.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// A timetable longer than a day is a typing error.
const TIMETABLE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Below 1 kbit/s (in bytes per second) a QUIC handshake takes longer than its timeout.
const BANDWIDTH_MIN: u64 = 125;
/// 1 Tbit/s, in bytes per second; write "unlimited" for more.
const BANDWIDTH_MAX: u64 = 125_000_000_000;
/// The largest cluster that a profile may name: ten times what the simulator is asked to run.
const NODES_MAX: usize = 10_000;
/// Links are looked up by walking the tables, so a profile cannot have any number of them.
const TABLES_MAX: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    description: String,
    nodes: Option<usize>,
    #[serde(default)]
    groups: BTreeMap<String, NodesText>,
    #[serde(default)]
    default: LinkText,
    #[serde(default)]
    link: Vec<OverrideText>,
    #[serde(default)]
    partition: Vec<PartitionText>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LinkText {
    latency: Option<Time>,
    jitter: Option<Time>,
    loss: Option<Percent>,
    duplicate: Option<Percent>,
    reorder: Option<Percent>,
    bandwidth: Option<Rate>,
    queue: Option<Time>,
}

// The keys of a link are repeated rather than flattened: serde's `flatten` cannot be combined with
// `deny_unknown_fields`, and refusing unknown keys is worth more than seven lines.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OverrideText {
    from: NodesText,
    to: NodesText,
    #[serde(default)]
    one_way: bool,
    latency: Option<Time>,
    jitter: Option<Time>,
    loss: Option<Percent>,
    duplicate: Option<Percent>,
    reorder: Option<Percent>,
    bandwidth: Option<Rate>,
    queue: Option<Time>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionText {
    groups: Option<Vec<NodesText>>,
    from: Option<NodesText>,
    to: Option<NodesText>,
    #[serde(default)]
    one_way: bool,
    start: Time,
    end: Option<Time>,
    #[serde(rename = "for")]
    length: Option<Time>,
    every: Option<Time>,
}

/// Reads and checks a whole profile.
pub(super) fn parse(name: &str, text: &str) -> Result<Profile, ProfileError> {
    let file: FileText = toml::from_str(text).map_err(|error| ProfileError::Syntax {
        profile: name.to_owned(),
        problem: error.to_string().trim_end().to_owned(),
    })?;
    let check = Check { profile: name };
    if file.nodes.is_some_and(|nodes| !(1..=NODES_MAX).contains(&nodes)) {
        return Err(check.refuse("nodes", format!("must be from 1 to {NODES_MAX}")));
    }
    for (key, count) in [("link", file.link.len()), ("partition", file.partition.len())] {
        if count > TABLES_MAX {
            return Err(check.refuse(key, format!("{count} tables, at most {TABLES_MAX} allowed")));
        }
    }
    let groups = check.groups(&file.groups)?;
    let default = check.default_link(&file.default)?;
    let overrides: Vec<Override> = file
        .link
        .into_iter()
        .enumerate()
        .map(|(index, text)| check.special_link(index, text, &groups))
        .collect::<Result<_, _>>()?;
    let partitions = file
        .partition
        .into_iter()
        .enumerate()
        .map(|(index, text)| check.partition(index, text, &groups))
        .collect::<Result<_, _>>()?;
    check.jitter_of_overrides(&default, &overrides)?;
    Ok(Profile {
        name: name.to_owned(),
        description: file.description,
        nodes: file.nodes,
        default: Arc::new(default),
        overrides,
        partitions,
    })
}

/// The checks that need more than one key, and the name to put on what they refuse.
struct Check<'a> {
    profile: &'a str,
}

impl Check<'_> {
    fn refuse(&self, key: impl Into<String>, problem: impl Into<String>) -> ProfileError {
        ProfileError::Value {
            profile: self.profile.to_owned(),
            key: key.into(),
            problem: problem.into(),
        }
    }

    fn groups(&self, texts: &BTreeMap<String, NodesText>) -> Result<Groups, ProfileError> {
        let mut groups = Groups::new();
        for (name, text) in texts {
            let key = format!("groups.{name}");
            if NodeRange::parse(name).is_some() || name == "*" {
                let problem = "this name already means a set of nodes; choose another";
                return Err(self.refuse(key, problem));
            }
            // A group is made of nodes, not of groups: no cycles to look for.
            let nodes = self.nodes(&key, text, &Groups::new())?;
            groups.insert(name.clone(), nodes);
        }
        Ok(groups)
    }

    fn nodes(&self, key: &str, text: &NodesText, groups: &Groups) -> Result<Nodes, ProfileError> {
        let mut ranges = Vec::new();
        for word in &text.0 {
            match (NodeRange::parse(word), groups.get(word)) {
                (Some(range), _) => ranges.push(range),
                (None, Some(group)) => ranges.extend_from_slice(&group.0),
                (None, None) => {
                    let known: Vec<&str> = groups.keys().map(String::as_str).collect();
                    let problem = format!(
                        "{word:?} names no nodes; allowed: 3, \"0-4\", \"5-\", \"even\", \"odd\", \
                         \"*\", or a group (here: {})",
                        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
                    );
                    return Err(self.refuse(key, problem));
                }
            }
        }
        Ok(Nodes(ranges))
    }

    fn default_link(&self, text: &LinkText) -> Result<Link, ProfileError> {
        let mut link = Link::default();
        self.change("default", text)?.apply(&mut link);
        self.jitter("default", &link)?;
        Ok(link)
    }

    fn change(&self, table: &str, text: &LinkText) -> Result<LinkChange, ProfileError> {
        let time = |key: &str, time: Option<Time>| match time {
            Some(Time(time)) if time > LATENCY_MAX => Err(self.refuse(
                format!("{table}.{key}"),
                format!("at most {} is allowed", humantime::format_duration(LATENCY_MAX)),
            )),
            other => Ok(other.map(|Time(time)| time)),
        };
        Ok(LinkChange {
            latency: time("latency", text.latency)?,
            jitter: time("jitter", text.jitter)?,
            loss: text.loss.map(|Percent(share)| share),
            duplicate: text.duplicate.map(|Percent(share)| share),
            reorder: text.reorder.map(|Percent(share)| share),
            bandwidth: text.bandwidth.map(|Rate(rate)| rate),
            queue: time("queue", text.queue)?,
        })
    }

    fn jitter(&self, table: &str, link: &Link) -> Result<(), ProfileError> {
        if link.jitter <= link.latency {
            return Ok(());
        }
        let problem = format!(
            "{} is more than the latency of {}; the delay is latency ± jitter, so at most the \
             latency is allowed",
            humantime::format_duration(link.jitter),
            humantime::format_duration(link.latency)
        );
        Err(self.refuse(format!("{table}.jitter"), problem))
    }

    /// Checks each override against the default, and where several can meet on one link, against
    /// the smallest latency and the largest jitter that any of them sets.
    fn jitter_of_overrides(&self, default: &Link, all: &[Override]) -> Result<(), ProfileError> {
        for (index, special) in all.iter().enumerate() {
            let mut link = default.clone();
            special.change.apply(&mut link);
            self.jitter(&format!("link[{index}]"), &link)?;
            for earlier in &all[..index] {
                let mut link = default.clone();
                earlier.change.apply(&mut link);
                special.change.apply(&mut link);
                self.jitter(&format!("link[{index}]"), &link)?;
            }
        }
        Ok(())
    }

    fn special_link(
        &self,
        index: usize,
        text: OverrideText,
        groups: &Groups,
    ) -> Result<Override, ProfileError> {
        let table = format!("link[{index}]");
        let ends = Ends {
            from: self.nodes(&format!("{table}.from"), &text.from, groups)?,
            to: self.nodes(&format!("{table}.to"), &text.to, groups)?,
            one_way: text.one_way,
        };
        let link = LinkText {
            latency: text.latency,
            jitter: text.jitter,
            loss: text.loss,
            duplicate: text.duplicate,
            reorder: text.reorder,
            bandwidth: text.bandwidth,
            queue: text.queue,
        };
        Ok(Override { ends, change: self.change(&table, &link)? })
    }

    fn partition(
        &self,
        index: usize,
        text: PartitionText,
        groups: &Groups,
    ) -> Result<Partition, ProfileError> {
        let table = format!("partition[{index}]");
        let cut = self.cut(&table, &text)?;
        let between = match (&text.groups, &text.from, &text.to) {
            (Some(sides), None, None) if sides.len() >= 2 && !text.one_way => Between::Groups(
                sides
                    .iter()
                    .map(|side| self.nodes(&format!("{table}.groups"), side, groups))
                    .collect::<Result<_, _>>()?,
            ),
            (None, Some(from), Some(to)) => Between::Ends(Ends {
                from: self.nodes(&format!("{table}.from"), from, groups)?,
                to: self.nodes(&format!("{table}.to"), to, groups)?,
                one_way: text.one_way,
            }),
            _ => {
                let problem = "needs either `groups`, a list of two or more sets of nodes, or \
                               `from` and `to`; `one_way` goes with `from` and `to` only";
                return Err(self.refuse(table, problem));
            }
        };
        Ok(Partition { between, cut })
    }

    fn cut(&self, table: &str, text: &PartitionText) -> Result<Cut, ProfileError> {
        let start = text.start.0;
        let length = match (text.end, text.length) {
            (Some(Time(end)), None) => end.checked_sub(start).unwrap_or_default(),
            (None, Some(Time(length))) => length,
            _ => return Err(self.refuse(table, "needs either `for` or `end`, not both")),
        };
        if length.is_zero() {
            return Err(self.refuse(table, "ends before it starts"));
        }
        let every = text.every.map(|Time(every)| every);
        if every.is_some_and(|every| every <= length) {
            let problem = "must be longer than the partition lasts, or it never heals";
            return Err(self.refuse(format!("{table}.every"), problem));
        }
        if start.max(length).max(every.unwrap_or_default()) > TIMETABLE_MAX {
            return Err(self.refuse(table, "no time may be more than a day"));
        }
        Ok(Cut { start, length, every })
    }
}

impl NodeRange {
    /// A set of nodes that needs no `[groups]` table: `3`, `0-4`, `5-`, `even`, `odd`, `*`.
    fn parse(word: &str) -> Option<Self> {
        match word {
            "*" => return Some(Self::Span { first: 0, last: usize::MAX }),
            "even" => return Some(Self::Even),
            "odd" => return Some(Self::Odd),
            _ => {}
        }
        let number = |digits: &str| digits.trim().parse::<usize>().ok().filter(|n| *n < NODES_MAX);
        match word.split_once('-') {
            None => number(word).map(|node| Self::Span { first: node, last: node }),
            Some((first, "")) => number(first).map(|first| Self::Span { first, last: usize::MAX }),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Span { first, last })
            }
        }
    }
}

/// A span of time with its unit.
#[derive(Clone, Copy)]
struct Time(Duration);

/// A probability from 0 to 1, written as a percentage.
#[derive(Clone, Copy)]
struct Percent(f64);

/// Bytes per second, written in bits per second; `None` is without limit.
#[derive(Clone, Copy)]
struct Rate(Option<NonZeroU64>);

/// A set of nodes as written: words to be looked up.
struct NodesText(Vec<String>);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let form = "a time with its unit in quotes, such as \"250us\", \"1.5ms\" or \"2s\"";
        deserialize_words(source, form, |text| humantime::parse_duration(text).ok().map(Self))
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let form = "a percentage in quotes from \"0%\" to \"100%\", such as \"0.5%\"";
        deserialize_words(source, form, |text| {
            let share = text.trim().strip_suffix('%')?.trim().parse::<f64>().ok()?;
            (0.0..=100.0).contains(&share).then_some(Self(share / 100.0))
        })
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let form = "a rate in quotes from \"1 kbit/s\" to \"1000 Gbit/s\", such as \
                    \"100 Mbit/s\", or \"unlimited\"";
        deserialize_words(source, form, |text| {
            if text == "unlimited" {
                return Some(Self(None));
            }
            let text = text.trim().strip_suffix("bit/s")?;
            let (digits, factor) = match text.char_indices().next_back()? {
                (at, 'k') => (&text[..at], 1e3),
                (at, 'M') => (&text[..at], 1e6),
                (at, 'G') => (&text[..at], 1e9),
                _ => (text, 1.0),
            };
            let bytes = digits.trim().parse::<f64>().ok()? * factor / 8.0;
            let allowed = BANDWIDTH_MIN as f64..=BANDWIDTH_MAX as f64;
            allowed.contains(&bytes).then(|| Self(NonZeroU64::new(bytes as u64)))
        })
    }
}

/// Reads a string and turns it into a value, or says which form it should have had.
fn deserialize_words<'de, D: Deserializer<'de>, T>(
    source: D,
    form: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    struct Words<F>(&'static str, F);

    impl<T, F: Fn(&str) -> Option<T>> Visitor<'_> for Words<F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    source.deserialize_any(Words(form, read))
}

impl<'de> Deserialize<'de> for NodesText {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Sets;

        impl<'de> Visitor<'de> for Sets {
            type Value = NodesText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "nodes: a number, \"0-4\", \"5-\", \"even\", \"odd\", \"*\", a group's name, \
                     or a list of these",
                )
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<NodesText, E> {
                Ok(NodesText(vec![number.to_string()]))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<NodesText, E> {
                Ok(NodesText(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<NodesText, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element::<OneNode>()? {
                    words.push(word.0);
                }
                Ok(NodesText(words))
            }
        }

        source.deserialize_any(Sets)
    }
}

/// One element of a list of nodes: a number or a word, but not another list.
struct OneNode(String);

impl<'de> Deserialize<'de> for OneNode {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a node's number, or a set of nodes in quotes")]
        enum Either {
            Number(u32),
            Word(String),
        }
        Ok(Self(match Either::deserialize(source)? {
            Either::Number(number) => number.to_string(),
            Either::Word(word) => word,
        }))
    }
}
