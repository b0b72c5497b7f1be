//! A load over several processes: the program runs itself again, once for each part of the roster.
//!
//! ```text
//!   parent                                child: `chat-load client`
//!   Order (JSON, one line)        ──►     connects and logs in
//!                                 ◄──     "entered"
//!   "begin"                       ──►     sends;  ◄── Progress (JSON) every 100 ms from the start
//!   "end"                         ──►     sends no more, waits for the rest
//!                                 ◄──     Report (JSON)
//! ```

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::engine::{Load, Progress};
use crate::options::LoadOptions;
use crate::report::Report;
use crate::roster::Roster;

const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// How the load runs.
    pub options: LoadOptions,
    /// The child's part of the users.
    pub roster: Roster,
    /// What is due in this time after the beginning is not measured.
    pub warm_up: Duration,
    /// How long all users may take to log in.
    pub enter_deadline: Duration,
    /// How long what is under way may take to arrive after the end.
    pub drain_deadline: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
enum FromChild {
    Progress(Progress),
    Entered,
    Report(Box<Report>),
    Failed(String),
}

#[derive(Debug, Serialize, Deserialize)]
enum FromParent {
    Begin,
    End,
}

/// One child process.
#[derive(Debug)]
pub struct Client {
    child: Child,
    orders: ChildStdin,
    progress: Arc<Mutex<Progress>>,
    words: Receiver<FromChild>,
}

impl Client {
    /// Starts this program with the argument `client` and gives it its order.
    ///
    /// # Errors
    /// When the process cannot be started, or does not take its order.
    pub fn start(order: &Order) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("client")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (mut orders, output) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        write_line(&mut orders, order)?;
        let progress = Arc::new(Mutex::new(Progress::default()));
        let (sender, words) = channel();
        let seen = Arc::clone(&progress);
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let word = line.and_then(|line| Ok(serde_json::from_str(&line)?));
                match word {
                    Ok(FromChild::Progress(progress)) => *seen.lock() = progress,
                    Ok(word) => {
                        let _ = sender.send(word);
                    }
                    Err(_) => return,
                }
            }
        });
        Ok(Self {
            child,
            orders,
            progress,
            words,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How far it was a moment ago.
    pub fn progress(&self) -> Progress {
        *self.progress.lock()
    }

    /// Waits until all its users are logged in.
    ///
    /// # Errors
    /// What it failed with.
    pub fn wait_entered(&self) -> io::Result<()> {
        match self.word()? {
            FromChild::Entered => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Has it send.
    ///
    /// # Errors
    /// When it has ended.
    pub fn begin(&mut self) -> io::Result<()> {
        write_line(&mut self.orders, &FromParent::Begin)
    }

    /// Has it send no more.
    ///
    /// # Errors
    /// When it has ended.
    pub fn end(&mut self) -> io::Result<()> {
        write_line(&mut self.orders, &FromParent::End)
    }

    /// Waits for its report.
    ///
    /// # Errors
    /// What it failed with.
    pub fn report(&mut self) -> io::Result<Report> {
        let report = match self.word()? {
            FromChild::Report(report) => *report,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        self.child.wait()?;
        Ok(report)
    }

    fn word(&self) -> io::Result<FromChild> {
        match self.words.recv() {
            Ok(FromChild::Failed(why)) => Err(io::Error::other(why)),
            Ok(word) => Ok(word),
            Err(_) => Err(io::Error::other("a client process ended without a word")),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the child does, on its standard input and output. A parent that ends ends it too.
///
/// # Errors
/// When the parent has gone, or speaks otherwise than it should.
pub fn run_client() -> io::Result<()> {
    let mut input = io::stdin().lines();
    let mut output = io::stdout();
    let order: Order = read_line(&mut input)?;
    let load = match Load::start(order.options, &order.roster) {
        Ok(load) => Arc::new(load),
        Err(error) => return write_line(&mut output, &FromChild::Failed(error.to_string())),
    };
    tell_progress(Arc::downgrade(&load));
    if !load.wait_entered(order.enter_deadline) {
        let progress = load.progress();
        let why = format!(
            "{} of {} users are logged in: {:?}",
            progress.logged_in,
            progress.users,
            load.verdict().examples
        );
        return write_line(&mut output, &FromChild::Failed(why));
    }
    write_line(&mut output, &FromChild::Entered)?;
    let FromParent::Begin = read_line(&mut input)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    load.begin(order.warm_up);
    let FromParent::End = read_line(&mut input)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    load.end_sending();
    load.drain(order.drain_deadline);
    write_line(&mut output, &FromChild::Report(Box::new(load.report())))
}

fn tell_progress(load: std::sync::Weak<Load>) {
    thread::spawn(move || {
        while let Some(load) = load.upgrade() {
            let progress = FromChild::Progress(load.progress());
            drop(load);
            if write_line(&mut io::stdout(), &progress).is_err() {
                return;
            }
            thread::sleep(PROGRESS_INTERVAL);
        }
    });
}

fn write_line(out: &mut impl Write, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

fn read_line<T: for<'a> Deserialize<'a>>(
    lines: &mut impl Iterator<Item = io::Result<String>>,
) -> io::Result<T> {
    let line = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    Ok(serde_json::from_str(&line)?)
}
