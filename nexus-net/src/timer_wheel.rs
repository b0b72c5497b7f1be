//! Timers in constant time: a hierarchical timing wheel (Varghese and Lauck, 1987).
//!
//! Six levels of 64 slots; a slot of level `l` spans 64^l ms. A timer sits on the level of the
//! highest 6-bit digit in which its due time differs from `elapsed`, so starting and cancelling touch
//! one list, and a timer moves down at most five times before it fires. The clock is an argument:
//! all times are milliseconds since the wheel was made.
//!
//! ```text
//!   elapsed  = … | d2 | d1 | d0      due differs first in d1 → level 1, slot = due's d1
//! ```

const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const NONE: u32 = u32::MAX;
/// Longest delay, about two years; longer ones are cut to it. One slot of the top level short of
/// its lap, so that a slot ahead is never taken for the present one.
const DELAY_MS_MAX: u64 = (SLOTS as u64 - 1) << (SLOT_BITS * (LEVELS as u32 - 1));

/// Names a timer. A fired or cancelled timer's key never matches a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimerKey {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
struct Entry<T> {
    value: Option<T>,
    due_ms: u64,
    generation: u32,
    level: u8,
    slot: u8,
    previous: u32,
    next: u32,
}

/// A doubly linked list of entries, in the order in which their timers were started.
#[derive(Debug, Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

impl List {
    const EMPTY: Self = Self {
        head: NONE,
        tail: NONE,
    };

    fn is_empty(&self) -> bool {
        self.head == NONE
    }
}

#[derive(Debug)]
struct Level {
    /// Bit `s` is set while slot `s` has timers.
    occupied: u64,
    slots: [List; SLOTS],
}

#[derive(Debug)]
pub(crate) struct TimerWheel<T> {
    elapsed_ms: u64,
    levels: [Level; LEVELS],
    entries: Vec<Entry<T>>,
    /// What became due and was not yet handed out, earliest first. Its entries still name the slot that
    /// they came from: a slot becomes due as a whole, whatever its length.
    due: List,
    free: u32,
    len: usize,
}

impl<T> TimerWheel<T> {
    pub(crate) fn new() -> Self {
        Self {
            elapsed_ms: 0,
            levels: std::array::from_fn(|_| Level {
                occupied: 0,
                slots: [List::EMPTY; SLOTS],
            }),
            entries: Vec::new(),
            due: List::EMPTY,
            free: NONE,
            len: 0,
        }
    }

    /// Live timers: neither handed out nor cancelled.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Starts a timer. One that is already due fires at the next [`expire`](Self::expire) that
    /// moves the clock.
    pub(crate) fn start(&mut self, due_ms: u64, value: T) -> TimerKey {
        let due_ms = due_ms
            .max(self.elapsed_ms + 1)
            .min(self.elapsed_ms.saturating_add(DELAY_MS_MAX));
        let index = self.allocate(due_ms, value);
        self.link(index);
        self.len += 1;
        TimerKey {
            index,
            generation: self.entries[index as usize].generation,
        }
    }

    /// Cancels a timer; `None` when it was handed out or cancelled before.
    pub(crate) fn cancel(&mut self, key: TimerKey) -> Option<T> {
        if !self.is_live(key) {
            return None;
        }
        self.unlink(key.index);
        Some(self.release(key.index))
    }

    /// Whether the timer was neither handed out nor cancelled.
    pub(crate) fn is_live(&self, key: TimerKey) -> bool {
        self.entries
            .get(key.index as usize)
            .is_some_and(|entry| entry.generation == key.generation && entry.value.is_some())
    }

