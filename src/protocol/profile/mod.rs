//! Profiles: a network written down as a small TOML text, and what each link of it does.
//!
//! ```toml
//! description = "Two rooms with a thin cable between them."
//! nodes = 6                         # cluster size, if the user names none
//!
//! [groups]                          # names for sets of nodes
//! upstairs = "0-2"
//! downstairs = "3-5"
//!
//! [default]                         # every link, unless overridden below
//! latency = "300us"                 # one way, mean
//! jitter = "50us"                   # latency ± jitter
//! loss = "0.1%"                     # also: duplicate, reorder
//! bandwidth = "1 Gbit/s"            # or "unlimited"
//! queue = "100ms"                   # longest wait in front of a full link
//!
//! [[link]]                          # later tables win, key by key
//! from = "upstairs"
//! to = "downstairs"
//! bandwidth = "10 Mbit/s"           # both directions, unless `one_way = true`
//!
//! [[partition]]
//! groups = ["upstairs", "downstairs"]
//! start = "2s"
//! for = "3s"                        # or `end = "5s"`; `every = "20s"` repeats it
//! ```
//!
//! Nodes are numbered from 0. A set of nodes is a number, `"2"`, `"0-4"`, `"5-"`, `"even"`,
//! `"odd"`, `"*"`, the name of a group, or a list of these. A partition either has `groups`, and
//! then two nodes that are in groups but in no common one cannot talk (a node in both groups
//! bridges them, a node in none talks to all), or `from` and `to`, in both directions unless
//! `one_way = true`.
//!
//! Text goes in and values come out: where a file is read from is the affair of the rooms above.
//! Unknown keys, impossible values and contradictions are refused with the key, the line and what
//! would have been allowed. Probabilities are percentages in quotes, because a bare `0.5` reads
//! as a half to one person and as half a percent to the next.
//!
//! Left out: profiles that include other profiles, and links that change other than by being cut.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

mod file;
mod link;

pub use link::{Cut, DropReason, Fate, Link, LinkState, QUEUE_WAIT_DEFAULT};

/// The profiles compiled into the program, so that `--profile lan` works anywhere.
const BUILTIN: [(&str, &str); 8] = [
    ("loopback", include_str!("../../../netconfig/loopback.toml")),
    ("lan", include_str!("../../../netconfig/lan.toml")),
    ("wifi", include_str!("../../../netconfig/wifi.toml")),
    ("wan", include_str!("../../../netconfig/wan.toml")),
    ("lossy", include_str!("../../../netconfig/lossy.toml")),
    ("split", include_str!("../../../netconfig/split.toml")),
    ("primary", include_str!("../../../netconfig/primary.toml")),
    ("glomers", include_str!("../../../netconfig/glomers.toml")),
];

/// A network: its default link, the links that differ, and when which of them are cut.
#[derive(Clone, Debug)]
pub struct Profile {
    name: String,
    description: String,
    nodes: Option<usize>,
    default: Arc<Link>,
    overrides: Vec<Override>,
    partitions: Vec<Partition>,
}

/// Says why there is no such profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// The text is not TOML, or a key or the form of a value is not known.
    #[error("profile {profile:?}: {problem}")]
    Syntax {
        /// The profile's name or path.
        profile: String,
        /// What is wrong, with line, column and what was expected.
        problem: String,
    },
    /// The keys are known, but together or in size they make no sense.
    #[error("profile {profile:?}, key `{key}`: {problem}")]
    Value {
        /// The profile's name or path.
        profile: String,
        /// The key, with the table it stands in.
        key: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// No built-in profile has this name.
    #[error(
        "there is no profile {name:?}; built in are {}; a path that ends in .toml works as well",
        Profile::builtin_names().collect::<Vec<_>>().join(", ")
    )]
    Unknown {
        /// The name asked for.
        name: String,
    },
}

/// A set of nodes, as a profile names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Nodes(Vec<NodeRange>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeRange {
    Span { first: usize, last: usize },
    Even,
    Odd,
}

