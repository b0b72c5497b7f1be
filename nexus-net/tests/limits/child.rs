//! This binary again, as another process.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::DEADLINE;

const ROLE: &str = "NEXUS_NET_TEST_ROLE";
/// What stands before a child's answers: the test harness writes to the same stream.
const MARK: &str = "=> ";

/// The part that this process plays, when it is a child.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// In a child: an answer to the parent.
pub(crate) fn say(answer: &str) {
    println!("{MARK}{answer}");
}

/// In a child: what the parent says, until it has no more to say.
pub(crate) fn commands() -> impl Iterator<Item = String> {
    std::io::stdin().lines().map_while(Result::ok)
}

/// Limits the descriptors of this process.
pub(crate) fn limit_descriptors(current: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: Some(current),
        maximum,
    };
    setrlimit(Resource::Nofile, limit).expect("the limit of descriptors can be set");
}

/// Runs `body` in a process of its own.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if role().is_some() {
        return body();
    }
    Child::start(test, "alone").finish();
}

/// A child process. Killed when dropped before its end.
pub(crate) struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    answers: mpsc::Receiver<String>,
    what: String,
}

impl Child {
    /// Starts this binary with only `test` selected; there, [`role`] is `role`.
    pub(crate) fn start(test: &str, role: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process");
        let output = process.stdout.take().expect("its output");
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, answer)) = line.split_once(MARK) {
                    let _ = sender.send(answer.to_owned());
                }
            }
        });
        Self {
            input: process.stdin.take(),
            process,
            answers,
            what: format!("{test} ({role})"),
        }
    }

    pub(crate) fn tell(&mut self, command: &str) {
        let input = self.input.as_mut().expect("not yet finished");
        writeln!(input, "{command}").expect("the child listens");
    }

    pub(crate) fn answer(&self) -> String {
        let answer = self.answers.recv_timeout(DEADLINE);
        answer.unwrap_or_else(|error| panic!("{}: no answer: {error}", self.what))
    }

    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    /// Lets it come to its end, which has to be a good one.
    pub(crate) fn finish(mut self) {
        self.input.take();
        let status = self.process.wait().expect("its status");
        assert!(status.success(), "{} failed in its process", self.what);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // After `finish` there is nobody left to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
