//! Which addresses are worth dialling, and how often: the table behind `dial`.
//!
//! Addresses come with three degrees of trust. A *seed* was named by whoever runs this node: it is
//! kept for ever. An address that a member *told* of, and one that was *heard* on the LAN from
//! anybody at all, are hints: they are dialled at a bounded rate and forgotten when nobody answers.
//! Each kind has a share of the table of its own, so that hints cannot push out seeds, nor what is
//! shouted on the LAN what members say.
//!
//! A hint that led to a link becomes *met*. A member that was met and lost is looked for a day long,
//! and the last few of them for ever, so that isolation heals even where no seed was named.
//!
//! What must stay true: any number of hints costs a bounded table, bounded tasks (one per entry) and
//! a bounded number of dials per second; the time comes in as a value, so that this can be shown.
//!
//! Left out: judging who tells the truth. A flood can crowd out honest hints while it lasts; the
//! share per source makes that take many sources, and seeds are not touched.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::protocol::id::NodeId;

/// Addresses named by whoever runs the node. Each has a task of about 2 kB.
const SEEDS_MAX: usize = 1024;
/// Addresses that members told of: as many as one of their messages may hold.
const TOLD_MAX: usize = 1024;
/// Addresses heard on the LAN: 64 nodes with four addresses each. In a larger cluster the first
/// links bring the rest, as members tell of each other.
const HEARD_MAX: usize = 256;
/// Addresses heard from one source: the network cards of one machine, IPv4 and IPv6.
const HEARD_PER_SOURCE_MAX: usize = 16;
/// How long a hint is dialled that never led to a link. It may come again after that.
pub(super) const HINT_LIFETIME: Duration = Duration::from_secs(120);
/// How long a member that was met is looked for after it was lost.
const MET_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// So many members that were met are looked for without an end.
const MET_KEPT: usize = 8;
/// The shortest time between two dials of a hint.
pub(super) const HINT_DIAL_INTERVAL: Duration = Duration::from_secs(1);
/// Dials of all hints together in one second: a packet of 1,200 bytes each, and few enough to go
/// unnoticed by whoever is dialled by mistake.
const HINT_DIALS_PER_SECOND: u32 = 64;

/// Where an address comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// From whoever runs this node.
    Seed,
    /// From a member.
    Told,
    /// From the LAN; the address that the packet came from.
    Heard(IpAddr),
}

/// Names one stay of an address in the table, so that a task knows whether it is still its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ticket(u64);

/// What became of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Added {
    /// It is new: somebody has to dial it.
    New(Ticket),
    /// It was there.
    Known,
    /// There is no room for more of its kind.
    Full,
}

/// What to do about an address now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// Dial it.
    Dial,
    /// Not before that instant.
    At(Instant),
    /// It is no candidate any more.
    Gone,
}

#[derive(Debug)]
struct Candidate {
    ticket: Ticket,
    source: Source,
    /// When it came, or was last linked.
    since: Instant,
    dialled: Option<Instant>,
    /// Who answered there, once somebody did.
    met: Option<NodeId>,
}

impl Candidate {
    fn expires(&self) -> Option<Instant> {
        let lifetime = match (self.source, self.met) {
            (Source::Seed, _) => return None,
            (_, Some(_)) => MET_LIFETIME,
            (_, None) => HINT_LIFETIME,
        };
        Some(self.since + lifetime)
    }
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    entries: HashMap<SocketAddr, Candidate>,
    tickets: u64,
    /// The second in which hints are counted, and how many were dialled in it.
    window: Option<(Instant, u32)>,
}

