//! Who has subscribed to what, and the commands for that.
//!
//! A message reaches the subscribers at this door straight away and those at other peers through the
//! node; `PUBLISH` answers how many there are here, as a Redis cluster does. Delivery is at most once.
//! A subscriber that does not keep up is closed by the same measure as in Redis (`connection`).
//!
//! The table is used by the door's thread only; the lock is there because it hangs on what connections
//! share. It is bounded by the bytes of all names in it.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use super::clients::Card;
use super::completions::Key;
use super::parse::Arguments;
use super::reply::Replies;
use super::settings::{PATTERN_BYTES_MAX, reply_pattern_too_long};
use crate::protocol::cell::KEY_BYTES_MAX;
use crate::protocol::glob;
use crate::protocol::message::{PUBLISHED_BYTES_MAX, Published};

/// The most bytes that all subscriptions of a door take together; Redis has no bound.
const TABLE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// About how many bytes a subscription takes beside its name.
const SUBSCRIPTION_BYTES: usize = 200;

/// What a client publishes, unless it is too long and that has been answered.
pub(super) fn published(arguments: Arguments<'_>, replies: &mut Replies) -> Option<Published> {
    let (channel, message) = (arguments.at(1).into(), arguments.at(2).into());
    let published = Published { channel, message };
    let fits = published.bytes() <= PUBLISHED_BYTES_MAX;
    if !fits {
        replies.error(format!(
            "ERR too long: a message, which travels to all peers, may take {PUBLISHED_BYTES_MAX} bytes"
        ));
    }
    fits.then_some(published)
}

/// What a client subscribes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    /// Channels of that name.
    Channel,
    /// Channels whose names match.
    Pattern,
}

type Name = Box<[u8]>;
type Topics = BTreeMap<Name, BTreeMap<u64, Key>>;

/// What one client has subscribed to.
#[derive(Debug, Default)]
pub(super) struct Subscribed {
    channels: BTreeSet<Name>,
    patterns: BTreeSet<Name>,
}

impl Subscribed {
    /// To how much.
    pub(super) fn count(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    fn of(&mut self, topic: Topic) -> &mut BTreeSet<Name> {
        match topic {
            Topic::Channel => &mut self.channels,
            Topic::Pattern => &mut self.patterns,
        }
    }

    fn tell(&self, card: &Card) {
        card.subscribes(self.channels.len(), self.patterns.len());
    }
}

/// What all clients of a door have subscribed to.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    channels: Topics,
    patterns: Topics,
    bytes: usize,
}

impl Table {
    fn of(&mut self, topic: Topic) -> &mut Topics {
        match topic {
            Topic::Channel => &mut self.channels,
            Topic::Pattern => &mut self.patterns,
        }
    }

    fn add(&mut self, topic: Topic, name: &Name, key: Key) -> bool {
        let bytes = SUBSCRIPTION_BYTES + 2 * name.len();
        if self.bytes + bytes > TABLE_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.of(topic).entry(name.clone()).or_default().insert(key.id, key);
        true
    }

    fn remove(&mut self, topic: Topic, name: &[u8], key: Key) {
        let topics = self.of(topic);
        let Some(clients) = topics.get_mut(name) else { return };
        if clients.remove(&key.id).is_none() {
            return;
        }
        if clients.is_empty() {
            topics.remove(name);
        }
        self.bytes -= SUBSCRIPTION_BYTES + 2 * name.len();
    }
}

impl Subscriptions {
    /// Whether nobody has subscribed to anything.
    pub(super) fn is_empty(&self) -> bool {
        let table = self.0.lock();
        table.channels.is_empty() && table.patterns.is_empty()
    }

    /// Who gets what is published on a channel, in Redis' order: first who subscribed to it, then, for
    /// each pattern that it matches, who subscribed to that.
    pub(super) fn receivers(&self, channel: &[u8]) -> Vec<(Key, Option<Name>)> {
        let table = self.0.lock();
        let exact = table.channels.get(channel).into_iter().flat_map(BTreeMap::values);
        let exact = exact.map(|key| (*key, None));
        let patterns = table.patterns.iter().filter(|(name, _)| glob::matches(name, channel));
        let matching = patterns
            .flat_map(|(name, clients)| clients.values().map(|key| (*key, Some(name.clone()))));
        exact.chain(matching).collect()
    }

    /// `SUBSCRIBE` and `PSUBSCRIBE`.
    pub(super) fn subscribe(
        &self,
        (topic, key, card): (Topic, Key, &Card),
        own: &mut Subscribed,
        names: Arguments<'_>,
        replies: &mut Replies,
    ) {
        let mut table = self.0.lock();
        for name in names.iter() {
            if topic == Topic::Pattern && name.len() > PATTERN_BYTES_MAX {
                reply_pattern_too_long(replies);
                break;
            }
            if name.len() > KEY_BYTES_MAX {
                replies.error(format!("ERR a channel's name may take {KEY_BYTES_MAX} bytes"));
                break;
            }
            let name = Name::from(name);
            if !own.of(topic).contains(&name) {
                if !table.add(topic, &name, key) {
                    replies.error("ERR the subscriptions at this peer take too much memory");
                    break;
                }
                own.of(topic).insert(name.clone());
            }
            replies.push(3);
            replies.bulk(if topic == Topic::Channel { "subscribe" } else { "psubscribe" });
            replies.bulk(&name);
            replies.count(own.count());
        }
        own.tell(card);
    }

