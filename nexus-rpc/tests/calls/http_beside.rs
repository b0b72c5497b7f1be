//! What goes along beside the messages of calls over HTTP: metadata does, attachments do not.

use crate::http::{Http, serve};
use crate::*;

#[test]
fn metadata_travels_in_fields_both_ways() {
    let (provider, seen) = serve(ProviderOptions::default());
    let mut http = Http::connect(provider.local_addr());
    let answer = http.post("Pooled", "nexus-META-K: a%20b%25 c%C3%A4\r\n", "{}");
    assert_eq!(answer.status, 200, "{answer:?}");
    // The head was made lower-case by the test's client.
    assert!(
        answer
            .head
            .contains("\r\nnexus-meta-k: a%20b%25%20c%c3%a4\r\n")
    );
    let without = http.post("Pooled", "", "{}");
    assert!(!without.head.contains("nexus-meta"), "{without:?}");

    let calls = seen.calls();
    for twice in [
        "Nexus-Meta-k: a\r\nnexus-meta-K: b\r\n",
        "Nexus-Meta-k: %ff\r\n",
    ] {
        let refused = http.post("Pooled", twice, "{}");
        assert_eq!(
            (refused.status, refused.json()["name"].as_str()),
            (400, Some("EREQUEST"))
        );
    }
    assert_eq!(seen.calls(), calls);
}

#[test]
fn more_metadata_than_a_head_may_have_fails_the_call() {
    // Encoded, each byte becomes three: what came in does not fit on its way out.
    let (provider, _seen) = serve(ProviderOptions::default());
    let mut http = Http::connect(provider.local_addr());
    let field = |bytes: usize| format!("Nexus-Meta-k: {}\r\n", "\u{e4}".repeat(bytes / 2));
    let small = http.post("Pooled", &field(5_000), "{}");
    assert_eq!(small.status, 200, "{small:?}");
    let large = http.post("Pooled", &field(10_000), "{}");
    assert_eq!(
        (large.status, large.json()["name"].as_str()),
        (500, Some("ERESPONSE"))
    );
    // Another call of the connection goes through.
    assert_eq!(http.post("Inline", "", "{}").status, 200);
}

/// Sets an attachment and tells how large the caller's is.
struct Attaching;

impl Modes for Attaching {
    fn pooled(&self, call: &CallContext, _request: Text) -> Result<Text, RpcError> {
        call.set_response_attachment(Bytes::from_static(b"0123456789"));
        Ok(text(&call.attachment().len().to_string()))
    }

    fn inline(&self, call: &CallContext, request: Text) -> Result<Text, RpcError> {
        self.pooled(call, request)
    }

    fn later(&self, call: CallContext, request: Text, responder: Responder<Text>) {
        responder.complete(self.pooled(&call, request));
    }
}

#[test]
fn an_attachment_is_left_out_and_the_answer_says_so() {
    let provider = RpcProvider::builder()
        .service(ModesServer::new(Attaching))
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let mut http = Http::connect(provider.local_addr());
    for method in ["Pooled", "Inline", "Later"] {
        let answer = http.post(method, "", "{}");
        assert_eq!(answer.json(), serde_json::json!({ "text": "0" }));
        assert!(
            answer
                .head
                .contains("\r\nnexus-attachment-left-out: 10\r\n"),
            "{answer:?}"
        );
    }
}
