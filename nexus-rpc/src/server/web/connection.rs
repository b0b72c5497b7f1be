//! One caller's connection that speaks HTTP: one request at a time, answers in the order of the requests.
//!
//! ```text
//!   waiting ─► request ─┬─ page: answered at once ─► waiting
//!                       └─ call ─► in work: not read ─► answered when woken ─► waiting
//! ```
//!
//! Requests that a caller sends ahead wait in `input`, at most one read of them: neither while a call is in
//! work nor while answers wait to be taken is anything read.
//!
//! Before a body is waited for, its head is looked at: a caller that is not let in, or for whose body the
//! provider has no room, is refused without it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use nexus_net::{Charge, Connection, TimerId};

use super::Offer;
use super::call::{self, Content, WebReply};
use super::pages::{self, Page};
use crate::http::{
    HttpError, HttpEvent, HttpMethod, HttpRequest, HttpResponse, RequestParser, write_continue,
};
use crate::server::answer::ConnectionCalls;
use crate::server::connection::CHECK_HTTP;
use crate::server::incoming::IncomingCall;
use crate::server::receiving::UNCOUNTED_BYTES_MAX;
use crate::server::serving::MethodId;
use crate::service::Execution;
use crate::wire::Frame;
use crate::{ErrorCode, RpcError};

/// While more than this waits to be written, no further request is looked at.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

/// A connection's state.
pub(in crate::server) struct WebConnection {
    calls: Arc<ConnectionCalls>,
    offer: Offer,
    parser: RequestParser,
    input: BytesMut,
    in_work: Option<InWork>,
    /// The next answer is the last.
    ending: bool,
    last_request: Instant,
    /// The request that is being received.
    begun: Option<Begun>,
    /// When the connection is looked at next.
    alarm: Option<(Instant, TimerId)>,
}

/// A request that is not complete.
struct Begun {
    part: Part,
    since: Instant,
    /// Of the provider's budget, for a large body.
    charge: Option<Charge>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Body,
}

/// A call that is not answered.
struct InWork {
    reply: Arc<WebReply>,
    then: Then,
}

/// What an answer says of the connection behind it.
#[derive(Clone, Copy)]
struct Then {
    keep_alive: bool,
    to_http_1_0: bool,
}

impl Then {
    const CLOSE: Self = Self {
        keep_alive: false,
        to_http_1_0: false,
    };
}

impl WebConnection {
    pub(in crate::server) fn new(calls: Arc<ConnectionCalls>, offer: Offer) -> Self {
        let limits = calls.serving().http.limits;
        Self {
            calls,
            offer,
            parser: RequestParser::new(limits),
            input: BytesMut::new(),
            in_work: None,
            ending: false,
            last_request: Instant::now(),
            begun: None,
            alarm: None,
        }
    }

