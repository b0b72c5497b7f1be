//! Lists that come in pages: what an answer leaves out is asked for, one page after the other, until the application can be
//! handed all of it.
//!
//! A login and a joining have succeeded whatever becomes of further pages: where those do not come, the answer is handed
//! over as far as it has come, and says so. A list that was asked for is whole, or an error.

use std::time::Instant;

use chat_proto::ids::code;

use super::session::Session;
use super::wire::Request;
use super::{Completion, Origin, State};
use crate::model::Answer;
use crate::{ChatError, Group};

/// Refusals of one page that are made up for by asking again.
const FAILURES_MAX: u32 = 6;

/// An answer as far as it has come.
pub(super) struct Pages {
    completion: Completion,
    answer: Answer,
    /// The list goes on after what came last.
    more: bool,
    failures: u32,
}

impl Pages {
    /// With its first page.
    pub(super) fn new(completion: Completion, answer: Answer, more: bool) -> Self {
        Self {
            completion,
            answer,
            more,
            failures: 0,
        }
    }

    /// What is still to be asked for.
    fn next(&self) -> Option<Request> {
        match &self.answer {
            Answer::Login(login) if login.more_friends => {
                Some(Request::MoreFriends(login.friends.last()?.user))
            }
            Answer::Login(login) if login.more_groups => {
                Some(Request::MoreGroups(login.groups.last()?.group))
            }
            Answer::Login(login) => members(&login.groups),
            Answer::Friends(friends) if self.more => {
                Some(Request::MoreFriends(friends.last()?.user))
            }
            Answer::Groups(groups) if self.more => Some(Request::MoreGroups(groups.last()?.group)),
            Answer::Groups(groups) => members(groups),
            Answer::Group(group) => members(std::slice::from_ref(group)),
            _ => None,
        }
    }

    /// Takes the answer to a request for more, or that there is none.
    fn add(&mut self, request: &Request, page: Option<Answer>, more: bool) {
        match (&mut self.answer, request, page) {
            (Answer::Login(login), Request::MoreFriends(_), Some(Answer::Friends(friends))) => {
                login.more_friends = more && !friends.is_empty();
                login.friends.extend(friends);
            }
            (Answer::Login(login), Request::MoreGroups(_), Some(Answer::Groups(groups))) => {
                login.more_groups = more && !groups.is_empty();
                login.groups.extend(groups);
            }
            (Answer::Friends(all), Request::MoreFriends(_), Some(Answer::Friends(friends))) => {
                self.more = more && !friends.is_empty();
                all.extend(friends);
            }
            (Answer::Groups(all), Request::MoreGroups(_), Some(Answer::Groups(groups))) => {
                self.more = more && !groups.is_empty();
                all.extend(groups);
            }
            (answer, Request::Members { group, .. }, page) => {
                let groups = match answer {
                    Answer::Login(login) => &mut login.groups[..],
                    Answer::Groups(groups) => &mut groups[..],
                    Answer::Group(group) => std::slice::from_mut(group),
                    _ => &mut [],
                };
                if let Some(listed) = groups.iter_mut().find(|listed| listed.group == *group) {
                    let members = match page {
                        Some(Answer::Members(members)) => members,
                        _ => Vec::new(),
                    };
                    listed.more_members = more && !members.is_empty();
                    listed.members.extend(members);
                }
            }
            _ => {}
        }
    }

    /// Friends, groups and members so far.
    fn entries(&self) -> usize {
        let of_groups = |groups: &[Group]| -> usize {
            groups.iter().map(|group| 1 + group.members.len()).sum()
        };
        match &self.answer {
            Answer::Login(login) => login.friends.len() + of_groups(&login.groups),
            Answer::Friends(friends) => friends.len(),
            Answer::Groups(groups) => of_groups(groups),
            Answer::Group(group) => of_groups(std::slice::from_ref(group)),
            _ => 0,
        }
    }
}

/// The members that one of the groups lacks.
fn members(groups: &[Group]) -> Option<Request> {
    let group = groups.iter().find(|group| group.more_members)?;
    Some(Request::Members {
        group: group.group,
        after: group.members.last().map(|member| member.user),
    })
}

impl State {
    /// Hands an answer over once it is whole, and asks for the next page until then.
    pub(super) fn go_on_with(&mut self, now: Instant, pages: Pages) {
        match pages.next() {
            None => self.complete(pages.completion, Ok(pages.answer)),
            Some(_) if pages.entries() >= self.options.list_entries_max => {
                let error = "a list is longer than `list_entries_max`".to_owned();
                self.end_pages(pages, ChatError::Protocol(error));
            }
            Some(request) => {
                self.call(now, request, Origin::Page(Box::new(pages)));
            }
        }
    }

    /// A page was answered, or was not.
    pub(super) fn page_ended(
        &mut self,
        now: Instant,
        request: &Request,
        mut pages: Pages,
        result: Result<(Answer, bool), ChatError>,
    ) {
        match result {
            Ok((page, more)) => {
                pages.failures = 0;
                pages.add(request, Some(page), more);
                self.go_on_with(now, pages);
            }
            // The user is no member any more, or there is no such group.
            Err(ChatError::Refused {
                code: code::NOT_YOURSELF,
                ..
            }) if matches!(request, Request::Members { .. }) => {
                pages.add(request, None, false);
                self.go_on_with(now, pages);
            }
            Err(ChatError::Refused {
                code: code::RATE_LIMITED | code::UNAVAILABLE,
                ..
            }) if pages.failures < FAILURES_MAX && self.session == Session::In => {
                pages.failures += 1;
                let delay = self.options.backoff.delay(pages.failures, 1.0);
                self.waiting_pages.push((now + delay, pages));
            }
            Err(error) => self.end_pages(pages, error),
        }
    }

    /// Asks again for the pages that are due.
    pub(super) fn retry_pages(&mut self, now: Instant) {
        let (due, waiting) = std::mem::take(&mut self.waiting_pages)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.waiting_pages = waiting;
        for (_, pages) in due {
            self.go_on_with(now, pages);
        }
    }

    /// There is no session to fetch pages in.
    pub(super) fn end_waiting_pages(&mut self, error: &ChatError) {
        for (_, pages) in std::mem::take(&mut self.waiting_pages) {
            self.end_pages(pages, error.clone());
        }
    }

    /// No more pages come.
    pub(super) fn end_pages(&mut self, pages: Pages, error: ChatError) {
        let result = match pages.answer {
            Answer::Login(_) | Answer::Group(_) => Ok(pages.answer),
            _ => Err(error),
        };
        self.complete(pages.completion, result);
    }
}
