//! A standalone chat whose disk fills up.
//!
//! The chat gets a small disk of its own, in memory, in a mount namespace of its own: nothing else on the
//! machine can fill it or be filled by it. From outside it is reached as `/proc/PID/root/...`. That takes
//! user namespaces, which an ordinary user may make unless the system forbids it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use chat_load::{Load, Shape, setup};
use nexus_testkit::{Home, Launch, Process, free_port};

use crate::Error;
use crate::fault::Fault;
use crate::outcome::Outcome;
use crate::plan::Step;
use crate::trial::{TrialOptions, WHOLE_WITHIN, settle, talk};
use crate::watch::{self, Watch};

/// Room for what a trial stores, and little enough to be filled in no time.
const DISK_SIZE: &str = "size=32m";
const SHAPE: Shape = Shape {
    pairs: 8,
    friends: 1,
    groups: 1,
    group_members: 4,
    idle: 0,
};

/// Mounts the disk and becomes the chat: `sh -c MOUNT sh DISK PROGRAM ARGUMENTS`.
const MOUNT: &str = r#"mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@""#;

/// Starts a standalone chat of its own, fills its disk while users talk, frees it, and waits until service
/// is whole.
///
/// # Errors
/// The chat cannot be started, or its disk cannot be filled. That it does not recover is an [`Outcome`].
pub fn suffer(options: &TrialOptions, step: Step) -> Result<Outcome, Error> {
    let chat = Chat::start(options)?;
    let roster = setup::register(&[chat.address], SHAPE)?;
    let load: Arc<Load> = talk(vec![chat.address], None, &roster, SHAPE)?;
    let watch = Watch::start(Arc::clone(&load))?;
    if !watch.wait_whole(std::time::Duration::from_nanos(1), WHOLE_WITHIN) {
        return Err(Error::Start("not every conversation has begun"));
    }
    thread::sleep(step.calm);
    watch.begin();
    chat.fill_disk()?;
    let begun = watch.now();
    thread::sleep(step.hold);
    chat.free_disk()?;
    let ended = watch.now();
    watch.wait_whole(ended, WHOLE_WITHIN);
    let samples = watch.samples();
    let during = watch::whole_after(&samples, begun);
    let reconnects = load.progress().reconnects;
    let verdict = settle(&load);
    Ok(Outcome {
        fault: Fault::FillDisk,
        held: ended.saturating_sub(begun),
        whole_during: during.filter(|after| begun + *after < ended),
        whole_after: watch::whole_after(&samples, ended),
        longest_wait: watch::longest_wait(&samples),
        reconnects,
        sessions_ended: verdict.sessions_ended,
        absence: None,
        fallen: Vec::new(),
        verdict,
    })
}

/// A standalone chat on a small disk.
struct Chat {
    process: Process,
    address: SocketAddr,
    disk: PathBuf,
    _home: Home,
}

impl Chat {
    fn start(options: &TrialOptions) -> Result<Self, Error> {
        let named = options
            .data_dir
            .as_ref()
            .map(|folder| folder.join("chat-standalone"));
        let home = Home::open(named, "chat-standalone")?;
        let disk = home.join("disk");
        fs::create_dir_all(&disk)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut args: Vec<_> = [
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            MOUNT,
            "sh",
        ]
        .map(Into::into)
        .into();
        args.extend([DISK_SIZE.into(), disk.clone().into_os_string()]);
        args.push(options.binaries.join("chat-standalone").into());
        args.extend(["--listen".into(), address.to_string().into()]);
        args.extend(["--data".into(), disk.clone().into_os_string()]);
        let process = Process::start(Launch {
            name: "chat-standalone".to_owned(),
            program: "/usr/bin/unshare".into(),
            args,
            log: home.join("chat-standalone.log"),
            ready: Box::new(|output| output.contains("The chat listens on")),
        })?;
        Ok(Self {
            process,
            address,
            disk,
            _home: home,
        })
    }

    /// Returns when not a byte more fits.
    fn fill_disk(&self) -> io::Result<()> {
        let mut file = File::create(self.filler())?;
        let mut piece = vec![0; 64 * 1024];
        loop {
            match file.write(&piece) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull && piece.len() > 1 => {
                    piece.truncate(piece.len() / 2);
                }
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn free_disk(&self) -> io::Result<()> {
        fs::remove_file(self.filler())
    }

    /// As the disk is seen from outside.
    fn filler(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.process.pid()));
        let disk = self.disk.strip_prefix("/").unwrap_or(&self.disk);
        root.join(disk).join("filler")
    }
}
