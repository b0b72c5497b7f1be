//! A load that goes well, and each way in which it can go wrong.

use chat_proto::conversation::GroupId;

use super::*;

const RUN: u32 = 7;
/// The newest message before the load.
const BEFORE: u64 = 10;

fn user(id: i32) -> UserId {
    UserId::new(id).unwrap()
}

fn pair() -> ConversationId {
    ConversationId::pair(user(1), user(2)).unwrap()
}

fn group() -> ConversationId {
    ConversationId::group(GroupId::new(5).unwrap())
}

fn checker() -> Checker {
    let participants = |group, members: &[i32]| Participants {
        group,
        members: members.to_vec(),
        last_sequence: BEFORE,
    };
    Checker::new(
        RUN,
        &[
            participants(None, &[1, 2]),
            participants(Some(5), &[3, 4, 6]),
        ],
    )
}

fn text(sender: i32, number: u64) -> String {
    let envelope = Envelope {
        run: RUN,
        sender,
        number,
        due_us: 0,
    };
    envelope.to_text(64)
}

/// User 1's messages 1 to `count`, acknowledged in order.
fn acknowledged(checker: &mut Checker, count: u64) {
    for number in 1..=count {
        checker.acknowledged(pair(), user(1), number, BEFORE + number);
    }
}

fn arrives(checker: &mut Checker, number: u64, sequence: u64) -> Arrival {
    checker.received(pair(), user(2), sequence, &text(1, number))
}

#[test]
fn a_good_run_is_clean_and_owes_nothing() {
    let mut checker = checker();
    // A push may be there before the sender has its answer.
    assert!(matches!(arrives(&mut checker, 1, 11), Arrival::New(_)));
    acknowledged(&mut checker, 2);
    assert_eq!(checker.owed(), 1);
    assert_eq!(checker.missing(9), [(user(2), pair(), 12)]);
    arrives(&mut checker, 2, 12);
    // The other one answers, between two messages of the first.
    checker.acknowledged(pair(), user(2), 1, 13);
    checker.received(pair(), user(1), 13, &text(2, 1));
    checker.acknowledged(pair(), user(1), 3, 14);
    arrives(&mut checker, 3, 14);
    for member in [4, 6] {
        checker.received(group(), user(member), 11, &text(3, 1));
    }
    checker.acknowledged(group(), user(3), 1, 11);
    assert_eq!(checker.owed(), 0);
    assert_eq!(checker.verdict(&[]), Verdict::default());
}

#[test]
fn an_acknowledged_message_that_does_not_arrive_is_lost() {
    let mut checker = checker();
    acknowledged(&mut checker, 3);
    arrives(&mut checker, 1, 11);
    arrives(&mut checker, 3, 13);
    let verdict = checker.verdict(&[]);
    assert_eq!((verdict.lost, verdict.violations()), (1, 1), "{verdict:?}");
}

#[test]
fn a_group_message_that_one_member_lacks_is_lost_once() {
    let mut checker = checker();
    checker.acknowledged(group(), user(3), 1, 11);
    checker.received(group(), user(4), 11, &text(3, 1));
    let verdict = checker.verdict(&[]);
    assert_eq!((verdict.lost, verdict.violations()), (1, 1), "{verdict:?}");
}

#[test]
fn a_repeated_arrival_is_counted_and_no_violation() {
    let mut checker = checker();
    acknowledged(&mut checker, 1);
    arrives(&mut checker, 1, 11);
    assert_eq!(arrives(&mut checker, 1, 11), Arrival::Repeated);
    let verdict = checker.verdict(&[]);
    assert!(verdict.is_clean());
    assert_eq!(verdict.repeated, 1);
}

#[test]
fn a_send_that_is_stored_twice_is_found() {
    let mut checker = checker();
    acknowledged(&mut checker, 1);
    arrives(&mut checker, 1, 11);
    assert_eq!(arrives(&mut checker, 1, 12), Arrival::Wrong);
    assert_eq!(checker.verdict(&[]).stored_twice, 1);
}

#[test]
fn an_acknowledgement_that_moves_is_found() {
    let mut checker = checker();
    acknowledged(&mut checker, 1);
    checker.acknowledged(pair(), user(1), 1, 12);
    assert_eq!(checker.verdict(&[]).stored_twice, 1);
}

#[test]
fn a_new_message_below_a_shown_one_is_out_of_order() {
    let mut checker = checker();
    acknowledged(&mut checker, 2);
    arrives(&mut checker, 2, 12);
    arrives(&mut checker, 1, 11);
    let verdict = checker.verdict(&[]);
    assert_eq!((verdict.out_of_order, verdict.violations()), (1, 1));
}

#[test]
fn a_sequence_that_nobody_saw_is_a_gap() {
    let mut checker = checker();
    checker.acknowledged(pair(), user(1), 1, 12);
    arrives(&mut checker, 1, 12);
    let verdict = checker.verdict(&[]);
    assert_eq!((verdict.gaps, verdict.violations()), (1, 1), "{verdict:?}");
}

