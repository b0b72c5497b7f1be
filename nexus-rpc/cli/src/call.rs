//! `nexus-rpc call`: a method called with JSON, its answer printed as JSON.

use std::fs;
use std::time::Instant;

use bytes::Bytes;
use nexus_rpc::{CallOptions, ChannelOptions, RawMessage, Reply};

use crate::args::{Call, Global};
use crate::failure::{Failure, printable};
use crate::print;
use crate::target::{Target, read_file};
use crate::types::{self, Layout};

pub(crate) fn run(global: &Global, args: &Call) -> Result<(), Failure> {
    let target = Target::find(&args.method, &args.types, global)?;
    let request = target.request(&args.request)?;
    let attachment = match &args.attachment {
        Some(path) => read_file(path)?,
        None => Bytes::new(),
    };
    let options = CallOptions {
        attachment,
        metadata: args.metadata.iter().cloned().collect(),
        ..CallOptions::default()
    };
    let channel = target.connect(ChannelOptions::default(), 1, global)?;

    let mut failed: u64 = 0;
    let mut last = None;
    for _ in 0..args.repeat {
        let started = Instant::now();
        let result = channel
            .call_raw(target.method, &request, options.clone())
            .wait();
        if args.verbose {
            eprintln!("{} took {:?}", target.name, started.elapsed());
        }
        match result {
            Ok(reply) => show(&target, args, reply)?,
            Err(error) => {
                let failure = target.failure(&error);
                if args.repeat > 1 {
                    eprintln!("{failure}");
                }
                failed += 1;
                last = Some(failure);
            }
        }
    }
    match last {
        None => Ok(()),
        Some(failure) if args.repeat == 1 => Err(failure),
        Some(_) => Err(Failure::new(
            format!("{failed} of {} calls failed", args.repeat),
            "each failure above says what to do",
        )),
    }
}

fn show(target: &Target, args: &Call, reply: Reply<RawMessage>) -> Result<(), Failure> {
    if args.verbose {
        for (key, value) in &reply.metadata {
            eprintln!("{}", printable(&format!("{key}={value}")));
        }
    }
    let layout = match args.repeat {
        1 => Layout::Pretty,
        _ => Layout::Line,
    };
    let json = types::decode(target.types.output(), reply.message.0, layout)?;
    print(&format!("{json}\n"))?;
    match &args.save_attachment {
        Some(path) => fs::write(path, &reply.attachment).map_err(|error| {
            Failure::new(
                format!(
                    "the attachment cannot be written to {}: {error}",
                    path.display()
                ),
                "name a file that can be written with --save-attachment",
            )
        }),
        None => {
            if !reply.attachment.is_empty() {
                let length = reply.attachment.len();
                eprintln!(
                    "the answer has an attachment of {length} bytes: --save-attachment FILE keeps it"
                );
            }
            Ok(())
        }
    }
}