    /// When to call [`expire`](Self::expire) next, at the latest. May be earlier than the earliest
    /// timer, by the width of its slot.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.next_slot().map(|(_, _, start_ms)| start_ms)
    }

    /// Moves the clock to `now_ms`. What became due waits for [`pop_due`](Self::pop_due), where it can
    /// still be cancelled.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        while let Some((level, slot, start_ms)) = self.next_slot() {
            if start_ms > now_ms {
                break;
            }
            self.elapsed_ms = start_ms;
            let list = std::mem::replace(&mut self.levels[level].slots[slot], List::EMPTY);
            self.levels[level].occupied &= !(1 << slot);
            if level == 0 {
                self.append_to_due(list);
                continue;
            }
            let mut index = list.head;
            while index != NONE {
                let next = self.entries[index as usize].next;
                // One that is due at the very beginning of the slot goes to the lowest level's slot of
                // this millisecond, which is the next to be taken.
                self.link(index);
                index = next;
            }
        }
        self.elapsed_ms = self.elapsed_ms.max(now_ms);
    }

    /// The next timer that is due, earliest first, in order of their start within a millisecond.
    pub(crate) fn pop_due(&mut self) -> Option<T> {
        let index = self.due.head;
        if index == NONE {
            return None;
        }
        self.unlink(index);
        Some(self.release(index))
    }

    /// The first occupied slot and when it begins. Timers of a lower level are always earlier.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        for (level, slots) in self.levels.iter().enumerate() {
            if slots.occupied == 0 {
                continue;
            }
            let shift = SLOT_BITS * level as u32;
            let position = (self.elapsed_ms >> shift) as usize % SLOTS;
            // Only the top level wraps around.
            let ahead = slots
                .occupied
                .rotate_right(position as u32)
                .trailing_zeros() as usize;
            let slot = (position + ahead) % SLOTS;
            let lap_start = self.elapsed_ms >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
            let wrapped = if slot < position {
                1 << (shift + SLOT_BITS)
            } else {
                0
            };
            return Some((level, slot, lap_start + wrapped + ((slot as u64) << shift)));
        }
        None
    }

    fn allocate(&mut self, due_ms: u64, value: T) -> u32 {
        if self.free == NONE {
            let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 timers");
            self.entries.push(Entry {
                value: Some(value),
                due_ms,
                generation: 0,
                level: 0,
                slot: 0,
                previous: NONE,
                next: NONE,
            });
            return index;
        }
        let index = self.free;
        let entry = &mut self.entries[index as usize];
        self.free = entry.next;
        entry.value = Some(value);
        entry.due_ms = due_ms;
        index
    }

    fn release(&mut self, index: u32) -> T {
        let free = self.free;
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = free;
        self.free = index;
        self.len -= 1;
        entry.value.take().expect("a linked entry holds a value")
    }

    fn link(&mut self, index: u32) {
        let due_ms = self.entries[index as usize].due_ms;
        let differing = (due_ms ^ self.elapsed_ms) | (SLOTS as u64 - 1);
        let level = ((63 - differing.leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1) as usize;
        let slot = (due_ms >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let list = &mut self.levels[level].slots[slot];
        let last = std::mem::replace(&mut list.tail, index);
        if last == NONE {
            list.head = index;
            self.levels[level].occupied |= 1 << slot;
        } else {
            self.entries[last as usize].next = index;
        }
        let entry = &mut self.entries[index as usize];
        entry.level = level as u8;
        entry.slot = slot as u8;
        entry.previous = last;
        entry.next = NONE;
    }

    fn append_to_due(&mut self, list: List) {
        if self.due.is_empty() {
            self.due = list;
            return;
        }
        self.entries[self.due.tail as usize].next = list.head;
        self.entries[list.head as usize].previous = self.due.tail;
        self.due.tail = list.tail;
    }

    /// Takes an entry out of its list: that of its slot, or that of what is due.
    fn unlink(&mut self, index: u32) {
        let Entry {
            level,
            slot,
            previous,
            next,
            ..
        } = self.entries[index as usize];
        let (level, slot) = (usize::from(level), usize::from(slot));
        // Of an entry between two others nobody needs to know which list it is in.
        if previous == NONE {
            let list = &mut self.levels[level].slots[slot];
            if list.head == index {
                list.head = next;
                if next == NONE {
                    self.levels[level].occupied &= !(1 << slot);
                }
            } else {
                debug_assert_eq!(self.due.head, index);
                self.due.head = next;
            }
        } else {
            self.entries[previous as usize].next = next;
        }
        if next == NONE {
            let list = &mut self.levels[level].slots[slot];
            if list.tail == index {
                list.tail = previous;
            } else {
                debug_assert_eq!(self.due.tail, index);
                self.due.tail = previous;
            }
        } else {
            self.entries[next as usize].previous = previous;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn expire(wheel: &mut TimerWheel<u32>, now_ms: u64) -> Vec<u32> {
        wheel.expire(now_ms);
        std::iter::from_fn(|| wheel.pop_due()).collect()
    }

    #[test]
    fn fires_at_its_time_and_not_before() {
        for due_ms in [
            1,
            2,
            63,
            64,
            65,
            4095,
            4096,
            4097,
            262_144,
            1 << 30,
            DELAY_MS_MAX,
        ] {
            let mut wheel = TimerWheel::new();
            wheel.start(due_ms, 7);
            assert_eq!(expire(&mut wheel, due_ms - 1).len(), 0, "due {due_ms}");
            assert_eq!(expire(&mut wheel, due_ms), [7], "due {due_ms}");
            assert_eq!(wheel.len(), 0);
        }
    }

    #[test]
    fn a_key_of_a_fired_timer_does_not_cancel_its_successor() {
        let mut wheel = TimerWheel::new();
        let first = wheel.start(5, 1);
        assert_eq!(expire(&mut wheel, 5), [1]);
        let _second = wheel.start(10, 2);
        assert_eq!(wheel.cancel(first), None);
        assert_eq!(expire(&mut wheel, 10), [2]);
    }

    #[test]
    fn timers_of_one_millisecond_fire_in_order_of_their_start() {
        let mut wheel = TimerWheel::new();
        for i in 0..10 {
            wheel.start(5000, i);
        }
        assert_eq!(expire(&mut wheel, 6000), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_due_timer_can_be_cancelled_until_it_is_handed_out() {
        let mut wheel = TimerWheel::new();
        wheel.start(5, 1);
        let second = wheel.start(5, 2);
        wheel.start(6, 3);
        wheel.expire(10);
        assert_eq!(wheel.pop_due(), Some(1));
        assert!(wheel.is_live(second));
        assert_eq!(wheel.cancel(second), Some(2));
        // Takes the place of the cancelled one, and must not be mistaken for it.
        wheel.start(20, 4);
        assert_eq!(wheel.pop_due(), Some(3));
        assert_eq!(wheel.pop_due(), None);
        assert_eq!(expire(&mut wheel, 20), [4]);
        assert_eq!(wheel.len(), 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Start(u64),
        Cancel(usize),
        Advance(u64),
        /// Hands out at most so many of what is due; the rest can still be cancelled.
        Pop(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let span = prop_oneof![0u64..100, 0u64..10_000, 0u64..(1 << 37)];
        prop_oneof![
            8 => span.clone().prop_map(Step::Start),
            4 => any::<usize>().prop_map(Step::Cancel),
            3 => span.prop_map(Step::Advance),
            2 => (0..5_usize).prop_map(Step::Pop),
            1 => Just(Step::Pop(usize::MAX)),
        ]
    }

    proptest! {
        /// Against a sorted map: the same timers fire, none early, each once, in order of due time.
        #[test]
        fn behaves_like_a_sorted_map(steps in proptest::collection::vec(step(), 1..200)) {
            let mut wheel = TimerWheel::new();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut keys = Vec::new();
            let mut now_ms = 0u64;
            for (id, step) in (0u32..).zip(steps) {
                match step {
                    Step::Start(delay) => {
                        let due = (now_ms + delay).max(now_ms + 1).min(now_ms + DELAY_MS_MAX);
                        keys.push((id, wheel.start(now_ms + delay, id)));
                        model.insert(id, due);
                    }
                    Step::Cancel(which) if !keys.is_empty() => {
                        let (id, key) = keys.swap_remove(which % keys.len());
                        prop_assert_eq!(wheel.cancel(key).is_some(), model.remove(&id).is_some());
                    }
                    Step::Cancel(_) => {}
                    Step::Advance(by) => {
                        now_ms += by;
                        wheel.expire(now_ms);
                    }
                    Step::Pop(count) => {
                        let due_now = model.values().filter(|&&due| due <= now_ms).count();
                        for _ in 0..count.min(due_now) {
                            let earliest = model.values().min().copied();
                            let fired = wheel.pop_due();
                            let due = fired.and_then(|id| model.remove(&id));
                            prop_assert!(due.is_some() && due == earliest);
                        }
                        if count > due_now {
                            prop_assert_eq!(wheel.pop_due(), None);
                        }
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let earliest = model.values().filter(|&&due| due > now_ms).min().copied();
                match (wheel.next_ms(), earliest) {
                    (Some(next), Some(earliest)) => prop_assert!(next <= earliest && next > now_ms),
                    (next, earliest) => prop_assert_eq!(next.is_some(), earliest.is_some()),
                }
            }
        }
    }
}
