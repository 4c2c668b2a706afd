//! What a comparison compares: the axes, their names, and the product of them.
//!
//! A *strategy* has two parts that are free of each other. Rounds (`push`, `pull`, `push-pull`) are
//! the promise that everybody gets everything; eager push, which sends each write to the peers at
//! once, only makes it sooner. On the command line the parts are joined as they are spoken:
//! `eager+push-pull` is eager push over push-pull rounds (what a node does unless told otherwise)
//! and `push-pull` is those rounds alone. In JSON they are two fields, `strategy` and `eager`.
//!
//! A *configuration* is one point of the product consistency × strategy × profile × nodes; it is
//! run one or more times, each *run* with a seed of its own. All configurations of a comparison
//! share those seeds, so that run 2 of one faces the same load as run 2 of another.
//!
//! What must stay true: a [`CompareConfig`] and the version of the program say everything about a
//! comparison, and [`CompareConfig::command_line`] turns it back into the command that repeats it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::workload::{Arrivals, Workload};
use crate::protocol::config::Strategy;
use crate::protocol::profile::Profile;

/// The promise that readers get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// Every node accepts writes, and all agree sooner or later.
    Eventual,
    /// Writes go through a primary, and no read is older than an acknowledged write.
    Strong,
}

/// How writes spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spreading {
    /// Whether each write is also sent to the peers at once.
    pub eager: bool,
    /// In which direction the periodic rounds carry data.
    pub strategy: Strategy,
}

/// Everything that a comparison is asked to do.
#[derive(Debug, Clone)]
pub struct CompareConfig {
    /// The modes to compare.
    pub consistency: Vec<Consistency>,
    /// The strategies to compare.
    pub strategies: Vec<Spreading>,
    /// The links to compare, and the cluster sizes for each.
    pub links: Vec<Links>,
    /// How many writes each run issues, over all nodes.
    pub writes: usize,
    /// Writes per second, over all nodes.
    pub rate: f64,
    /// How the instants of the writes are drawn.
    pub arrivals: Arrivals,
    /// How many distinct keys are written.
    pub keys: usize,
    /// The length of each value.
    pub value_bytes: usize,
    /// The period of each node's rounds.
    pub interval: Duration,
    /// To how many peers a write is pushed eagerly; the node's own choice if absent.
    pub fanout: Option<usize>,
    /// How often each configuration is run.
    pub runs: usize,
    /// Whence the seed of each run comes.
    pub seed: u64,
    /// How long after the last write a run waits for convergence; what is not there then is
    /// censored.
    pub deadline: Duration,
    /// Whether the runs take place in virtual time.
    pub simulate: bool,
}

/// Links, and the cluster sizes that are measured on them.
#[derive(Debug, Clone)]
pub struct Links {
    /// What each link does.
    pub profile: Arc<Profile>,
    /// The cluster sizes: those asked for, else the profile's own, else those assumed.
    pub nodes: Vec<usize>,
}

/// One point of the product that a comparison runs through.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The mode.
    pub consistency: Consistency,
    /// The strategy.
    pub spreading: Spreading,
    /// The links.
    pub profile: Arc<Profile>,
    /// The cluster's size.
    pub nodes: usize,
}

/// Says why a word is not a value of one of the axes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No strategy has this name.
    #[error(
        "{0:?} is not a strategy: expected push, pull or push-pull, each with or without \
         eager push in front, as in eager+push-pull"
    )]
    Spreading(String),
    /// No mode has this name.
    #[error("{0:?} is not a consistency: expected eventual or strong")]
    Consistency(String),
}

impl CompareConfig {
    /// All configurations, in the order in which they are run: the axes that people compare most
    /// closely (mode, then strategy) vary fastest, so that what is compared is measured side by
    /// side and a machine that slows down meanwhile touches both.
    pub fn configurations(&self) -> Vec<Configuration> {
        let mut configurations = Vec::new();
        for links in &self.links {
            for nodes in &links.nodes {
                for (at, spreading) in self.strategies.iter().enumerate() {
                    for consistency in &self.consistency {
                        // All that votes takes the log's writes from the log: once suffices.
                        if *consistency == Consistency::Strong && at > 0 {
                            continue;
                        }
                        configurations.push(Configuration {
                            consistency: *consistency,
                            spreading: *spreading,
                            profile: Arc::clone(&links.profile),
                            nodes: *nodes,
                        });
                    }
                }
            }
        }
        configurations
    }

    /// The load of run `run` (from 0) in a cluster of `nodes`.
    pub fn workload(&self, nodes: usize, run: usize) -> Workload {
        Workload {
            writes: self.writes,
            rate: self.rate,
            arrivals: self.arrivals,
            nodes,
            keys: self.keys,
            value_bytes: self.value_bytes,
            seed: self.run_seed(run),
        }
    }

    /// The seed of run `run` (from 0): the first is the comparison's own, so that a single run of a
    /// long comparison can be repeated by itself.
    pub fn run_seed(&self, run: usize) -> u64 {
        self.seed.wrapping_add(run as u64)
    }

