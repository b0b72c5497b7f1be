//! Windows against hand-made orders, and against a server that answers what it has committed while
//! pushes are lost, repeated and reordered at random.

use std::collections::BTreeMap;

use chat_proto::conversation::{GroupId, UserId};
use proptest::prelude::*;

use super::*;

const LIMITS: HeldLimits = HeldLimits {
    messages_max: 8,
    bytes_max: 1000,
};

fn pair(other: i32) -> ConversationId {
    let user = |id| UserId::new(id).expect("positive");
    ConversationId::pair(user(1), user(other)).expect("two users")
}

fn group() -> ConversationId {
    ConversationId::group(GroupId::new(1).expect("positive"))
}

fn arrival(conversation: ConversationId, sequence: u64) -> Arrival {
    let frame = Bytes::copy_from_slice(&sequence.to_be_bytes());
    Arrival {
        conversation,
        sequence,
        frame,
    }
}

fn mark(conversation: ConversationId, sequence: u64) -> ConversationMark {
    ConversationMark {
        conversation_id: conversation.raw(),
        sequence,
    }
}

/// A session that is logged in, and the sequences it was shown.
struct Shown {
    delivery: Delivery,
    out: Vec<Arrival>,
}

impl Shown {
    fn after_login(marks: &[ConversationMark]) -> Self {
        let mut shown = Self {
            delivery: Delivery::new(LIMITS),
            out: Vec::new(),
        };
        shown.delivery.handle_login(marks, &mut shown.out);
        shown
    }

    fn push(&mut self, conversation: ConversationId, sequence: u64) {
        let arrival = arrival(conversation, sequence);
        self.delivery.handle_push(arrival, &mut self.out);
    }

    fn own(&mut self, conversation: ConversationId, sequence: u64, message: OwnMessage) {
        self.delivery
            .handle_own(conversation, sequence, message, &mut self.out);
    }

    fn fetched(&mut self, sequences: &[(ConversationId, u64)], marks: Vec<ConversationMark>) {
        let arrivals = sequences.iter().map(|&(c, s)| arrival(c, s)).collect();
        let fetched = Fetched {
            arrivals,
            marks,
            more: false,
        };
        self.delivery.handle_fetched(fetched, &mut self.out);
    }

    fn overdue(&mut self) -> Option<FetchPendingRequest> {
        assert!(self.delivery.arm_timer());
        self.delivery.start_overdue_fetch()
    }

    fn take(&mut self) -> Vec<u64> {
        self.out.drain(..).map(|arrival| arrival.sequence).collect()
    }
}

#[test]
fn pushes_are_shown_once_and_in_order() {
    let mut shown = Shown::after_login(&[mark(pair(2), 3)]);
    for sequence in [5, 3, 4, 4, 7, 5, 6] {
        shown.push(pair(2), sequence);
    }
    assert_eq!(shown.take(), [4, 5, 6, 7]);
    assert!(!shown.delivery.arm_timer());
}

#[test]
fn what_comes_before_the_logins_answer_is_sorted_in_after_it() {
    let mut delivery = Delivery::new(LIMITS);
    let mut out = Vec::new();
    for sequence in [6, 4, 5] {
        delivery.handle_push(arrival(pair(2), sequence), &mut out);
    }
    assert!(out.is_empty() && !delivery.arm_timer());
    delivery.handle_login(&[mark(pair(2), 4)], &mut out);
    assert_eq!(out, [arrival(pair(2), 5), arrival(pair(2), 6)]);
}

#[test]
fn an_own_message_fills_its_place() {
    let mut shown = Shown::after_login(&[mark(pair(2), 0)]);
    shown.push(pair(2), 2);
    assert_eq!(shown.take(), [0_u64; 0]);
    shown.own(pair(2), 1, OwnMessage::Continues);
    assert_eq!(shown.take(), [2]);
    shown.own(pair(2), 4, OwnMessage::Continues);
    shown.push(pair(2), 3);
    shown.push(pair(2), 5);
    assert_eq!(shown.take(), [3, 5]);
}

