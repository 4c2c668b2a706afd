//! Stories of what clients ask for, through the log and past it.

use super::super::super::message::Message;
use super::super::requests::{Asker, WAITING_MAX};
use super::*;
use crate::protocol::boundary::Token;
use crate::protocol::operation::{Answer, End, Ends, Keys, Lists};
use crate::protocol::time::WallTime;

/// What one slot writes may be more than the journal takes in one piece: a voter comes back with all of
/// it. What nobody could hold is refused, by all alike.
#[test]
fn a_slot_may_write_much() {
    let mut cluster = Cluster::new(1, |config| {
        config.starts_strong = true;
        config.voters = 1;
    });
    cluster.write(0, "a", "1");
    let keys: Vec<_> = (0..8).map(|key| format!("long{key}")).collect();
    let mut output = Output::default();
    let shard = cluster.shards[0].as_mut().unwrap();
    for (token, key) in (0..).zip(&keys) {
        let (key, value) = (Argument(key.as_bytes()), Argument(b"v"));
        let operation = Operation::Text(Text::SetRange { key, offset: 60_000_000, value });
        let moment = Moment { wall: WallTime(5), dice: 0 };
        let request = Request::Operate { operation: &operation, moment };
        shard.handle(cluster.now, Input::Request(Token(token), request), &mut output);
    }
    cluster.carry_out(0, output);
    let answers: Vec<_> = (0..8).map(|token| cluster.answer(Token(token))).collect();
    let done = |reply: &Reply| matches!(reply, Reply::Operated { written: Some(_), .. });
    assert!(answers[..5].iter().all(done) && !answers[5..].iter().any(done));
    cluster.stop(0);
    cluster.start(0);
    for (number, key) in keys.iter().enumerate() {
        let length = Operation::Text(Text::Length(Argument(key.as_bytes())));
        let token = cluster.operate(0, &length);
        let expected = if number < 5 { 60_000_001 } else { 0 };
        let reply = cluster.answer(token);
        let Reply::Operated { answer: Answer::Integer(length), .. } = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(length, expected);
    }
}

/// A peer is told of what it had passed on only once that is durable here, also when it was executed
/// past the log.
#[test]
fn what_was_passed_on_is_answered_when_it_is_durable() {
    let mut cluster = Cluster::new(2, plain);
    let peer = Cluster::id(1);
    let shard = cluster.shards[0].as_mut().unwrap();
    let (key, value) = (Argument(b"key"), Argument(b"value"));
    let (expiry, when) = (Expiry::None, When::Always);
    let set = Operation::Text(Text::Set { key, value, expiry, when, get: false });
    let call = Call { operation: set.encode(), moment: Moment::default() };
    let mut output = Output::default();
    shard.dispatch(cluster.now, Asker::Peer(peer, 7), call, &mut output);
    shard.finish(cluster.now, &mut output);
    let is_outcome = |send: &super::super::super::boundary::Send| matches!(&send.envelope.message, Message::Strong(word) if matches!(**word, Word::Forwarded { .. }));
    assert!(!output.append.records.is_empty() && !output.send.iter().any(is_outcome));
    let token = output.append.tell.unwrap();
    let mut output = Output::default();
    shard.handle(cluster.now, Input::Durable(token), &mut output);
    assert_eq!(output.send.iter().filter(|send| is_outcome(send)).count(), 1);
}

/// A voter of whose records a part is missing comes back under another number, as it could contradict
/// what it has said; the cluster goes on, and it holds everything again.
#[test]
fn a_voter_with_holes_in_its_records_is_a_new_one() {
    let mut cluster = Cluster::new(3, strong);
    (0..20).for_each(|number| cluster.write(number % 3, "a", &number.to_string()));
    let before = cluster.shards[2].as_ref().unwrap().strong_status().voter;
    assert!(before.is_some());
    cluster.stop(2);
    cluster.salvage(2);
    assert_eq!(cluster.value(0, "a").as_deref(), Some("19"));
    cluster.write(0, "a", "20");
    assert_eq!(cluster.value(2, "a").as_deref(), Some("20"));
    cluster.pass(Duration::from_secs(5));
    let after = cluster.shards[2].as_ref().unwrap().strong_status().voter;
    assert!(after.is_some() && after != before, "{:#?}", cluster.status());
    cluster.stop(0);
    cluster.write(1, "a", "21");
    assert_eq!(cluster.value(2, "a").as_deref(), Some("21"));
}