impl Candidates {
    /// Takes an address in. One that is there already keeps the better of its two sources.
    pub(super) fn add(&mut self, address: SocketAddr, source: Source, now: Instant) -> Added {
        if let Some(known) = self.entries.get(&address) {
            let better = match (known.source, source) {
                (Source::Seed, _) | (_, Source::Heard(_)) | (Source::Told, Source::Told) => false,
                (_, Source::Seed | Source::Told) => true,
            };
            if better && self.has_room(source, now) {
                self.entries.entry(address).and_modify(|known| known.source = source);
            }
            return Added::Known;
        }
        if !self.has_room(source, now) {
            return Added::Full;
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let candidate = Candidate { ticket, source, since: now, dialled: None, met: None };
        self.entries.insert(address, candidate);
        Added::New(ticket)
    }

    /// Whether one more from there fits. Looks at what has expired only when it is full.
    fn has_room(&mut self, source: Source, now: Instant) -> bool {
        if self.fits(source) {
            return true;
        }
        // A full table is swept at most once for each that expires: the sweep is as long as the
        // table, which is short.
        let expired = |it: &Candidate| it.expires().is_some_and(|at| at <= now);
        if self.entries.values().any(|it| it.met.is_none() && expired(it)) {
            self.entries.retain(|_, it| it.met.is_some() || !expired(it));
        }
        self.fits(source)
    }

    fn fits(&self, source: Source) -> bool {
        let count = |like: &dyn Fn(&Source) -> bool| {
            self.entries.values().filter(|it| like(&it.source)).count()
        };
        match source {
            Source::Seed => count(&|it| *it == Source::Seed) < SEEDS_MAX,
            Source::Told => count(&|it| *it == Source::Told) < TOLD_MAX,
            Source::Heard(_) => {
                count(&|it| matches!(it, Source::Heard(_))) < HEARD_MAX
                    && count(&|it| *it == source) < HEARD_PER_SOURCE_MAX
            }
        }
    }

    /// Whether an address may be dialled now; if so, that is noted as done.
    pub(super) fn turn(&mut self, address: SocketAddr, ticket: Ticket, now: Instant) -> Turn {
        let Some(candidate) = self.entries.get(&address).filter(|it| it.ticket == ticket) else {
            return Turn::Gone;
        };
        if self.is_over(candidate, now) {
            self.entries.remove(&address);
            return Turn::Gone;
        }
        if candidate.source != Source::Seed && candidate.met.is_none() {
            let next = candidate.dialled.map(|last| last + HINT_DIAL_INTERVAL);
            if let Some(next) = next.filter(|next| *next > now) {
                return Turn::At(next);
            }
            let (began, dials) = match self.window {
                Some((began, dials)) if now < began + Duration::from_secs(1) => (began, dials),
                _ => (now, 0),
            };
            if dials >= HINT_DIALS_PER_SECOND {
                return Turn::At(began + Duration::from_secs(1));
            }
            self.window = Some((began, dials + 1));
        }
        self.entries.entry(address).and_modify(|it| it.dialled = Some(now));
        Turn::Dial
    }

    fn is_over(&self, candidate: &Candidate, now: Instant) -> bool {
        if candidate.expires().is_none_or(|at| at > now) {
            return false;
        }
        candidate.met.is_none()
            || self.entries.values().filter(|it| it.met.is_some()).count() > MET_KEPT
    }

    /// A member answered there.
    pub(super) fn met(&mut self, address: SocketAddr, ticket: Ticket, peer: NodeId, now: Instant) {
        if let Some(candidate) = self.entries.get_mut(&address).filter(|it| it.ticket == ticket) {
            candidate.met = Some(peer);
            candidate.since = now;
        }
    }

    /// Whether the address is still the one that was given this ticket.
    pub(super) fn holds(&self, address: SocketAddr, ticket: Ticket) -> bool {
        self.entries.get(&address).is_some_and(|it| it.ticket == ticket)
    }

    /// Whether the address was named by whoever runs the node.
    pub(super) fn is_seed(&self, address: SocketAddr) -> bool {
        self.entries.get(&address).is_some_and(|it| it.source == Source::Seed)
    }

    /// Whether the address is in the table.
    #[cfg(test)]
    pub(super) fn knows(&self, address: SocketAddr) -> bool {
        self.entries.contains_key(&address)
    }

    /// How many hints are kept.
    pub(super) fn hints(&self) -> usize {
        self.entries.values().filter(|it| it.source != Source::Seed).count()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LIAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));

    fn address(number: u32) -> SocketAddr {
        (Ipv4Addr::from(0x0a00_0000 + number), 7400).into()
    }

