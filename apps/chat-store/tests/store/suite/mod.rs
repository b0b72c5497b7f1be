//! What every store has to do, whatever it stands on. Each case takes two handles to one database,
//! as two servers have them, and makes users of its own.

pub(crate) mod append;
pub(crate) mod concurrency;
pub(crate) mod friends;
pub(crate) mod groups;
pub(crate) mod lists;
pub(crate) mod memberships;
pub(crate) mod pending;
pub(crate) mod terms;
pub(crate) mod tokens;
pub(crate) mod users;

use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use chat_store::*;

/// Two servers' views of one database.
pub(crate) struct Servers {
    pub(crate) a: Arc<dyn Store>,
    pub(crate) b: Arc<dyn Store>,
    /// Where the database is, if that shall go with it.
    pub(crate) _folder: Option<tempfile::TempDir>,
}

/// The suite as tests, on what `$servers` returns.
macro_rules! conformance {
    ($servers:path: $($module:ident { $($case:ident)* })*) => {
        $($(
            #[test]
            fn $case() {
                $crate::suite::$module::$case(&$servers());
            }
        )*)*
    };
    ($servers:path) => {
        $crate::suite::conformance! { $servers:
            users {
                a_registered_user_is_found
                a_name_is_taken_once
                names_are_compared_byte_by_byte
                a_name_that_nobody_has_is_nobodys
                texts_that_are_too_long_are_refused
                nobody_is_found_under_an_unused_id
                schema_can_be_prepared_again_and_at_once
            }
            friends {
                friends_see_each_other
                friends_are_made_once_and_of_others_who_exist
                ending_a_friendship_tells_the_other_one
                a_renewed_friendship_goes_on_with_the_sequence
                two_who_add_each_other_at_once_become_friends_once
                nobody_has_more_friends_than_allowed
                however_many_are_added_at_once_there_are_no_more_friends_than_allowed
            }
            groups {
                a_creator_is_the_admin_and_has_nothing_pending
                joining_tells_the_others_and_leaves_the_past_behind
                joining_is_refused_with_the_reason
                who_left_reads_nothing_more
                an_admin_who_leaves_hands_over_to_the_longest_standing
                the_last_to_leave_takes_the_group_along
                only_the_admin_deletes
                a_deleted_group_is_still_told_of
                all_groups_come_with_all_members
                a_full_group_stays_full_when_many_join_at_once
                nobody_is_in_more_groups_than_allowed
            }
            append {
                messages_get_the_next_sequences_in_order
                one_refused_message_fails_no_other
                a_repeated_send_is_stored_once
                another_message_under_a_used_id_is_refused
                of_messages_under_one_id_in_a_batch_the_first_is_stored
                a_repeat_counts_even_where_writing_is_no_longer_allowed
                acknowledgements_only_move_forward
                acknowledgements_go_alone_and_with_messages
                a_batch_may_be_larger_than_a_statement
                texts_of_all_sizes_and_scripts_come_back
                an_empty_batch_is_nothing
            }
            pending {
                ones_own_messages_are_not_pending
                marks_pass_ones_own_messages
                named_conversations_are_read_after_their_marks
                pages_hold_everything_exactly_once
                one_message_fits_whatever_the_limit
                history_has_all_sides_in_order
                pages_of_a_history_hold_everything_exactly_once
                a_long_history_is_not_read_for_a_few_pending
            }
            lists {
                pages_of_friends_hold_everybody_exactly_once
                pages_of_groups_and_members_hold_everything_exactly_once
                who_comes_and_goes_between_pages_moves_nobody_else
                small_groups_are_whole_where_large_ones_are_cut
                a_login_takes_no_more_than_its_bytes
            }
            tokens {
                a_token_leads_to_its_user_until_it_expires
                each_login_has_a_higher_number_than_those_before
                a_newer_token_takes_the_place_of_the_older
                a_token_ends_for_its_own_user_only
                expired_tokens_are_deleted_a_few_at_a_time
                tokens_replaced_at_once_leave_one
            }
            memberships {
                a_change_at_one_server_holds_at_once_at_the_other
                an_heir_is_shown_as_admin_at_both_servers
                who_is_no_friend_any_more_cannot_write_at_either_server
                a_message_goes_to_the_members_at_its_place
            }
            terms {
                a_change_after_its_deadline_is_not_made
                a_login_changes_nothing_once_there_is_a_later_one
                a_batch_stores_only_what_meets_its_terms
                what_was_stored_in_time_stays_stored_when_it_comes_again
                many_logins_of_many_users_are_looked_at
            }
            concurrency {
                sequences_have_no_gaps_under_eight_writers
                changes_and_messages_at_once_keep_the_sequence
            }
        }
    };
}
pub(crate) use conformance;

