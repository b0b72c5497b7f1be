//! One caller's connection that speaks HTTP: one request at a time, answers in the order of the requests.
//!
//! ```text
//!   waiting ─► request ─┬─ page: answered at once ─► waiting
//!                       └─ call ─► in work: not read ─► answered when woken ─► waiting
//! ```
//!
//! Requests that a caller sends ahead wait in `input`, at most one read of them: neither while a call is in
//! work nor while answers wait to be taken is anything read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use nexus_net::Connection;

use super::Offer;
use super::call::{self, Content, WebReply};
use super::pages::{self, Page};
use crate::http::{
    HttpError, HttpEvent, HttpMethod, HttpRequest, HttpResponse, RequestParser, write_continue,
};
use crate::server::answer::ConnectionCalls;
use crate::server::incoming::IncomingCall;
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
}

/// A call that is not answered.
struct InWork {
    reply: Arc<WebReply>,
    keep_alive: bool,
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
        }
    }

    /// Bytes have come.
    pub(in crate::server) fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        match self.input.is_empty() {
            true => self.input = input.split(),
            false => self.input.extend_from_slice(&input.split()),
        }
        self.go_on(conn);
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

    /// Looks whether the caller has been idle for too long; when to look again.
    pub(in crate::server) fn check_idle(&mut self, conn: &mut Connection<'_>) -> Option<Duration> {
        let idle_max = self.calls.serving().http.idle_timeout;
        match idle_max.checked_sub(self.last_request.elapsed()) {
            Some(left) => Some(left),
            None if self.in_work.is_some() => Some(idle_max),
            None => {
                conn.close();
                None
            }
        }
    }

    fn go_on(&mut self, conn: &mut Connection<'_>) {
        while conn.is_open() && self.in_work.is_none() {
            if conn.output_bytes() > OUTPUT_BYTES_MAX {
                conn.pause_reading();
                conn.notify_drained();
                return;
            }
            match self.parser.next(&mut self.input) {
                Ok(Some(HttpEvent::Continue)) => conn.write_with(write_continue),
                Ok(Some(HttpEvent::Request(request))) => {
                    self.last_request = Instant::now();
                    self.request(conn, request);
                }
                Ok(None) => {
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

    fn request(&mut self, conn: &mut Connection<'_>, request: HttpRequest) {
        let keep_alive = request.keep_alive && !self.is_ending();
        let path = request.path.trim_start_matches('/');
        match path.split_once('/') {
            Some((service, method)) if self.offer.calls => {
                match self.start(conn, &request, service, method) {
                    Ok(reply) => {
                        self.in_work = Some(InWork { reply, keep_alive });
                        // An inline handler has answered already.
                        self.finish_call(conn);
                    }
                    Err(page) => self.answer(conn, &page, false, keep_alive),
                }
            }
            _ => {
                let page = self.page(&request);
                let head_only = request.method == HttpMethod::Head;
                self.answer(conn, &page, head_only, keep_alive);
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
        service: &str,
        method: &str,
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
        let call = IncomingCall::over_http(id, &mut frame, auth, calls, Arc::clone(&reply));
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
        let Some(InWork { reply, keep_alive }) = self.in_work.take() else {
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
        let keep_alive = keep_alive && !self.is_ending();
        self.answer(conn, &page, false, keep_alive);
    }

    fn malformed(&mut self, conn: &mut Connection<'_>, error: HttpError) {
        log::debug!("{}: {error}; the connection is closed", conn.peer_addr());
        let page = Page::plain(error.status(), error.to_string());
        self.answer(conn, &page, false, false);
    }

    fn answer(&self, conn: &mut Connection<'_>, page: &Page, head_only: bool, keep_alive: bool) {
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
            keep_alive,
        };
        conn.write_with(|out| response.write(SystemTime::now(), out));
        if !keep_alive {
            conn.close();
        }
    }

    /// A provider that drains tells its callers with every answer to connect elsewhere.
    fn is_ending(&self) -> bool {
        self.ending || self.calls.serving().is_draining()
    }
}
