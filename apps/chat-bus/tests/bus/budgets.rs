//! Cases of the suite: budgets and facts.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use chat_bus::{Budget, Bus, BusError, Rate, Spending};
use nexus_testkit::wait_until;

use crate::suite::{DEADLINE, LONG, SHORT};

fn budget(name: &str, count: u32, period: Duration) -> Budget {
    Budget {
        name: name.to_owned(),
        rate: Rate::literal(count, period),
    }
}

#[track_caller]
fn expect_used_up(spending: Result<Spending, BusError>, place: usize, longest: Duration) {
    match spending {
        Ok(Spending::UsedUp { index, wait }) => {
            assert_eq!(index, place);
            assert!(!wait.is_zero() && wait <= longest, "{wait:?}");
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn a_budget_is_shared_and_says_how_long_to_wait(a: &dyn Bus, b: &dyn Bus) {
    let three = [budget("three", 3, LONG)];
    assert_eq!(a.spend(&three), Ok(Spending::Granted));
    assert_eq!(b.spend(&three), Ok(Spending::Granted));
    assert_eq!(a.spend(&three), Ok(Spending::Granted));
    for bus in [a, b, a, b] {
        expect_used_up(bus.spend(&three), 0, LONG / 3);
    }
    let another = [budget("another", 3, LONG)];
    assert_eq!(a.spend(&another), Ok(Spending::Granted));
    assert_eq!(a.spend(&[]), Ok(Spending::Granted));
    // A name may be anything that a client is called.
    let odd = [budget("login: 2001:db8::/64 {x}\n*", 1, LONG)];
    assert_eq!(a.spend(&odd), Ok(Spending::Granted));
    expect_used_up(b.spend(&odd), 0, LONG);
}

pub(crate) fn of_several_budgets_all_are_charged_or_none(a: &dyn Bus, b: &dyn Bus) {
    let (wide, narrow) = (budget("wide", 2, LONG), budget("narrow", 1, LONG));
    let both = [wide.clone(), narrow];
    assert_eq!(a.spend(&both), Ok(Spending::Granted));
    // The narrow one is used up; the wide one must not pay for it.
    for _ in 0..3 {
        expect_used_up(b.spend(&both), 1, LONG);
    }
    assert_eq!(a.spend(std::slice::from_ref(&wide)), Ok(Spending::Granted));
    expect_used_up(a.spend(&[wide]), 0, LONG / 2);
}

pub(crate) fn what_is_given_back_can_be_spent_again(a: &dyn Bus, b: &dyn Bus) {
    let two = [budget("two", 2, LONG)];
    // Nothing was spent: there is not more than all.
    assert_eq!(a.refund(&two), Ok(()));
    assert_eq!(a.spend(&two), Ok(Spending::Granted));
    assert_eq!(a.spend(&two), Ok(Spending::Granted));
    expect_used_up(a.spend(&two), 0, LONG / 2);
    assert_eq!(b.refund(&two), Ok(()));
    assert_eq!(a.spend(&two), Ok(Spending::Granted));
    expect_used_up(b.spend(&two), 0, LONG / 2);
}

pub(crate) fn a_budget_is_regained_with_time(a: &dyn Bus, b: &dyn Bus) {
    let two = [budget("two", 2, SHORT)];
    assert_eq!(a.spend(&two), Ok(Spending::Granted));
    assert_eq!(a.spend(&two), Ok(Spending::Granted));
    wait_until("one is there again", DEADLINE, || {
        b.spend(&two) == Ok(Spending::Granted)
    });
}

pub(crate) fn of_many_who_spend_at_once_as_many_get_as_there_are(a: &dyn Bus, b: &dyn Bus) {
    let start = Barrier::new(8);
    let granted: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let (start, bus) = (&start, if number % 2 == 0 { a } else { b });
                scope.spawn(move || {
                    let ten = [budget("ten", 10, LONG * 1000)];
                    start.wait();
                    let spent = (0..5).map(|_| bus.spend(&ten).expect("spent"));
                    spent.filter(|spent| *spent == Spending::Granted).count()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum()
    });
    assert_eq!(granted, 10);
}

pub(crate) fn a_fact_is_remembered_for_its_life(a: &dyn Bus, b: &dyn Bus) {
    assert_eq!(a.remembers("long"), Ok(false));
    assert_eq!(a.remember("long", Duration::MAX), Ok(()));
    assert_eq!(a.remember("short", LONG), Ok(()));
    assert_eq!(b.remembers("short"), Ok(true));
    // Again, it is for the new time.
    assert_eq!(b.remember("short", SHORT), Ok(()));
    wait_until("it is forgotten", DEADLINE, || {
        a.remembers("short") == Ok(false)
    });
    assert_eq!(b.remembers("long"), Ok(true));
}