    /// `UNSUBSCRIBE` and `PUNSUBSCRIBE`; without a name from everything.
    pub(super) fn unsubscribe(
        &self,
        (topic, key, card): (Topic, Key, &Card),
        own: &mut Subscribed,
        names: Arguments<'_>,
        replies: &mut Replies,
    ) {
        let word = if topic == Topic::Channel { "unsubscribe" } else { "punsubscribe" };
        let mut table = self.0.lock();
        let mut leave = |name: &[u8], own: &mut Subscribed| {
            if own.of(topic).remove(name) {
                table.remove(topic, name, key);
            }
            replies.push(3);
            replies.bulk(word);
            replies.bulk(name);
            replies.count(own.count());
        };
        if !names.is_empty() {
            names.iter().for_each(|name| leave(name, own));
        } else {
            let all: Vec<Name> = own.of(topic).iter().cloned().collect();
            all.iter().for_each(|name| leave(name, own));
            if all.is_empty() {
                replies.push(3);
                replies.bulk(word);
                replies.null();
                replies.count(own.count());
            }
        }
        own.tell(card);
    }

    /// Forgets all that a client has subscribed to.
    pub(super) fn forget(&self, key: Key, card: &Card, own: &mut Subscribed) {
        if own.count() == 0 {
            return;
        }
        let mut table = self.0.lock();
        let Subscribed { channels, patterns } = std::mem::take(own);
        channels.iter().for_each(|name| table.remove(Topic::Channel, name, key));
        patterns.iter().for_each(|name| table.remove(Topic::Pattern, name, key));
        own.tell(card);
    }

    /// `PUBSUB CHANNELS [pattern]`.
    pub(super) fn reply_channels(&self, rest: Arguments<'_>, replies: &mut Replies) {
        if rest.len() > 1 {
            return replies.error(
                "ERR unknown subcommand or wrong number of arguments for 'CHANNELS'. Try PUBSUB HELP.",
            );
        }
        let pattern = rest.get(0);
        if pattern.is_some_and(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
            return reply_pattern_too_long(replies);
        }
        let table = self.0.lock();
        let wanted = |name: &&Name| pattern.is_none_or(|pattern| glob::matches(pattern, name));
        let names: Vec<&Name> = table.channels.keys().filter(wanted).collect();
        replies.array(names.len());
        names.iter().for_each(|name| replies.bulk(name));
    }

    /// `PUBSUB NUMSUB [channel ...]`.
    pub(super) fn reply_counts(&self, names: Arguments<'_>, replies: &mut Replies) {
        let table = self.0.lock();
        replies.array(2 * names.len());
        for name in names.iter() {
            replies.bulk(name);
            replies.count(table.channels.get(name).map_or(0, BTreeMap::len));
        }
    }

    /// `PUBSUB NUMPAT`.
    pub(super) fn reply_patterns(&self, replies: &mut Replies) {
        replies.count(self.0.lock().patterns.len());
    }
}

/// Writes a message for a subscriber, in the version that `replies` speak.
pub(super) fn write_message(
    pattern: Option<&[u8]>,
    channel: &[u8],
    message: &[u8],
    replies: &mut Replies,
) {
    match pattern {
        None => {
            replies.push(3);
            replies.bulk("message");
        }
        Some(pattern) => {
            replies.push(4);
            replies.bulk("pmessage");
            replies.bulk(pattern);
        }
    }
    replies.bulk(channel);
    replies.bulk(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Law: whatever is added and removed, the books are those of what is left, and none is left in the
    /// end.
    #[test]
    fn the_books_are_kept() {
        let mut dice = fastrand::Rng::with_seed(7);
        let mut table = Table::default();
        let mut model = BTreeSet::new();
        for _ in 0..5_000 {
            let topic = if dice.bool() { Topic::Channel } else { Topic::Pattern };
            let name = Name::from(&b"abcdef"[..dice.usize(0..6)]);
            let key = Key { place: 0, id: dice.u64(0..4) };
            let entry = (topic == Topic::Channel, name.clone(), key.id);
            if model.contains(&entry) {
                table.remove(topic, &name, key);
                table.remove(topic, &name, key);
                model.remove(&entry);
            } else {
                assert!(table.add(topic, &name, key));
                model.insert(entry);
            }
            let bytes = model.iter().map(|(_, name, _)| SUBSCRIPTION_BYTES + 2 * name.len());
            assert_eq!(table.bytes, bytes.sum::<usize>());
            let names: BTreeSet<_> = model.iter().map(|(is, name, _)| (*is, name)).collect();
            assert_eq!(table.channels.len() + table.patterns.len(), names.len());
        }
        for (is_channel, name, id) in model {
            let topic = if is_channel { Topic::Channel } else { Topic::Pattern };
            table.remove(topic, &name, Key { place: 0, id });
        }
        assert_eq!((table.bytes, table.channels.len(), table.patterns.len()), (0, 0, 0));
    }
}