    fn new(added: Added) -> Ticket {
        match added {
            Added::New(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    /// Plays the tasks of all entries for `seconds` of 10 ms each, and counts the dials.
    fn dial_all(
        table: &mut Candidates,
        tickets: &[(SocketAddr, Ticket)],
        from: Instant,
        seconds: u32,
    ) -> HashMap<SocketAddr, Vec<Instant>> {
        let mut dials: HashMap<SocketAddr, Vec<Instant>> = HashMap::new();
        for step in 0..seconds * 100 {
            let now = from + Duration::from_millis(10) * step;
            for (address, ticket) in tickets {
                if table.turn(*address, *ticket, now) == Turn::Dial {
                    dials.entry(*address).or_default().push(now);
                }
            }
        }
        dials
    }

    /// 100,000 fake addresses from one source or from as many sources take a bounded table, at most
    /// a dial per second each and 64 for all together, leave seeds alone, and are forgotten.
    #[test]
    fn a_flood_of_hints_is_bounded_in_memory_and_dials() {
        let began = Instant::now();
        for many_sources in [false, true] {
            let mut table = Candidates::default();
            let seed = (address(1), new(table.add(address(1), Source::Seed, began)));
            let mut taken = Vec::new();
            for number in 0..100_000 {
                let liar = Ipv4Addr::from(0x0b00_0000 + number).into();
                let source = Source::Heard(if many_sources { liar } else { LIAR });
                match table.add(address(1000 + number), source, began) {
                    Added::New(ticket) => taken.push((address(1000 + number), ticket)),
                    added => assert_eq!(added, Added::Full),
                }
            }
            let most = if many_sources { HEARD_MAX } else { HEARD_PER_SOURCE_MAX };
            assert_eq!((taken.len(), table.hints()), (most, most));
            let seconds = 20;
            let dials = dial_all(&mut table, &taken, began, seconds);
            let all: usize = dials.values().map(Vec::len).sum();
            let bound = HINT_DIALS_PER_SECOND * seconds;
            assert!(all > 0 && all <= bound as usize, "{all} dials");
            for times in dials.values() {
                assert!(times.windows(2).all(|two| two[1] - two[0] >= HINT_DIAL_INTERVAL));
            }
            assert_eq!(table.turn(seed.0, seed.1, began), Turn::Dial, "the seed is not held up");
            let late = began + HINT_LIFETIME;
            let honest = new(table.add(address(2), Source::Heard(LIAR), late));
            assert_eq!(table.turn(address(2), honest, late), Turn::Dial);
            assert_eq!(table.hints(), 1, "the flood is forgotten");
            assert_eq!(table.turn(seed.0, seed.1, late), Turn::Dial, "a seed is kept for ever");
        }
    }

    /// Seeds never expire; a hint that nobody answers at does, even when it is heard again and
    /// again; one that led to a link is kept for a day, and the last few for ever.
    #[test]
    fn hints_expire_and_seeds_do_not() {
        let began = Instant::now();
        let mut table = Candidates::default();
        let seed = new(table.add(address(1), Source::Seed, began));
        let hint = new(table.add(address(2), Source::Told, began));
        let just_before = began + HINT_LIFETIME - Duration::from_millis(1);
        assert_eq!(table.add(address(2), Source::Told, just_before), Added::Known);
        assert_eq!(table.turn(address(2), hint, just_before), Turn::Dial);
        assert_eq!(table.turn(address(2), hint, began + HINT_LIFETIME), Turn::Gone);
        assert!(!table.holds(address(2), hint));

        let met: Vec<_> = (10..20)
            .map(|number| {
                let ticket = new(table.add(address(number), Source::Told, began));
                table.met(address(number), ticket, NodeId(number.into()), began);
                (address(number), ticket)
            })
            .collect();
        let year = began + Duration::from_secs(365 * 24 * 60 * 60);
        for (address, ticket) in &met {
            assert_eq!(table.turn(*address, *ticket, began + HINT_LIFETIME), Turn::Dial);
        }
        let left = met
            .iter()
            .filter(|(address, ticket)| table.turn(*address, *ticket, year) == Turn::Dial);
        assert_eq!(left.count(), MET_KEPT);
        assert_eq!(table.turn(address(1), seed, year), Turn::Dial);
    }

    /// Hints take no place of seeds, whichever came first, and an address rises to the better source.
    #[test]
    fn each_source_has_its_own_room() {
        let now = Instant::now();
        let mut table = Candidates::default();
        let told = u32::try_from(TOLD_MAX).unwrap();
        let seeds = u32::try_from(SEEDS_MAX).unwrap();
        for number in 0..told {
            new(table.add(address(number), Source::Told, now));
        }
        assert_eq!(table.add(address(told), Source::Told, now), Added::Full);
        for number in 0..seeds {
            new(table.add(address(100_000 + number), Source::Seed, now));
        }
        assert_eq!(table.add(address(200_000), Source::Seed, now), Added::Full);
        let heard = new(table.add(address(300_000), Source::Heard(LIAR), now));
        assert_eq!(table.add(address(300_000), Source::Told, now), Added::Known);
        assert_eq!(table.turn(address(300_000), heard, now + HINT_LIFETIME), Turn::Gone);

        let mut table = Candidates::default();
        let ticket = new(table.add(address(1), Source::Heard(LIAR), now));
        assert_eq!(table.add(address(1), Source::Seed, now), Added::Known);
        assert_eq!(table.turn(address(1), ticket, now + HINT_LIFETIME), Turn::Dial);
        assert_eq!(table.hints(), 0);
    }

    /// A task whose address was forgotten and came back does not dial beside the new task.
    #[test]
    fn an_old_ticket_is_worth_nothing() {
        let began = Instant::now();
        let mut table = Candidates::default();
        let old = new(table.add(address(1), Source::Told, began));
        let late = began + HINT_LIFETIME;
        assert_eq!(table.turn(address(1), old, late), Turn::Gone);
        let fresh = new(table.add(address(1), Source::Told, late));
        assert_eq!(table.turn(address(1), old, late), Turn::Gone);
        assert_eq!(table.turn(address(1), fresh, late), Turn::Dial);
        assert!(table.holds(address(1), fresh) && !table.holds(address(1), old));
    }
}
