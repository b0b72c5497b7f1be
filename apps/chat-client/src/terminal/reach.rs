//! Finding a server that answers.

use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

use chat_client::{ChatClient, ClientOptions, Event, Language};
use crossbeam_channel::Receiver;

use super::phrases;
use super::screen::{Kind, Screen};

const RETRY: Duration = Duration::from_secs(1);

/// A client that is connected. On a terminal it tries for as long as it takes, and says so; else for
/// as long as a request may take.
pub(crate) fn reach(
    place: (&str, u16),
    options: &ClientOptions,
    screen: Screen,
    language: Language,
) -> Result<(ChatClient, Receiver<Event>), String> {
    let deadline = Instant::now() + options.request_timeout;
    let mut said = false;
    loop {
        let reason = match try_all(place, options) {
            Ok(connected) => return Ok(connected),
            Err(reason) => reason,
        };
        match screen.kind() {
            Kind::Terminal if said => {}
            Kind::Terminal => {
                for line in phrases::unreachable(place, &reason, language) {
                    screen.line(&line);
                }
                said = true;
            }
            Kind::Pipe if Instant::now() + RETRY >= deadline => {
                return Err(phrases::unreachable(place, &reason, language).join(" "));
            }
            Kind::Pipe => {}
        }
        std::thread::sleep(RETRY);
    }
}

/// Tries each address that the name stands for, once.
fn try_all(
    place: (&str, u16),
    options: &ClientOptions,
) -> Result<(ChatClient, Receiver<Event>), String> {
    let addresses = place.to_socket_addrs().map_err(|error| error.to_string())?;
    let addresses: Vec<_> = addresses.collect();
    let mut reason = "the name stands for no address".to_owned();
    for (index, &address) in addresses.iter().enumerate() {
        let mut options = options.clone();
        // For when the connection is lost.
        options.more_addresses = [&addresses[index + 1..], &addresses[..index]].concat();
        let (client, events) =
            ChatClient::connect(address, options.clone()).map_err(|error| error.to_string())?;
        reason = match events.recv_timeout(options.request_timeout) {
            Ok(Event::Connected) => return Ok((client, events)),
            Ok(Event::Unreachable { reason, .. }) => reason,
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        };
    }
    Err(reason)
}