/// A client that sends many writes at once sees them done in their order, also where they are more than
/// one entry, or one word to a voter, may take: from a voter, and from a member that does not vote.
#[test]
fn many_writes_at_once_are_done_in_their_order() {
    let mut cluster = Cluster::new(4, |config| config.voters = 3);
    assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
    for at in 0..4 {
        for token in push_at_once(&mut cluster, at) {
            let reply = cluster.answer(token);
            assert!(matches!(reply, Reply::Operated { written: Some(_), .. }), "{reply:?}");
        }
        assert_eq!(pushed(&mut cluster, at), (0..20).collect::<Vec<_>>());
    }
}

/// Where the first of many writes at once take so long that their outcome is not known, those behind them are
/// refused: the first may still be done, and then it is all that is.
#[test]
fn what_waits_behind_an_unknown_outcome_is_not_done() {
    let mut cluster = Cluster::new(4, |config| config.voters = 3);
    assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
    let voters = [0, 3].map(|at| cluster.shard(at).strong.standing.voter.is_some());
    assert_eq!(voters, [true, false]);
    for at in [0, 3] {
        cluster.on_words(move |from, _, word| match word {
            Word::Core { .. } if from == at => Passing::Lost,
            Word::Forward { .. } if from == at => Passing::Waits,
            _ => Passing::Arrives,
        });
        let tokens = push_at_once(&mut cluster, at);
        let replies: Vec<_> = tokens.into_iter().map(|token| cluster.answer(token)).collect();
        let unknown =
            replies.iter().take_while(|it| **it == Reply::Refused(Refusal::Unknown)).count();
        assert!(unknown > 0 && unknown < 20, "{replies:?}");
        let busy = |reply: &Reply| *reply == Reply::Refused(Refusal::Busy);
        assert!(replies[unknown..].iter().all(busy), "{replies:?}");
        cluster.let_go();
        cluster.pass(Duration::from_secs(5));
        assert_eq!(pushed(&mut cluster, at), (0..unknown).collect::<Vec<_>>());
    }
}

/// Asks a member for twenty pushes to a list of its own at once. The first is nearly all that one entry may
/// take, and what it leaves over is short and fast.
fn push_at_once(cluster: &mut Cluster, at: usize) -> Vec<Token> {
    let key = format!("list{at}");
    let mut output = Output::default();
    let shard = cluster.shards[at].as_mut().unwrap();
    let tokens: Vec<_> = (0..20).map(|number| Token(10_000 + 100 * at as u64 + number)).collect();
    for (number, token) in tokens.iter().enumerate() {
        let value = "v".repeat(if number == 0 { 1_040_000 } else { 2_000 });
        let value = format!("{number:02}{value}");
        let elements = vec![Argument(value.as_bytes())];
        let push =
            Lists::Push { key: key.as_str().into(), elements, end: End::Right, present: false };
        let operation = Operation::Lists(push);
        let moment = Moment { wall: WallTime(5), dice: 0 };
        let request = Request::Operate { operation: &operation, moment };
        shard.handle(cluster.now, Input::Request(*token, request), &mut output);
    }
    cluster.carry_out(at, output);
    tokens
}

/// Which of these have been done, in the order of the list.
fn pushed(cluster: &mut Cluster, at: usize) -> Vec<usize> {
    let key = format!("list{at}");
    let range = Operation::Lists(Lists::Range(key.as_str().into(), 0, -1));
    let token = cluster.operate(at, &range);
    let Reply::Operated { answer: Answer::Array(values), .. } = cluster.answer(token) else {
        panic!("no list");
    };
    let number = |value: &Answer| match value {
        Answer::Bulk(value) => String::from_utf8_lossy(&value[..2]).parse().unwrap(),
        other => panic!("{other:?}"),
    };
    values.iter().map(number).collect()
}