#[test]
fn an_own_unanswered_send_excuses_a_gap_and_that_of_another_does_not() {
    let mut checker = checker();
    checker.acknowledged(pair(), user(1), 1, 12);
    arrives(&mut checker, 1, 12);
    let open = |sender| OpenSend {
        conversation: pair(),
        sender: user(sender),
    };
    let verdict = checker.verdict(&[open(2)]);
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!(verdict.unacknowledged, 1);
    // A message of user 1 would have had to be shown to user 2 first.
    assert_eq!(checker.verdict(&[open(1)]).gaps, 1);
}

#[test]
fn a_stored_but_unacknowledged_message_may_be_missing_at_the_end_only() {
    let mut checker = checker();
    checker.received(group(), user(4), 11, &text(3, 1));
    let open = [OpenSend {
        conversation: group(),
        sender: user(3),
    }];
    assert!(checker.verdict(&open).is_clean());
    checker.acknowledged(group(), user(4), 1, 12);
    checker.received(group(), user(6), 12, &text(4, 1));
    checker.received(group(), user(3), 12, &text(4, 1));
    let verdict = checker.verdict(&open);
    assert_eq!((verdict.gaps, verdict.violations()), (1, 1), "{verdict:?}");
}

#[test]
fn a_damaged_text_is_found_and_its_message_lost() {
    let mut checker = checker();
    acknowledged(&mut checker, 1);
    let damaged = text(1, 1).replace('x', "y");
    assert_eq!(
        checker.received(pair(), user(2), 11, &damaged),
        Arrival::Wrong
    );
    let verdict = checker.verdict(&[]);
    assert_eq!((verdict.corrupted, verdict.lost), (1, 1));
}

#[test]
fn another_message_at_an_acknowledged_place_is_found() {
    let mut checker = checker();
    acknowledged(&mut checker, 1);
    assert_eq!(arrives(&mut checker, 2, 11), Arrival::Wrong);
    assert_eq!(checker.verdict(&[]).corrupted, 1);
}

#[test]
fn a_message_of_another_run_or_from_before_it_is_found() {
    let mut checker = checker();
    let envelope = Envelope {
        run: RUN + 1,
        sender: 1,
        number: 1,
        due_us: 0,
    };
    checker.received(pair(), user(2), 11, &envelope.to_text(64));
    arrives(&mut checker, 1, BEFORE);
    arrives(&mut checker, 1, u64::MAX);
    assert_eq!(checker.verdict(&[]).corrupted, 3);
}

#[test]
fn what_reaches_a_stranger_or_its_sender_is_misdelivered() {
    let mut checker = checker();
    checker.received(pair(), user(3), 11, &text(1, 1));
    checker.received(pair(), user(1), 11, &text(1, 1));
    checker.received(group(), user(1), 11, &text(3, 1));
    checker.received(pair(), user(2), 11, &text(3, 1));
    assert_eq!(checker.verdict(&[]).misdelivered, 4);
}

#[test]
fn verdicts_add_up() {
    let mut sum = Verdict {
        lost: 1,
        examples: vec!["a".to_owned(); EXAMPLES_MAX],
        ..Verdict::default()
    };
    sum.merge(Verdict {
        lost: 2,
        gaps: 1,
        repeated: 5,
        sessions_ended: 3,
        examples: vec!["b".to_owned()],
        ..Verdict::default()
    });
    assert_eq!((sum.lost, sum.gaps, sum.repeated), (3, 1, 5));
    assert_eq!(sum.violations(), 7);
    assert_eq!(sum.examples.len(), EXAMPLES_MAX);
}

#[test]
fn settled_is_what_everybody_has_in_the_slowest_conversation() {
    let due = |sender, number, due_us| {
        let envelope = Envelope {
            run: RUN,
            sender,
            number,
            due_us,
        };
        envelope.to_text(64)
    };
    let mut checker = checker();
    checker.acknowledged(pair(), user(1), 1, 11);
    checker.received(pair(), user(2), 11, &due(1, 1, 100));
    assert_eq!(checker.settled_us(), 0, "the group has had nothing");
    checker.received(group(), user(4), 11, &due(3, 1, 90));
    checker.acknowledged(group(), user(3), 1, 11);
    assert_eq!(checker.settled_us(), 0, "one member lacks it");
    checker.received(group(), user(6), 11, &due(3, 1, 90));
    assert_eq!(checker.settled_us(), 90);
    // A later message does not count while an earlier one is missing, or has no answer.
    checker.received(group(), user(4), 13, &due(3, 3, 300));
    checker.received(group(), user(6), 13, &due(3, 3, 300));
    checker.acknowledged(group(), user(3), 3, 13);
    checker.received(pair(), user(2), 12, &due(1, 2, 200));
    assert_eq!(checker.settled_us(), 90);
    checker.acknowledged(pair(), user(1), 2, 12);
    assert_eq!(checker.settled_us(), 90);
    for member in [4, 6] {
        checker.received(group(), user(member), 12, &due(3, 2, 150));
    }
    checker.acknowledged(group(), user(3), 2, 12);
    assert_eq!(checker.settled_us(), 200);
}