#[test]
fn a_gap_is_fetched_once_it_is_overdue() {
    let mut shown = Shown::after_login(&[mark(pair(2), 1), mark(pair(3), 9)]);
    shown.push(pair(2), 4);
    let request = shown.overdue().expect("a gap");
    assert_eq!(request.after, [mark(pair(2), 1)]);
    assert!(!request.all_conversations);
    // Pushes go on meanwhile; 3 is the user's own.
    shown.push(pair(2), 5);
    shown.fetched(&[(pair(2), 2), (pair(2), 4)], vec![mark(pair(2), 4)]);
    assert_eq!(shown.take(), [2, 4, 5]);
    assert!(!shown.delivery.arm_timer());
}

#[test]
fn a_gap_that_has_moved_gets_another_moment() {
    let mut shown = Shown::after_login(&[mark(pair(2), 0)]);
    shown.push(pair(2), 2);
    assert!(shown.delivery.arm_timer());
    assert!(!shown.delivery.arm_timer(), "one timer at a time");
    shown.push(pair(2), 1);
    shown.push(pair(2), 4);
    assert_eq!(shown.delivery.start_overdue_fetch(), None);
    assert!(shown.overdue().is_some());
}

#[test]
fn an_unknown_conversation_asks_for_all() {
    let mut shown = Shown::after_login(&[mark(pair(2), 5)]);
    shown.push(pair(3), 1);
    assert_eq!(shown.take(), [0_u64; 0]);
    let request = shown.overdue().expect("unknown");
    assert!(request.all_conversations);
    assert_eq!(request.after, [mark(pair(2), 5)]);
    shown.fetched(&[(pair(3), 1)], vec![mark(pair(2), 5), mark(pair(3), 1)]);
    assert_eq!(shown.take(), [1]);
    // One that the services do not mention is not the user's; it is not asked for for ever.
    shown.push(group(), 7);
    assert!(shown.overdue().is_some());
    shown.fetched(&[], vec![]);
    assert_eq!(shown.take(), [0_u64; 0]);
    assert!(!shown.delivery.arm_timer());
}

#[test]
fn a_gap_that_the_services_cannot_fill_does_not_stop_the_conversation() {
    let mut shown = Shown::after_login(&[mark(pair(2), 1)]);
    shown.push(pair(2), 3);
    assert!(shown.overdue().is_some());
    shown.fetched(&[], vec![mark(pair(2), 1)]);
    assert_eq!(shown.take(), [3]);
    assert!(!shown.delivery.arm_timer());
}

#[test]
fn an_own_message_that_is_none_of_the_conversation_hides_nothing() {
    let mut shown = Shown::after_login(&[mark(pair(2), 1)]);
    shown.own(pair(2), 500, OwnMessage::Continues);
    assert!(shown.overdue().is_some());
    shown.fetched(&[], vec![mark(pair(2), 1)]);
    shown.push(pair(2), 2);
    assert_eq!(shown.take(), [2]);
    assert!(!shown.delivery.arm_timer());
}

#[test]
fn what_overflows_is_fetched() {
    let mut shown = Shown::after_login(&[mark(pair(2), 0)]);
    for sequence in 2..=20 {
        shown.push(pair(2), sequence);
    }
    assert!(shown.delivery.held.len() <= LIMITS.messages_max);
    let all: Vec<_> = (1..=20).map(|sequence| (pair(2), sequence)).collect();
    assert!(shown.delivery.start_fetch().is_some());
    shown.fetched(&all, vec![mark(pair(2), 20)]);
    assert_eq!(shown.take(), (1..=20).collect::<Vec<_>>());
    assert_eq!(shown.delivery.held_bytes, 0);
}