/// Links that differ from the default: `change` lists what differs.
#[derive(Clone, Debug)]
struct Override {
    ends: Ends,
    change: LinkChange,
}

#[derive(Clone, Debug)]
struct Ends {
    from: Nodes,
    to: Nodes,
    one_way: bool,
}

/// The keys of a link that a table sets.
#[derive(Clone, Copy, Debug, Default)]
struct LinkChange {
    latency: Option<Duration>,
    jitter: Option<Duration>,
    loss: Option<f64>,
    duplicate: Option<f64>,
    reorder: Option<f64>,
    bandwidth: Option<Option<std::num::NonZeroU64>>,
    queue: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Partition {
    between: Between,
    cut: Cut,
}

#[derive(Clone, Debug)]
enum Between {
    Groups(Vec<Nodes>),
    Ends(Ends),
}

impl Profile {
    /// The profile that `text` describes; `name` is its name or path, for errors and reports.
    ///
    /// # Errors
    /// When the text is not TOML, has unknown keys, or values that are impossible. The error names
    /// the profile, the key or line, and what is allowed. It is the author's of the text to mend.
    pub fn parse(name: &str, text: &str) -> Result<Self, ProfileError> {
        file::parse(name, text)
    }

    /// The built-in profile of this name.
    ///
    /// # Errors
    /// [`ProfileError::Unknown`], which lists the names there are.
    pub fn builtin(name: &str) -> Result<Self, ProfileError> {
        let (name, text) = BUILTIN
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| ProfileError::Unknown { name: name.to_owned() })?;
        Self::parse(name, text)
    }

    /// The names of all built-in profiles, mildest first.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// The name it was asked for by: a built-in name or a path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One sentence for people.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The cluster size that this profile is meant for, if it says so.
    pub fn nodes(&self) -> Option<usize> {
        self.nodes
    }

    /// Whether it changes nothing on any link, so that emulation can be left out altogether.
    pub fn is_transparent(&self) -> bool {
        self.default.is_transparent() && self.overrides.is_empty() && self.partitions.is_empty()
    }

    /// What links do unless overridden, and what a link to an unknown node does.
    pub fn default_link(&self) -> Arc<Link> {
        Arc::clone(&self.default)
    }

    /// What the direction from node `from` to node `to` does. Nodes are numbered from 0. Links that
    /// nothing is special about share one value.
    pub fn link(&self, from: usize, to: usize) -> Arc<Link> {
        let mut link = None;
        for special in self.overrides.iter().filter(|special| special.ends.include(from, to)) {
            special.change.apply(link.get_or_insert_with(|| (*self.default).clone()));
        }
        for partition in self.partitions.iter().filter(|it| it.between.separates(from, to)) {
            link.get_or_insert_with(|| (*self.default).clone()).cuts.push(partition.cut);
        }
        link.map_or_else(|| Arc::clone(&self.default), Arc::new)
    }

    /// When the last cut ends, counted from the start of the run; `None` if one repeats for ever,
    /// and zero if there are none.
    pub fn quiet_from(&self) -> Option<Duration> {
        self.partitions
            .iter()
            .map(|it| it.cut.every.is_none().then(|| it.cut.start.saturating_add(it.cut.length)))
            .try_fold(Duration::ZERO, |latest, end| Some(latest.max(end?)))
    }
}

impl Nodes {
    fn contains(&self, node: usize) -> bool {
        self.0.iter().any(|range| match *range {
            NodeRange::Span { first, last } => (first..=last).contains(&node),
            NodeRange::Even => node.is_multiple_of(2),
            NodeRange::Odd => !node.is_multiple_of(2),
        })
    }
}

impl Ends {
    fn include(&self, from: usize, to: usize) -> bool {
        let forth = self.from.contains(from) && self.to.contains(to);
        let back = self.from.contains(to) && self.to.contains(from);
        forth || (back && !self.one_way)
    }
}

