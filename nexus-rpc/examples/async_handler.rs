//! A handler that answers later: calls wait for a batch to be written, and no thread waits with them.
//! `cargo run -p nexus-rpc --example async_handler`.
//!
//! `build.rs` makes `Place` such a method: `Builder::responder("shop.Orders.Place")`. Its handler begins on
//! the connection's loop, where it must not block, and passes the [`Responder`] on. Whoever has it answers:
//! at any time, from any thread. Dropped, it answers that the handler failed, so no caller waits in vain.

use std::error::Error;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use nexus_net::LoopGroup;
use nexus_rpc::registry::{InProcessRegistry, Registry};
use nexus_rpc::{
    CallContext, CallOptions, ChannelOptions, ErrorCode, Responder, RpcChannel, RpcError,
    RpcProvider,
};

include!(concat!(env!("OUT_DIR"), "/shop.rs"));

/// What travels from the handler to the thread that writes.
type Work = (Order, Responder<Receipt>);

/// Takes orders; the clerk writes them down.
struct Desk {
    clerk: SyncSender<Work>,
}

impl Orders for Desk {
    fn place(&self, _call: CallContext, order: Order, responder: Responder<Receipt>) {
        // The queue has a limit, and to wait for a place in it would stop every connection of the loop.
        match self.clerk.try_send((order, responder)) {
            Ok(()) => {}
            Err(TrySendError::Full((_, responder))) => {
                let full = RpcError::new(ErrorCode::OVERLOADED, "too many orders wait");
                responder.complete(Err(full));
            }
            Err(TrySendError::Disconnected((_, responder))) => {
                let closed = RpcError::new(ErrorCode::STOPPING, "the desk is closed");
                responder.complete(Err(closed));
            }
        }
    }
}

/// Writes all that has queued up while the last batch was written, then answers each of them.
fn write_down(work: Receiver<Work>, book: &Mutex<Vec<Order>>) {
    while let Ok(first) = work.recv() {
        let batch: Vec<Work> = std::iter::once(first).chain(work.try_iter()).collect();
        let mut book = book.lock().expect("nobody panics with the book");
        let mut numbers = (book.len() as i64 + 1)..;
        let (orders, responders): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        book.extend(orders); // Here a transaction would be committed.
        drop(book);
        for (responder, number) in responders.into_iter().zip(&mut numbers) {
            responder.complete(Ok(Receipt { number }));
        }
    }
}

/// Places orders, all of them at once; returns the numbers of their receipts.
pub(crate) fn run(orders: i32) -> Result<Vec<i64>, Box<dyn Error>> {
    let (clerk, work) = sync_channel(1024);
    let writing = thread::spawn(move || write_down(work, &Mutex::default()));
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = Arc::new(LoopGroup::start("rpc", 2)?);
    let provider = RpcProvider::builder()
        .service(OrdersServer::new(Desk { clerk }))
        .registry(Arc::clone(&registry))
        .loops(Arc::clone(&loops))
        .start("127.0.0.1:0".parse()?)?;

    let client = OrdersClient::new(RpcChannel::new(registry, loops, ChannelOptions::default()));
    let place = |count| {
        let item = "pencil".to_owned();
        client.place_with(
            &Order { item, count },
            CallOptions::default().wait_for_ready(),
        )
    };
    // A call is on its way as soon as it is made; waiting for it is another matter.
    let calls: Vec<_> = (1..=orders).map(place).collect();
    let receipts: Result<Vec<_>, RpcError> = calls.into_iter().map(|call| call.wait()).collect();
    let numbers = receipts?.iter().map(|reply| reply.message.number).collect();

    // The desk goes with its provider, the clerk with the desk.
    drop((provider, client));
    writing.join().expect("the clerk does not panic");
    Ok(numbers)
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("receipts: {:?}", run(5)?);
    Ok(())
}