#[test]
fn what_overflowed_is_asked_for_until_it_is_there() {
    let mut shown = Shown::after_login(&[mark(pair(2), 0), mark(pair(3), 0)]);
    for sequence in 2..=10 {
        shown.push(pair(2), sequence);
    }
    let request = shown.delivery.start_fetch();
    assert_eq!(request.as_ref().map(|r| r.after.len()), Some(1));
    shown.delivery.handle_fetch_failed();
    assert_eq!(shown.delivery.start_fetch(), request);
    let first_page = Fetched {
        arrivals: vec![arrival(pair(2), 1)],
        marks: vec![mark(pair(2), 1)],
        more: true,
    };
    shown.delivery.handle_fetched(first_page, &mut shown.out);
    let request = shown.delivery.start_fetch().expect("the rest");
    assert_eq!(request.after, [mark(pair(2), 1)]);
}

#[test]
fn a_failed_fetch_is_asked_again() {
    let mut shown = Shown::after_login(&[mark(pair(2), 0)]);
    shown.delivery.resync();
    let request = shown.delivery.start_fetch().expect("all");
    assert!(request.all_conversations);
    assert_eq!(shown.delivery.start_fetch(), None, "one at a time");
    shown.delivery.handle_fetch_failed();
    assert_eq!(shown.overdue(), Some(request));
}

#[test]
fn joining_a_group_does_not_ask_for_what_was_said_before() {
    let mut shown = Shown::after_login(&[]);
    shown.push(group(), 502);
    shown.own(group(), 501, OwnMessage::Opens);
    assert_eq!(shown.take(), [502]);
    // Left and joined again.
    shown.own(group(), 503, OwnMessage::Continues);
    shown.own(group(), 600, OwnMessage::Opens);
    shown.push(group(), 601);
    assert_eq!(shown.take(), [601]);
    assert!(!shown.delivery.arm_timer());
}

#[test]
fn a_new_friendship_starts_where_the_answer_says() {
    let mut shown = Shown::after_login(&[]);
    shown.own(pair(2), 12, OwnMessage::Opens);
    shown.push(pair(2), 13);
    assert_eq!(shown.take(), [13]);
    // The other side's word came first: it must not be passed over.
    shown.push(pair(3), 4);
    shown.own(pair(3), 5, OwnMessage::Opens);
    assert_eq!(shown.take(), [0_u64; 0]);
    assert!(
        shown
            .overdue()
            .is_some_and(|request| request.all_conversations)
    );
    shown.fetched(&[(pair(3), 4)], vec![mark(pair(3), 5)]);
    assert_eq!(shown.take(), [4]);
}

/// The services: what was committed, and what of it was pushed or answered and is on its way.
struct World {
    shown: Shown,
    /// For each conversation whether its messages are the user's own.
    committed: BTreeMap<ConversationId, Vec<bool>>,
    /// Where each stood at the login.
    login: BTreeMap<ConversationId, u64>,
    on_the_way: Vec<(ConversationId, u64)>,
    /// The request of a fetch, and what was committed when it was read.
    fetch: Option<(FetchPendingRequest, BTreeMap<ConversationId, Vec<bool>>)>,
    logged_in: bool,
}

impl World {
    fn new() -> Self {
        Self {
            shown: Shown {
                delivery: Delivery::new(LIMITS),
                out: Vec::new(),
            },
            committed: BTreeMap::new(),
            login: BTreeMap::new(),
            on_the_way: Vec::new(),
            fetch: None,
            logged_in: false,
        }
    }

    fn step(&mut self, action: u8, random: usize) {
        match action {
            0..=3 => self.commit(random),
            4..=8 => self.arrive(random),
            9 if !self.logged_in => self.log_in(),
            9 => self.ask(false),
            10 => self.ask(true),
            11 => self.answer(Some(1 + random % 4)),
            _ => self.answer(None),
        }
    }

    fn commit(&mut self, random: usize) {
        let conversation = [pair(2), pair(3), group()][random % 3];
        let own = self.logged_in && (random / 3).is_multiple_of(3);
        let messages = self.committed.entry(conversation).or_default();
        messages.push(own);
        let sequence = messages.len() as u64;
        // Pushes are lost and repeated; answers are neither.
        let copies = if own { 1 } else { random / 9 % 4 };
        self.on_the_way
            .extend(std::iter::repeat_n((conversation, sequence), copies));
    }