    /// Bytes have come.
    pub(in crate::server) fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        let is_shared = self.input.is_empty();
        match is_shared {
            true => self.input = input.split(),
            false => {
                self.input.extend_from_slice(input);
                input.clear();
            }
        }
        self.go_on(conn);
        if is_shared {
            // The loop's buffer must not be pinned by the beginning of a request.
            self.input = BytesMut::from(&self.input[..]);
        }
    }

    /// A call may have ended.
    pub(in crate::server) fn woken(&mut self, conn: &mut Connection<'_>) {
        self.finish_call(conn);
        self.go_on(conn);
    }

    /// Answers have been taken.
    pub(in crate::server) fn drained(&mut self, conn: &mut Connection<'_>) {
        self.go_on(conn);
    }

    /// The caller sends no more.
    pub(in crate::server) fn eof(&mut self, conn: &mut Connection<'_>) {
        self.ending = true;
        if self.in_work.is_none() {
            conn.close();
        }
    }

    /// Closes with the answer to the request that has begun, or now.
    pub(in crate::server) fn end_soon(&mut self, conn: &mut Connection<'_>) {
        self.ending = true;
        if self.in_work.is_none() && !self.parser.is_within_request(&self.input) {
            conn.close();
        }
    }

    /// Looks whether the caller has taken too long.
    pub(in crate::server) fn check_time(&mut self, conn: &mut Connection<'_>) {
        self.alarm = None;
        if !conn.is_open() {
            return;
        }
        if self.in_work.is_some() || !self.left().is_zero() {
            return self.set_alarm(conn);
        }
        log::debug!("{}: too slow or idle; closed", conn.peer_addr());
        match self.begun {
            Some(_) => {
                let page = Page::plain(408, "the request took too long");
                self.answer(conn, &page, false, Then::CLOSE);
            }
            None => conn.close(),
        }
    }

    /// How long the caller may still take for what it is at.
    fn left(&self) -> Duration {
        let http = &self.calls.serving().http;
        let (since, timeout) = match &self.begun {
            Some(begun) if begun.part == Part::Head => (begun.since, http.head_timeout),
            Some(begun) => (begun.since, http.body_timeout),
            None => (self.last_request, http.idle_timeout),
        };
        timeout.saturating_sub(since.elapsed())
    }

    /// Has the connection looked at when the caller may have taken too long. A timer that comes too early starts
    /// the next.
    fn set_alarm(&mut self, conn: &mut Connection<'_>) {
        let http = &self.calls.serving().http;
        let left = match self.in_work {
            Some(_) => http.idle_timeout,
            None => self.left(),
        };
        let at = Instant::now() + left;
        if let Some((earlier, timer)) = self.alarm {
            if earlier <= at {
                return;
            }
            conn.cancel_timer(timer);
        }
        self.alarm = Some((at, conn.set_timer(left, CHECK_HTTP)));
    }

    fn go_on(&mut self, conn: &mut Connection<'_>) {
        self.read_on(conn);
        if conn.is_open() {
            self.set_alarm(conn);
        }
    }

    fn read_on(&mut self, conn: &mut Connection<'_>) {
        while conn.is_open() && self.in_work.is_none() {
            if conn.output_bytes() > OUTPUT_BYTES_MAX {
                conn.pause_reading();
                conn.notify_drained();
                return;
            }
            match self.parser.next(&mut self.input) {
                Ok(Some(HttpEvent::Continue)) => {
                    if let Err(refusal) = self.receive() {
                        return self.answer(conn, &refusal, false, Then::CLOSE);
                    }
                    conn.write_with(write_continue);
                }
                Ok(Some(HttpEvent::Request(request))) => {
                    self.last_request = Instant::now();
                    let charge = self.begun.take().and_then(|begun| begun.charge);
                    self.request(conn, request, charge);
                }
                Ok(None) => {
                    if let Err(refusal) = self.receive() {
                        return self.answer(conn, &refusal, false, Then::CLOSE);
                    }
                    if self.ending && !self.parser.is_within_request(&self.input) {
                        conn.close();
                    }
                    conn.resume_reading();
                    return;
                }
                Err(error) => self.malformed(conn, error),
            }
        }
        if self.in_work.is_some() {
            conn.pause_reading();
        }
    }

    /// A request is not complete: whether the rest is waited for, or the answer that refuses it.
    fn receive(&mut self) -> Result<(), Page> {
        if !self.parser.is_within_request(&self.input) {
            self.begun = None;
            return Ok(());
        }
        let part = match self.parser.awaited_body() {
            Some(_) => Part::Body,
            None => Part::Head,
        };
        let begun_before = self.begun.as_ref().is_some_and(|begun| begun.part == part);
        if begun_before {
            return Ok(());
        }
        let charge = match self.parser.awaited_body() {
            Some((head, body_bytes)) => self.take_body(head, body_bytes)?,
            None => None,
        };
        self.begun = Some(Begun {
            part,
            since: Instant::now(),
            charge,
        });
        Ok(())
    }

    /// What a body that is to come takes of the provider's budget.
    fn take_body(&self, head: &HttpRequest, body_bytes: usize) -> Result<Option<Charge>, Page> {
        let serving = self.calls.serving();
        if self.offer.asks_who && head.path != "/health" {
            let shown = head.field("authorization").unwrap_or(&[]);
            let verified = serving.verify(shown, self.calls.peer());
            verified.map_err(|error| Page::error(&error))?;
        } else if !self.offer.calls || head.path == "/health" {
            // A page: nobody has to send much to see it.
            if body_bytes > UNCOUNTED_BYTES_MAX {
                return Err(Page::plain(413, "a page takes no such body"));
            }
        }
        if body_bytes <= UNCOUNTED_BYTES_MAX {
            return Ok(None);
        }
        let mut charge = Charge::none(&serving.receiving.budget);
        if !charge.resize(body_bytes) {
            let what = "too many bytes of requests are being received";
            return Err(Page::error(&RpcError::new(ErrorCode::OVERLOADED, what)));
        }
        Ok(Some(charge))
    }

    fn request(&mut self, conn: &mut Connection<'_>, request: HttpRequest, charge: Option<Charge>) {
        let then = Then {
            keep_alive: request.keep_alive && !self.is_ending(),
            to_http_1_0: request.is_http_1_0,
        };
        let path = request.path.trim_start_matches('/');
        match path.split_once('/') {
            Some((service, method)) if self.offer.calls => {
                match self.start(conn, &request, (service, method), charge) {
                    Ok(reply) => {
                        self.in_work = Some(InWork { reply, then });
                        // An inline handler has answered already.
                        self.finish_call(conn);
                    }
                    Err(page) => self.answer(conn, &page, false, then),
                }
            }
            _ => {
                let page = self.page(&request);
                let head_only = request.method == HttpMethod::Head;
                self.answer(conn, &page, head_only, then);
            }
        }
    }

    fn page(&self, request: &HttpRequest) -> Page {
        let serving = self.calls.serving();
        if !self.offer.pages {
            return Page::plain(404, "no pages here");
        }
        let is_health = request.path == "/health";
        if self.offer.asks_who && !is_health {
            let shown = request.field("authorization").unwrap_or(&[]);
            if let Err(error) = serving.verify(shown, self.calls.peer()) {
                return Page::plain(401, error.text().to_owned());
            }
        }
        pages::page(serving, request)
    }

    /// Starts a method; what is answered at once is a refusal.
    fn start(
        &self,
        conn: &mut Connection<'_>,
        request: &HttpRequest,
        (service, method): (&str, &str),
        charge: Option<Charge>,
    ) -> Result<Arc<WebReply>, Page> {
        let refuse = |error: RpcError| Page::error(&error);
        let serving = self.calls.serving();
        if request.method != HttpMethod::Post {
            return Err(Page::plain(405, "methods are called with POST").allowing("POST"));
        }
        let Some(content) = Content::of(request) else {
            let what = "content-type has to be application/json or application/proto";
            return Err(Page::plain(415, what));
        };
        let shown = request.field("authorization").unwrap_or(&[]);
        let auth = serving.verify(shown, self.calls.peer()).map_err(refuse)?;
        let id = serving
            .find(service.as_bytes(), method.as_bytes())
            .map_err(refuse)?;
        if content == Content::Json && serving.method(id).json.is_none() {
            let what = "the service came without its files: its messages cannot be read as JSON";
            return Err(refuse(RpcError::new(ErrorCode::HTTP, what)));
        }
        let mut frame = Frame {
            meta: call::meta(request, service, method).map_err(refuse)?,
            payload: request.body.clone(),
            attachment: Bytes::new(),
        };
        serving.admit(id).map_err(refuse)?;
        self.calls.begin();
        let reply = Arc::new(WebReply::new(content));
        let calls = Arc::clone(&self.calls);
        let call = IncomingCall::over_http(id, &mut frame, auth, calls, Arc::clone(&reply), charge);
        self.run(conn, id, call);
        Ok(reply)
    }

    fn run(&self, conn: &mut Connection<'_>, id: MethodId, call: IncomingCall) {
        let serving = self.calls.serving();
        let entry = serving.method(id);
        let index = entry.index;
        match entry.descriptor.execution {
            Execution::Inline | Execution::Responder => {
                let run = AssertUnwindSafe(|| entry.service.call(index, call));
                if catch_unwind(run).is_err() {
                    let method = entry.descriptor;
                    log::error!(
                        "{}: {}/{} panicked",
                        conn.peer_addr(),
                        method.service,
                        method.name
                    );
                }
            }
            Execution::Pooled => {
                let service = Arc::clone(&entry.service);
                // Refused, the call is dropped and thereby answered.
                let _ = serving.pool.execute(move || service.call(index, call));
            }
        }
    }

    fn finish_call(&mut self, conn: &mut Connection<'_>) {
        let Some(end) = self.in_work.as_ref().and_then(|call| call.reply.take()) else {
            return;
        };
        let Some(InWork { reply, mut then }) = self.in_work.take() else {
            return;
        };
        let page = match end {
            Ok(answer) => Page {
                fields: answer.fields,
                ..Page::new(200, reply.content.name(), answer.body)
            },
            Err(error) => Page::error(&error),
        };
        self.last_request = Instant::now();
        then.keep_alive &= !self.is_ending();
        self.answer(conn, &page, false, then);
    }

    fn malformed(&mut self, conn: &mut Connection<'_>, error: HttpError) {
        log::debug!("{}: {error}; the connection is closed", conn.peer_addr());
        let page = Page::plain(error.status(), error.to_string());
        self.answer(conn, &page, false, Then::CLOSE);
    }

    fn answer(&self, conn: &mut Connection<'_>, page: &Page, head_only: bool, then: Then) {
        let fields: Vec<(&str, &str)> = page
            .fields
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()))
            .collect();
        let response = HttpResponse {
            status: page.status,
            content_type: page.content_type,
            fields: &fields,
            body: &page.body,
            head_only,
            keep_alive: then.keep_alive,
            to_http_1_0: then.to_http_1_0,
        };
        conn.write_with(|out| response.write(SystemTime::now(), out));
        if !then.keep_alive {
            conn.close();
        }
    }

    /// A provider that drains tells its callers with every answer to connect elsewhere.
    fn is_ending(&self) -> bool {
        self.ending || self.calls.serving().is_draining()
    }
}