    /// The command that repeats this comparison, every parameter spelt out.
    pub fn command_line(&self) -> String {
        let mut command = format!(
            "quorumor compare --consistency {} --strategies {} --profiles {}{} \
             --writes {} --rate {} --keys {} --values {} --interval {} --runs {} --seed {} \
             --deadline {}",
            joined(&self.consistency),
            joined(&self.strategies),
            self.links
                .iter()
                .map(|links| quoted(links.profile.name()))
                .collect::<Vec<_>>()
                .join(","),
            self.nodes_flag(),
            self.writes,
            self.rate,
            self.keys,
            self.value_bytes,
            spaceless(self.interval),
            self.runs,
            self.seed,
            spaceless(self.deadline),
        );
        if let Some(fanout) = self.fanout {
            command.push_str(&format!(" --fanout {fanout}"));
        }
        if self.arrivals == Arrivals::Even {
            command.push_str(" --even");
        }
        if self.simulate {
            command.push_str(" --simulate");
        }
        command
    }

    /// The flag for the cluster sizes. Sizes that differ between profiles were never asked for, but
    /// came from the profiles, and will come from there again.
    fn nodes_flag(&self) -> String {
        let own = |links: &Links| links.profile.nodes().map(|nodes| vec![nodes]);
        let assumed = self.links.iter().find(|links| own(links).as_ref() != Some(&links.nodes));
        let first = self.links.first().map_or(&[][..], |links| &links.nodes);
        if self.links.iter().all(|links| links.nodes == first) {
            format!(" --nodes {}", joined(first))
        } else {
            let quick = assumed.is_some_and(|links| links.nodes == NODES_QUICK);
            if quick { " --quick".to_owned() } else { String::new() }
        }
    }
}

/// The cluster sizes that are assumed where neither the user nor the profile names any.
pub const NODES_ASSUMED: &[usize] = &[3, 5];

/// The same, if it has to be quick.
pub const NODES_QUICK: &[usize] = &[5];

/// A duration as the command line takes it.
fn spaceless(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

/// A word as a shell takes it: quoted unless it is plain.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn joined<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

impl FromStr for Spreading {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (eager, rounds) = match text.strip_prefix("eager+") {
            Some(rounds) => (true, rounds),
            None => (false, text),
        };
        let strategy = rounds.parse().map_err(|_| ConfigError::Spreading(text.to_owned()))?;
        Ok(Self { eager, strategy })
    }
}

impl fmt::Display for Spreading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.eager { "eager+" } else { "" }, self.strategy)
    }
}

impl FromStr for Consistency {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "eventual" => Ok(Consistency::Eventual),
            "strong" => Ok(Consistency::Strong),
            _ => Err(ConfigError::Consistency(text.to_owned())),
        }
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Consistency::Eventual => "eventual",
            Consistency::Strong => "strong",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn links(name: &str, nodes: &[usize]) -> Links {
        Links { profile: Arc::new(Profile::builtin(name).unwrap()), nodes: nodes.to_vec() }
    }

    /// Two strategies, one profile, two sizes; for tests all over the lab.
    pub(crate) fn small_config() -> CompareConfig {
        CompareConfig {
            consistency: vec![Consistency::Eventual],
            strategies: vec!["eager+push-pull".parse().unwrap(), "pull".parse().unwrap()],
            links: vec![links("lan", &[3, 5])],
            writes: 200,
            rate: 100.0,
            arrivals: Arrivals::Poisson,
            keys: 50,
            value_bytes: 100,
            interval: Duration::from_millis(100),
            fanout: None,
            runs: 2,
            seed: 42,
            deadline: Duration::from_secs(10),
            simulate: false,
        }
    }

    /// All six strategies are written as they are read.
    #[test]
    fn strategies_have_names() {
        for name in ["push", "pull", "push-pull", "eager+push", "eager+pull", "eager+push-pull"] {
            assert_eq!(name.parse::<Spreading>().unwrap().to_string(), name);
        }
        for name in ["", "eager", "eager+", "pushpull", "eager+eager+push", "PUSH"] {
            assert_eq!(name.parse::<Spreading>(), Err(ConfigError::Spreading(name.to_owned())));
        }
    }

    /// Two strategies and two sizes make four configurations, strategies side by side.
    #[test]
    fn the_product_puts_what_is_compared_side_by_side() {
        let found: Vec<String> = small_config()
            .configurations()
            .iter()
            .map(|point| format!("{} {} {}", point.profile.name(), point.nodes, point.spreading))
            .collect();
        assert_eq!(
            found,
            ["lan 3 eager+push-pull", "lan 3 pull", "lan 5 eager+push-pull", "lan 5 pull"]
        );
    }

    /// The command names every parameter and quotes what a shell would take apart.
    #[test]
    fn the_command_says_everything() {
        assert_eq!(
            small_config().command_line(),
            "quorumor compare --consistency eventual --strategies eager+push-pull,pull \
             --profiles lan --nodes 3,5 --writes 200 --rate 100 --keys 50 --values 100 \
             --interval 100ms --runs 2 --seed 42 --deadline 10s"
        );
        let text = "description = 'two nodes'";
        let profile = Arc::new(Profile::parse("my links.toml", text).unwrap());
        let config = CompareConfig {
            links: vec![Links { profile, nodes: vec![2] }],
            fanout: Some(4),
            arrivals: Arrivals::Even,
            simulate: true,
            interval: Duration::from_millis(1_500),
            ..small_config()
        };
        let command = config.command_line();
        assert!(command.contains("--profiles 'my links.toml'"), "{command}");
        assert!(command.contains("--interval 1s500ms"), "{command}");
        assert!(command.ends_with("--fanout 4 --even --simulate"), "{command}");
    }
}
