//! foca, wrapped: its generics, timers and callbacks end here.
//!
//! foca does what SWIM describes; this file keeps its timers, collects what it wants sent, tells it
//! what was found out by other means (a suspicion, a death, a sign of life), and gossips whenever there
//! is something to tell, instead of at a fixed interval, so that an idle cluster stays silent.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Config, Foca, Member, NoCustomBroadcast, Notification, Runtime, State, Timer};

use super::peer::View;
use super::wire::{DATAGRAM_BYTES_MAX, ENDS_BYTES, Identity, Life, Wire, to_wire};
use crate::protocol::id::NodeId;
use crate::protocol::time::Time;

/// How often SWIM probes a member at random: the watch of neighbours notices a death sooner, this one
/// also notices when both died, and whether others can hear whom we cannot.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// What a direct answer may take before others are asked to ask: more than any profile's round trip.
const PROBE_ROUND_TRIP: Duration = Duration::from_millis(400);
/// How many others are asked, and to how many news is told at a time.
const FAN_OUT: NonZeroUsize = NonZeroUsize::new(3).expect("three");
/// When SWIM alone gives a suspect up. What it cannot refute in this time was heard by nobody.
const SUSPECT_TO_DOWN: Duration = Duration::from_secs(3);
/// How long a death is remembered, so that a straggling rumour does not wake the dead.
const REMEMBER_DOWN: Duration = Duration::from_secs(3600);
/// How often news is told to [`FAN_OUT`] others while there is any.
const GOSSIP_INTERVAL: Duration = Duration::from_millis(100);
/// Timers that may be pending. foca keeps a handful and one per recent death; a peer that dies more
/// often than this within [`REMEMBER_DOWN`] is remembered a shorter time.
const TIMERS_MAX: usize = 8192;

/// Dice for foca from a seed of ours.
struct Dice(fastrand::Rng);

impl rand_core::TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.u32(..))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.u64(..))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

/// What foca wants done.
#[derive(Default)]
struct Wishes {
    send: Vec<(NodeId, Vec<u8>)>,
    timers: Vec<(Timer<Identity>, Duration)>,
    /// The incarnation in the last packet sent: foca does not tell its own otherwise.
    incarnation: Option<u16>,
    renewals: u64,
}

impl Runtime<Identity> for Wishes {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        // States are read off the members; this one is not among them.
        if let Notification::Rejoin(_) = notification {
            self.renewals += 1;
            self.incarnation = Some(0);
        }
    }

    fn send_to(&mut self, to: Identity, packet: &[u8]) {
        if let Some((datagram, incarnation)) = to_wire(packet) {
            self.incarnation = Some(incarnation);
            self.send.push((to.node, datagram));
        }
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((event, after));
    }
}

/// SWIM among the members.
pub(super) struct Swim {
    foca: Foca<Identity, Wire, Dice, NoCustomBroadcast>,
    wishes: Wishes,
    /// By when, what kind (foca wants simultaneous ones in its order) and a running number.
    timers: BTreeMap<(Time, u8, u64), Timer<Identity>>,
    timers_made: u64,
    gossip_at: Option<Time>,
    incarnation: u16,
    changed: bool,
    members: usize,
}

impl Swim {
    pub(super) fn new(me: Identity, seed: u64) -> Self {
        Self {
            foca: Foca::new(me, config(1), Dice(fastrand::Rng::with_seed(seed)), Wire),
            wishes: Wishes::default(),
            timers: BTreeMap::new(),
            timers_made: 0,
            gossip_at: None,
            incarnation: 0,
            changed: false,
            members: 1,
        }
    }

    /// Who we are at present.
    pub(super) fn life(&self) -> Life {
        Life { renewal: self.foca.identity().renewal, incarnation: self.incarnation }
    }

    pub(super) fn renewals(&self) -> u64 {
        self.wishes.renewals
    }

    /// What SWIM thinks of everybody that it knows.
    pub(super) fn members(&self) -> impl Iterator<Item = (Identity, View)> {
        self.foca.iter_membership_state().map(|member| {
            let view = View { state: member.state(), incarnation: member.incarnation() };
            (*member.id(), view)
        })
    }