    fn arrive(&mut self, random: usize) {
        if self.on_the_way.is_empty() {
            return;
        }
        let (conversation, sequence) = self.on_the_way.swap_remove(random % self.on_the_way.len());
        if self.committed[&conversation][sequence as usize - 1] {
            self.shown
                .own(conversation, sequence, OwnMessage::Continues);
        } else {
            self.shown.push(conversation, sequence);
        }
    }

    fn log_in(&mut self) {
        self.logged_in = true;
        let counts = self.committed.iter().map(|(&c, m)| (c, m.len() as u64));
        self.login = counts.collect();
        let marks: Vec<_> = self.login.iter().map(|(&c, &s)| mark(c, s)).collect();
        let Shown { delivery, out } = &mut self.shown;
        delivery.handle_login(&marks, out);
    }

    fn ask(&mut self, overdue: bool) {
        let delivery = &mut self.shown.delivery;
        let request = match overdue {
            true => {
                delivery.arm_timer();
                delivery.start_overdue_fetch()
            }
            false => delivery.start_fetch(),
        };
        if let Some(request) = request {
            assert!(self.fetch.is_none(), "one fetch at a time");
            self.fetch = Some((request, self.committed.clone()));
        }
    }

    /// Answers the fetch with at most `page` messages, or fails it.
    fn answer(&mut self, page: Option<usize>) {
        let Some((request, committed)) = self.fetch.take() else {
            return;
        };
        let Some(page) = page else {
            return self.shown.delivery.handle_fetch_failed();
        };
        let mut fetched = Fetched::default();
        for (&conversation, messages) in &committed {
            let raw = conversation.raw();
            let named = request.after.iter().find(|m| m.conversation_id == raw);
            let after = match named {
                Some(mark) => mark.sequence,
                None if request.all_conversations => {
                    self.login.get(&conversation).copied().unwrap_or(0)
                }
                None => continue,
            };
            let mut stands_at = after;
            for (sequence, own) in (1..).zip(messages) {
                if sequence <= after {
                    continue;
                }
                if !own && fetched.arrivals.len() == page {
                    fetched.more = true;
                    break;
                }
                if !own {
                    fetched.arrivals.push(arrival(conversation, sequence));
                }
                stands_at = sequence;
            }
            fetched.marks.push(mark(conversation, stands_at));
        }
        let Shown { delivery, out } = &mut self.shown;
        delivery.handle_fetched(fetched, out);
    }

    /// Everything that is still on its way arrives, and what was lost is noticed.
    fn settle(&mut self) {
        if !self.logged_in {
            self.log_in();
        }
        while !self.on_the_way.is_empty() {
            self.arrive(0);
        }
        self.shown.delivery.resync();
        for round in 0.. {
            assert!(round < 10_000, "the fetching does not come to an end");
            self.answer(Some(3));
            self.ask(true);
            self.ask(false);
            if self.fetch.is_none() && !self.shown.delivery.arm_timer() {
                return;
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_each_message_is_shown_once_and_in_order(
        steps in proptest::collection::vec((0u8..13, any::<usize>()), 0..300),
    ) {
        let mut world = World::new();
        for (action, random) in steps {
            world.step(action, random);
            prop_assert!(world.shown.delivery.held.len() <= LIMITS.messages_max);
        }
        world.settle();
        for (conversation, messages) in &world.committed {
            let before = world.login.get(conversation).copied().unwrap_or(0);
            let expected: Vec<u64> = (1..)
                .zip(messages)
                .filter(|&(sequence, own)| sequence > before && !own)
                .map(|(sequence, _)| sequence)
                .collect();
            let shown = world.shown.out.iter().filter(|a| a.conversation == *conversation);
            let shown: Vec<u64> = shown.map(|arrival| arrival.sequence).collect();
            prop_assert_eq!(shown, expected);
        }
        prop_assert!(world.shown.delivery.held.is_empty());
        prop_assert_eq!(world.shown.delivery.held_bytes, 0);
    }
}