/// As much as there is.
pub(crate) const NO_LIMIT: PageLimit = PageLimit {
    messages_max: usize::MAX,
    bytes_max: usize::MAX,
};

/// A name that nobody has.
pub(crate) fn unused_name(name: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{name} {}", COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn register(store: &dyn Store, name: &str) -> UserId {
    match store.create_user(&unused_name(name), "hash").unwrap() {
        CreateUser::Created(id) => id,
        CreateUser::NameTaken => panic!("the name is taken"),
    }
}

/// Two friends and their conversation, which stands at 1.
pub(crate) fn pair(store: &dyn Store) -> (UserId, UserId, ConversationId) {
    let (ann, bob) = (register(store, "ann"), register(store, "bob"));
    befriend(store, ann, bob);
    (ann, bob, ConversationId::pair(ann, bob).unwrap())
}

pub(crate) fn befriend(store: &dyn Store, user: UserId, friend: UserId) -> Stamp {
    match add_friend(store, user, friend) {
        AddFriend::Added { stamp, .. } => stamp,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn add_friend(store: &dyn Store, user: UserId, friend: UserId) -> AddFriend {
    store.add_friend(user, friend, 1000).unwrap()
}

pub(crate) fn create_group(
    store: &dyn Store,
    creator: UserId,
    name: &str,
    description: &str,
) -> Group {
    match store
        .create_group(creator, name, description, 1000)
        .unwrap()
    {
        CreateGroup::Created(group) => group,
        CreateGroup::TooManyGroups => panic!("too many groups"),
    }
}

pub(crate) fn join(store: &dyn Store, user: UserId, group: GroupId) -> Stamp {
    match store.join_group(user, group, 1000, 1000).unwrap() {
        JoinGroup::Joined { stamp, .. } => stamp,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn text(conversation: ConversationId, sender: UserId, content: &str) -> NewMessage {
    NewMessage {
        conversation,
        sender,
        client_message_id: None,
        content: content.into(),
        client_time: "2024-02-29 12:00:00".into(),
        terms: Terms::default(),
    }
}

pub(crate) fn with_id(message: NewMessage, id: u64) -> NewMessage {
    NewMessage {
        client_message_id: NonZeroU64::new(id),
        ..message
    }
}

/// Stores one message that must be taken.
pub(crate) fn send(
    store: &dyn Store,
    conversation: ConversationId,
    sender: UserId,
    content: &str,
) -> Stamp {
    let outcomes = store
        .append(&[text(conversation, sender, content)], &[])
        .unwrap();
    committed(&outcomes[0])
}

pub(crate) fn committed(outcome: &AppendOutcome) -> Stamp {
    match outcome {
        AppendOutcome::Committed { stamp, .. } => *stamp,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn acknowledge(
    store: &dyn Store,
    user: UserId,
    conversation: ConversationId,
    sequence: u64,
) {
    assert!(
        store
            .append(
                &[],
                &[Ack {
                    user,
                    conversation,
                    sequence
                }]
            )
            .unwrap()
            .is_empty()
    );
}

/// Conversation, sequence and kind of everything that is pending.
pub(crate) fn pending_kinds(
    store: &dyn Store,
    user: UserId,
) -> Vec<(ConversationId, u64, MessageKind)> {
    let page = store.pending_all(user, NO_LIMIT).unwrap();
    assert!(!page.more);
    page.messages
        .iter()
        .map(|m| (m.conversation, m.sequence, m.kind))
        .collect()
}

pub(crate) fn acked(store: &dyn Store, user: UserId, conversation: ConversationId) -> Option<u64> {
    let states = store.conversations(user).unwrap();
    states
        .iter()
        .find(|s| s.conversation == conversation)
        .map(|s| s.acked_sequence)
}