    /// Whether that may have changed since the last time.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn take_sends(&mut self) -> Vec<(NodeId, Vec<u8>)> {
        std::mem::take(&mut self.wishes.send)
    }

    /// When [`Swim::pass_time`] has something to do.
    pub(super) fn due(&self) -> Option<Time> {
        let timer = self.timers.keys().next().map(|(due, ..)| *due);
        timer.into_iter().chain(self.gossip_at).min()
    }

    /// Does what is due.
    pub(super) fn pass_time(&mut self, now: Time) {
        // Only what was due before: a timer of no length must not turn this into a loop.
        let later = self.timers.split_off(&(now, u8::MAX, u64::MAX));
        let due = std::mem::replace(&mut self.timers, later);
        for timer in due.into_values() {
            // Errors are foca's bookkeeping (a probe cycle that time made no sense of); it goes on.
            let _ = self.foca.handle_timer(timer, &mut self.wishes);
            self.settle(now);
        }
        if self.gossip_at.is_some_and(|at| at <= now) {
            self.gossip_at = None;
            let _ = self.foca.gossip(&mut self.wishes);
            self.settle(now);
        }
    }

    /// Takes in a packet.
    pub(super) fn packet(&mut self, packet: &[u8], now: Time) {
        // What foca refuses changes nothing: a probe of a former self, or about ourselves.
        let _ = self.foca.handle_data(packet, &mut self.wishes);
        self.settle(now);
    }

    /// Greets a peer, by which both get to know each other.
    pub(super) fn announce(&mut self, peer: Identity, now: Time) {
        let _ = self.foca.announce(peer, &mut self.wishes);
        self.settle(now);
    }

    /// Tells SWIM that a member does not answer.
    pub(super) fn suspect(&mut self, member: Identity, now: Time) {
        let known = self.members().find(|(identity, _)| *identity == member);
        if let Some((_, View { state: State::Alive, incarnation })) = known {
            self.apply(Member::new(member, incarnation, State::Suspect), now);
        }
    }

    /// Tells SWIM that a member was found dead.
    pub(super) fn down(&mut self, member: Identity, now: Time) {
        let known = self.members().find(|(identity, _)| *identity == member);
        if let Some((_, view)) = known.filter(|(_, view)| view.is_active()) {
            self.apply(Member::new(member, view.incarnation, State::Down), now);
        }
    }

    /// Tells SWIM what a member said of itself.
    pub(super) fn alive(&mut self, member: Identity, life: Life, now: Time) {
        self.apply(Member::new(member, life.incarnation, State::Alive), now);
    }

    /// Somebody suspects us: refutes it, unless that is done already.
    pub(super) fn accused(&mut self, as_what: Life, now: Time) {
        let life = self.life();
        if as_what.renewal == life.renewal && as_what.incarnation >= life.incarnation {
            // foca takes the next one; it says so with the next packet, which may have nobody to go to.
            self.incarnation = as_what.incarnation.saturating_add(1);
            let me = *self.foca.identity();
            self.apply(Member::new(me, as_what.incarnation, State::Suspect), now);
        }
    }

    /// Comes back under a renewal above one that others hold against us.
    pub(super) fn renew_above(&mut self, theirs: u64, now: Time) {
        let me = Identity { renewal: theirs.saturating_add(1), ..*self.foca.identity() };
        if self.foca.change_identity(me, &mut self.wishes).is_ok() {
            self.wishes.renewals += 1;
            self.incarnation = 0;
        }
        self.settle(now);
    }

    /// Fits the life of rumours to the number of those that have to hear them.
    pub(super) fn resize(&mut self, members: usize) {
        if members != self.members {
            self.members = members;
            let _ = self.foca.set_config(config(members));
        }
    }

    fn apply(&mut self, member: Member<Identity>, now: Time) {
        let _ = self.foca.apply_many(std::iter::once(member), true, &mut self.wishes);
        self.settle(now);
    }

    /// Keeps the timers that were asked for, and plans to gossip if there is news.
    fn settle(&mut self, now: Time) {
        self.changed = true;
        if let Some(incarnation) = self.wishes.incarnation.take() {
            self.incarnation = incarnation;
        }
        for (timer, after) in self.wishes.timers.drain(..) {
            let kind = match timer {
                Timer::SendIndirectProbe { .. } => 0,
                Timer::ProbeRandomMember(_) => 1,
                _ => 2,
            };
            self.timers_made += 1;
            self.timers.insert((now + after, kind, self.timers_made), timer);
        }
        while self.timers.len() > TIMERS_MAX {
            self.timers.pop_last();
        }
        if self.gossip_at.is_none() && self.foca.updates_backlog() > 0 {
            self.gossip_at = Some(now + GOSSIP_INTERVAL);
        }
    }
}

/// foca's settings among so many members.
fn config(members: usize) -> Config {
    // Three times the logarithm: a rumour that everybody who hears it passes on so often reaches all,
    // with a tenth of all packets lost (Das et al. 2002, section 4.1).
    let transmissions = 3 * (usize::BITS - members.leading_zeros()).max(2);
    let transmissions = u8::try_from(transmissions).ok().and_then(NonZeroU8::new);
    let packet_bytes = NonZeroUsize::new(ENDS_BYTES + DATAGRAM_BYTES_MAX);
    Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_ROUND_TRIP,
        num_indirect_probes: FAN_OUT,
        max_transmissions: transmissions.expect("between 6 and 192"),
        suspect_to_down_after: SUSPECT_TO_DOWN,
        remove_down_after: Some(REMEMBER_DOWN),
        max_packet_size: packet_bytes.expect("more than nothing"),
        notify_down_members: true,
        periodic_announce: None,
        periodic_announce_to_down_members: None,
        periodic_gossip: None,
    }
}