impl Between {
    fn separates(&self, from: usize, to: usize) -> bool {
        match self {
            Self::Ends(ends) => ends.include(from, to),
            Self::Groups(groups) => {
                let grouped = |node| groups.iter().any(|group| group.contains(node));
                let together =
                    groups.iter().any(|group| group.contains(from) && group.contains(to));
                grouped(from) && grouped(to) && !together
            }
        }
    }
}

impl LinkChange {
    fn apply(&self, link: &mut Link) {
        link.latency = self.latency.unwrap_or(link.latency);
        link.jitter = self.jitter.unwrap_or(link.jitter);
        link.loss = self.loss.unwrap_or(link.loss);
        link.duplicate = self.duplicate.unwrap_or(link.duplicate);
        link.reorder = self.reorder.unwrap_or(link.reorder);
        link.bandwidth = self.bandwidth.unwrap_or(link.bandwidth);
        link.queue = self.queue.unwrap_or(link.queue);
    }
}

/// Names for sets of nodes, from the `[groups]` table.
type Groups = BTreeMap<String, Nodes>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn parse(text: &str) -> Profile {
        Profile::parse("test.toml", &format!("description = 'test'\n{text}")).unwrap()
    }

    fn refusal(text: &str) -> String {
        let text = format!("description = 'test'\n{text}");
        Profile::parse("test.toml", &text).unwrap_err().to_string()
    }

    #[test]
    fn every_builtin_profile_reads_and_says_what_it_is() {
        for name in Profile::builtin_names() {
            let profile = Profile::builtin(name).unwrap();
            assert_eq!(profile.name(), name);
            assert!(!profile.description().is_empty(), "{name} has a description");
            assert_eq!(profile.is_transparent(), name == "loopback", "{name}");
        }
        let glomers = Profile::builtin("glomers").unwrap();
        assert_eq!(glomers.nodes(), Some(25));
        assert_eq!(glomers.link(3, 24).latency, 100 * MS);
        assert_eq!(glomers.quiet_from(), Some(Duration::ZERO));
    }

    #[test]
    fn an_unknown_profile_names_those_there_are() {
        let text = Profile::builtin("mars").unwrap_err().to_string();
        for word in ["mars", "loopback, lan, wifi, wan, lossy, split, primary, glomers", ".toml"] {
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn split_parts_even_from_odd_nodes_and_heals() {
        let split = Profile::builtin("split").unwrap();
        let cut = |from, to, ms: u32| split.link(from, to).is_cut(ms * MS);
        assert!(!cut(0, 1, 999) && cut(0, 1, 1000) && cut(1, 0, 3999) && !cut(0, 1, 4000));
        assert!(!cut(0, 2, 2000) && !cut(1, 3, 2000) && cut(4, 3, 2000));
        assert!(cut(0, 1, 11_500), "it comes back every ten seconds");
        assert_eq!(split.quiet_from(), None);
    }

    #[test]
    fn later_tables_win_key_by_key_and_one_way_means_one_way() {
        let profile = parse(
            "[groups]\nfar = [2, '5-6']\n\
             [default]\nlatency = '10ms'\nloss = '1%'\nbandwidth = '8 Mbit/s'\n\
             [[link]]\nfrom = '*'\nto = 'far'\nlatency = '50ms'\n\
             [[link]]\nfrom = 0\nto = 'far'\none_way = true\nloss = '0%'\nbandwidth = 'unlimited'",
        );
        let (there, back, near) = (profile.link(0, 5), profile.link(5, 0), profile.link(0, 1));
        assert_eq!((there.latency, there.loss, there.bandwidth), (50 * MS, 0.0, None));
        assert_eq!((back.latency, back.loss), (50 * MS, 0.01));
        assert_eq!((near.latency, near.bandwidth.map(u64::from)), (10 * MS, Some(1_000_000)));
        assert!(Arc::ptr_eq(&near, &profile.default_link()), "ordinary links share one value");
    }

    #[test]
    fn a_node_in_two_groups_bridges_them_and_one_in_none_talks_to_all() {
        let profile = parse(
            "[[partition]]\ngroups = ['0-1', '1-2']\nstart = '1s'\nend = '3s'\n\
             [[partition]]\nfrom = 7\nto = 8\none_way = true\nstart = '5s'\nfor = '1s'",
        );
        let cut = |from, to| profile.link(from, to).is_cut(2000 * MS);
        assert!(cut(0, 2) && cut(2, 0));
        assert!(!cut(0, 1) && !cut(1, 2) && !cut(0, 3) && !cut(3, 2));
        assert!(profile.link(7, 8).is_cut(5500 * MS) && !profile.link(8, 7).is_cut(5500 * MS));
        assert_eq!(profile.quiet_from(), Some(6000 * MS));
    }

    /// Each mistake is refused with the file, the key or line, and what would be allowed.
    #[test]
    fn mistakes_are_explained() {
        let cases: [(&str, &[&str]); 16] = [
            ("delay = '1ms'", &["delay", "line 2", "nodes", "partition"]),
            ("[default]\nlatancy = '1ms'", &["latancy", "line 3", "latency", "bandwidth"]),
            ("[default]\nlatency = 5", &["line 3", "a time with its unit", "1.5ms"]),
            ("[default]\nlatency = '5 parsecs'", &["line 3", "a time with its unit"]),
            ("[default]\nlatency = '20min'", &["`default.latency`", "at most 1m"]),
            ("[default]\nloss = 0.5", &["line 3", "a percentage in quotes"]),
            ("[default]\nloss = '101%'", &["line 3", "a percentage in quotes"]),
            ("[default]\nloss = 'NaN%'", &["line 3", "a percentage in quotes"]),
            ("[default]\nbandwidth = '5 MB/s'", &["line 3", "Mbit/s", "unlimited"]),
            ("[default]\nlatency='1ms'\njitter = '2ms'", &["`default.jitter`", "at most the"]),
            ("[[link]]\nfrom = 0\nto = 'moon'", &["`link[0].to`", "moon", "even"]),
            ("[[link]]\nfrom = 0\nto = 1\njitter = '2ms'", &["`link[0].jitter`"]),
            ("[[partition]]\nstart = '1s'\nfor = '1s'", &["`partition[0]`", "groups", "from"]),
            ("[[partition]]\nfrom=0\nto=1\nstart='1s'", &["`partition[0]`", "`for` or `end`"]),
            ("[[partition]]\nfrom=0\nto=1\nstart='2s'\nend='1s'", &["ends before it starts"]),
            ("nodes = 0", &["`nodes`", "from 1 to"]),
        ];
        for (text, words) in cases {
            let refusal = refusal(text);
            assert!(refusal.contains("test.toml"), "{refusal}");
            for word in words {
                assert!(refusal.contains(word), "{text:?} should mention {word:?}: {refusal}");
            }
        }
    }

    #[test]
    fn a_partition_that_never_heals_is_refused() {
        let text = refusal("[[partition]]\nfrom=0\nto=1\nstart='1s'\nfor='2s'\nevery='2s'");
        assert!(text.contains("partition[0].every") && text.contains("heals"), "{text}");
    }

    proptest! {
        /// Whatever the text, reading it ends in a profile or an error, never in a panic.
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z0-9=\\[\\]\"'%.\n -]{0,200}") {
            if let Err(error) = Profile::parse("noise.toml", &text) {
                prop_assert!(error.to_string().contains("noise.toml"));
            }
        }

        /// A one-way `from`/`to` rule reaches exactly the pairs it names.
        #[test]
        fn one_way_rules_reach_what_they_name(a in 0usize..9, b in 0usize..9, x in 0usize..9, y in 0usize..9) {
            let profile = parse(&format!(
                "[[link]]\nfrom = {a}\nto = {b}\none_way = true\nlatency = '7ms'"
            ));
            let special = profile.link(x, y).latency == 7 * MS;
            prop_assert_eq!(special, (x, y) == (a, b));
        }
    }
}