/// A clock that is years ahead, or behind, at one of three voters ends no key early and keeps none for
/// longer, whoever is asked.
#[test]
fn a_wrong_clock_ends_nobodys_keys() {
    let year = 365 * 86_400_000;
    for ahead in [[3 * year, year / 100, year / 100], [0, year, year]] {
        let mut cluster = Cluster::new(3, strong);
        cluster.ahead = ahead.to_vec();
        for round in 0..3 {
            (0..3).for_each(|at| cluster.write(at, "a", &round.to_string()));
            cluster.pass(Duration::from_secs(2));
        }
        for at in 0..3 {
            let key = format!("key{at}");
            let (word, value) = (Argument(key.as_bytes()), Argument(b"value"));
            let (expiry, when) = (Expiry::Ends(Ends::After(60_000)), When::Always);
            let set = Text::Set { key: word, value, expiry, when, get: false };
            let token = cluster.operate(at, &Operation::Text(set));
            cluster.answer(token);
            for other in 0..3 {
                cluster.write(other, "a", "again");
                assert_eq!(cluster.value(other, &key).as_deref(), Some("value"), "{ahead:?}");
            }
            cluster.pass(Duration::from_secs(50));
            assert_eq!(cluster.value(0, &key).as_deref(), Some("value"), "{ahead:?}");
            cluster.pass(Duration::from_secs(12));
            let size = Operation::Keys(Keys::Size);
            let token = cluster.operate(2 - at, &size);
            let Reply::Operated { answer, .. } = cluster.answer(token) else { panic!("no size") };
            assert_eq!(answer, Answer::Integer(1), "{ahead:?}");
            assert_eq!(cluster.value(0, &key), None, "{ahead:?}");
        }
    }
}

/// While as many requests are held as may be, those that are refused cost next to nothing: what waits is
/// counted anew now and then, not for each. All that were held go on when the switch is over.
#[test]
fn refusing_very_many_requests_is_cheap() {
    let mut cluster = Cluster::new(3, plain);
    cluster.on_words(|_, _, word| match word {
        Word::Drained { .. } => Passing::Waits,
        _ => Passing::Arrives,
    });
    let wish = cluster.wish(0, Mode::Strong, &[]);
    cluster.until("the drain", |cluster| cluster.shard(0).posture() == Posture::Held);
    let set = Request::Set { key: b"k", value: b"v" };
    let mut output = Output::default();
    let ask = |cluster: &mut Cluster, output: &mut Output, token| {
        let now = cluster.now;
        let shard = cluster.shards[0].as_mut().unwrap();
        shard.handle(now, Input::Request(Token(1 << 40 | token), set), output);
    };
    (0..WAITING_MAX as u64).for_each(|token| ask(&mut cluster, &mut output, token));
    assert!(output.reply.is_empty(), "all are held");
    for look in 0..3 {
        let before = cluster.shard(0).strong.requests.counts;
        (0..10_000).for_each(|token| ask(&mut cluster, &mut output, 1 << 20 | token));
        assert!(output.reply.drain(..).all(|(_, reply)| reply == Reply::Refused(Refusal::Busy)));
        assert_eq!(cluster.shard(0).strong.requests.counts, before + 1, "look {look}");
        cluster.now = cluster.now + LOOK_INTERVAL;
    }
    cluster.carry_out(0, output);
    cluster.let_go();
    assert_eq!(cluster.switched(wish), Switched::Done { epoch: Epoch(1) });
    cluster.pass(Duration::from_secs(2));
    let replies =
        (0..WAITING_MAX as u64).filter_map(|token| cluster.replies.get(&Token(1 << 40 | token)));
    let written = replies.filter(|reply| matches!(reply, Reply::Written { .. }));
    assert_eq!(written.count(), WAITING_MAX);
}
